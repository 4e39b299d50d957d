import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import maskclr_pl.masking.base
import maskclr_pl.masking.uniform
from maskclr_pl.backbones import Transformer
from maskclr_pl.checkpoint import load_published_weights
from maskclr_pl.masking import MotionAwareMasking, RandomMasking
from maskclr_pl.methods import MaskedAutoencoder
from maskclr_pl.methods.pretrain.decoders import TransformerDecoder
from maskclr_pl.methods.pretrain.masked_autoencoder import masked_error
from maskclr_pl.optim import Optim
from maskclr_pl.skeletons.skeleton import SKELETONS
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("mamp_pretrain")
CONFIG = GOLDEN.config
SCORE, DRAW, MOTION, TARGET, PREDICTION, LOSS = 1e-6, 1e-5, 1e-6, 1e-5, 3e-5, 1e-5  # README there
STRIDE = CONFIG["t_patch_size"]


def sequences() -> Tensor:
    """(N, C, T, V, M) to person sequences (N * M, T, V, C)."""
    return GOLDEN.tensor("in/x").permute(0, 4, 2, 3, 1).flatten(0, 1)


def model(name: str) -> MaskedAutoencoder:
    def decoder(**known: int) -> nn.Module:
        return TransformerDecoder(
            **known,
            frames=CONFIG["num_frames"],
            joints=CONFIG["num_joints"],
            width=CONFIG["decoder_dim_feat"],
            depth=CONFIG["decoder_depth"],
            heads=CONFIG["num_heads"],
            mlp_ratio=float(CONFIG["mlp_ratio"]),
        )

    method = MaskedAutoencoder(
        backbone=Transformer(
            dim=CONFIG["dim_feat"],
            depth=CONFIG["depth"],
            heads=CONFIG["num_heads"],
            mlp_ratio=float(CONFIG["mlp_ratio"]),
            patch_frames=STRIDE,
            max_frames=CONFIG["num_frames"],
            joints=CONFIG["num_joints"],
            channels=CONFIG["dim_in"],
        ),
        decoder=decoder,
        target="motion" if name == "mamp" else "coordinates",
        normalize=CONFIG["norm_skes_loss"],
        optim=Optim(),
        skeleton=SKELETONS["ntu25"],
        augment=nn.Identity(),
        preprocess=nn.Identity(),
    )
    weights = GOLDEN.under("weights/")
    load_published_weights(method.backbone, weights)
    theirs = {k.removeprefix("decoder_"): v for k, v in weights.items() if k.startswith("decoder_")}
    theirs["mask_token"] = weights["mask_token"]
    method.decoder.load_state_dict({k: torch.from_numpy(v) for k, v in theirs.items()})
    return method.eval()


def strategy(name: str) -> MotionAwareMasking | RandomMasking:
    if name == "mae":
        return RandomMasking(ratio=CONFIG["mask_ratio"])
    return MotionAwareMasking(ratio=CONFIG["mask_ratio"], temperature=CONFIG["motion_aware_tau"])


def gumbel_of_the_reference(*_: object) -> Tensor:
    return -(-GOLDEN.tensor("in/uniform").log()).log()


@pytest.fixture
def recorded(monkeypatch):
    """The recorded draws instead of new ones."""
    uniform = GOLDEN.tensor("in/uniform_random").view(GOLDEN["out/mae/mask"].shape)
    monkeypatch.setattr(maskclr_pl.masking.base, "gumbel", gumbel_of_the_reference)
    # of each frame of a patch, of which the strategy takes the mean
    draws = uniform.repeat_interleave(STRIDE, 1)
    monkeypatch.setattr(maskclr_pl.masking.uniform, "uniform", lambda *_, **__: draws)


def test_motion_score_and_probabilities():
    masking, x = strategy("mamp"), sequences()
    assert_close(masking.motion(x, STRIDE), GOLDEN["out/mamp/motion_score"], SCORE)
    log_prob = masking.logits(x, STRIDE).flatten(1).log_softmax(-1)
    shape = GOLDEN["out/mamp/log_prob"].shape
    assert_close(log_prob.view(shape), GOLDEN["out/mamp/log_prob"], DRAW)
    perturbed = (log_prob + gumbel_of_the_reference()).view(shape)
    assert_close(perturbed, GOLDEN["out/mamp/perturbed"], DRAW)


@pytest.mark.parametrize("name", ["mamp", "mae"])
def test_masks_from_the_recorded_draws(name, recorded):
    masking = strategy(name)
    mask = masking(sequences(), None, STRIDE)
    np.testing.assert_array_equal(mask.numpy(), GOLDEN[f"out/{name}/mask"] == 1)
    _, steps, joints = mask.shape
    kept = int(GOLDEN[f"out/{name}/len_keep"])
    assert steps * joints - masking.num_masked(steps, joints) == kept


def test_raw_target():
    method, x = model("mamp"), sequences()
    method.normalize = False
    target = method.target_of(*method.points(x))
    assert_close(target, GOLDEN["out/mamp/target_raw"], MOTION)


@torch.no_grad()
@pytest.mark.parametrize("name", ["mamp", "mae"])
def test_prediction_target_and_loss(name):
    method, x = model(name), sequences()
    method.masking = strategy(name)
    mask = GOLDEN.tensor(f"out/{name}/mask") == 1
    prediction, _ = method.predict_hidden(x, mask)
    target = method.target_of(*method.points(x))
    assert_close(prediction, GOLDEN[f"out/{name}/pred"], PREDICTION)
    assert_close(target, GOLDEN[f"out/{name}/target"], TARGET)
    loss = masked_error(prediction, target, mask)
    assert_close(loss, GOLDEN[f"out/{name}/loss"], LOSS)
    assert not math.isclose(loss.item(), 0)


def test_training_step_is_all_of_it(recorded, monkeypatch):
    logged = {}
    monkeypatch.setattr(MaskedAutoencoder, "log_dict", lambda self, new, **_: logged.update(new))
    for name in ("mamp", "mae"):
        method = model(name)
        method.masking = strategy(name)
        clip = GOLDEN.tensor("in/x").permute(0, 4, 2, 3, 1)
        clips, persons = clip.shape[:2]
        batch = {
            "clip": clip,
            "present": torch.ones(clips, persons, dtype=torch.bool),
            "sequence": torch.arange(clips * persons),
            "frame": torch.arange(clip.shape[2]).expand(clips, -1).contiguous(),
            "label": torch.zeros(clips, dtype=torch.int64),
            "index": torch.arange(clips),
        }
        outputs = method.training_step(batch, 0)
        assert_close(outputs["loss"], GOLDEN[f"out/{name}/loss"], LOSS)
        assert torch.equal(outputs["loss"].detach(), logged["train/loss"])
