import torch

from maskclr_pl.backbones import STTFormer
from maskclr_pl.checkpoint import load_published_weights
from maskclr_pl.heads import LinearHead
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("sttformer")
ATTENTION, FEATURES, LOGITS = 2e-5, 1e-4, 1e-5  # golden/README.md


@torch.no_grad()
def test_attention_features_and_logits():
    config = GOLDEN.config
    x = GOLDEN.tensor("in/x").permute(0, 4, 2, 3, 1).flatten(0, 1)
    backbone = STTFormer(
        blocks=config["config"],
        heads=config["num_heads"],
        tuple_frames=config["len_parts"],
        joints=config["num_joints"],
        channels=config["num_channels"],
    )
    weights = {f"module.{name}": value for name, value in GOLDEN.under("weights/").items()}
    load_published_weights(backbone, weights)
    fc = GOLDEN["weights/fc.weight"]
    head = LinearHead(backbone.dim, fc.shape[0])
    load_published_weights(head, weights)
    maps = []
    backbone.eval().blocks[-1].register_forward_hook(
        lambda block, given, _: maps.append(block.attention(*block.query_key(given[0])))
    )
    tokens = backbone(x).tokens
    assert_close(maps[0], GOLDEN["out/attention"], ATTENTION)
    tuples = tokens.unflatten(1, (-1, config["len_parts"])).flatten(2, 3)
    assert_close(tuples.permute(0, 3, 1, 2), GOLDEN["out/features"], FEATURES)
    logits = head.eval()(tokens, torch.arange(len(x)) // 2, len(x) // 2).logits
    assert_close(logits, GOLDEN["out/logits"], LOGITS)
