import numpy as np
import pytest
import torch

from maskclr_pl.backbones import DSTformer
from maskclr_pl.checkpoint import load_published_weights
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("dstformer")
MAPS = {
    "st_spatial": "out/attention_received",
    "ts_spatial": "out/attention_received_ts_spatial",
    "st_temporal": "out/attention_received_st_temporal",
    "ts_temporal": "out/attention_received_ts_temporal",
}
TOKENS, ATTENTION = 2e-5, 5e-5  # golden/README.md


def build(*importance: str) -> DSTformer:
    config = GOLDEN.config
    model = DSTformer(
        dim=config["dim_feat"],
        rep_dim=config["dim_rep"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=float(config["mlp_ratio"]),
        max_frames=config["maxlen"],
        joints=config["num_joints"],
        channels=config["dim_in"],
        importance=importance or ("st_spatial",),
    )
    weights = {f"module.{name}": value for name, value in GOLDEN.under("weights/").items()}
    load_published_weights(model, {"epoch": 1, "model_pos": weights})
    with torch.no_grad():
        model.mask_token.copy_(GOLDEN.tensor("in/mask_token"))
    return model.eval()


def received(importance: torch.Tensor) -> torch.Tensor:
    """The reference's scale: importance sums to 1, its sum over queries to T * V."""
    return importance * importance.shape[1] * importance.shape[2]


@torch.no_grad()
def test_representation_and_pose():
    tokens = build()(GOLDEN.tensor("in/x")).tokens
    assert_close(tokens, GOLDEN["out/representation"], TOKENS)
    head = {name: torch.from_numpy(v) for name, v in GOLDEN.under("weights/head.").items()}
    assert_close(tokens @ head["weight"].T + head["bias"], GOLDEN["out/pose"], TOKENS)


@pytest.mark.parametrize("clips", ["maxlen", "single"])
@torch.no_grad()
def test_other_lengths(clips):
    tokens = build()(GOLDEN.tensor(f"in/x_{clips}")).tokens
    assert_close(tokens, GOLDEN[f"out/representation_{clips}"], TOKENS)


@pytest.mark.parametrize("name", MAPS)
@torch.no_grad()
def test_attention_received(name):
    importance = build(name)(GOLDEN.tensor("in/x"), with_importance=True).importance
    assert_close(received(importance), GOLDEN[MAPS[name]], ATTENTION)


@torch.no_grad()
def test_importance_of_several_maps_is_their_mean():
    importance = build(*MAPS)(GOLDEN.tensor("in/x"), with_importance=True).importance
    mean = np.mean([GOLDEN[key] for key in MAPS.values()], axis=0)
    assert_close(received(importance), mean, ATTENTION)


@torch.no_grad()
def test_masked_tokens():
    model = build()
    features = model(GOLDEN.tensor("in/x"), mask=GOLDEN.tensor("in/mask"), with_importance=True)
    assert_close(features.tokens, GOLDEN["out/representation_masked"], TOKENS)
    assert_close(received(features.importance), GOLDEN["out/attention_received_masked"], ATTENTION)
