import torch

from maskclr_pl.backbones import Transformer
from maskclr_pl.checkpoint import load_published_weights
from maskclr_pl.heads import ActionHead
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("mamp_transformer")
TOKENS, ATTENTION, HIDDEN, LOGITS = 3e-5, 1e-6, 2e-5, 1e-5  # golden/README.md


def sequences():
    """(N, C, T, V, M) to person sequences (N * M, T, V, C)."""
    return GOLDEN.tensor("in/x").permute(0, 4, 2, 3, 1).flatten(0, 1)


def models():
    config = GOLDEN.config
    backbone = Transformer(
        dim=config["dim_feat"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=float(config["mlp_ratio"]),
        patch_frames=config["t_patch_size"],
        max_frames=config["num_frames"],
        joints=config["num_joints"],
        channels=config["dim_in"],
        drop_path=config["drop_path_rate"],
    )
    weights = {f"module.{name}": value for name, value in GOLDEN.under("weights/").items()}
    load_published_weights(backbone, {"epoch": 1, "model": weights})
    with torch.no_grad():
        backbone.mask_token.copy_(GOLDEN.tensor("in/mask_token").view_as(backbone.mask_token))
    fc2 = GOLDEN["weights/head.fc2.weight"]
    head = ActionHead(
        config["dim_feat"],
        config["num_joints"],
        num_classes=fc2.shape[0],
        hidden=config["hidden_dim"],
        dropout=0.0,
    )
    load_published_weights(head, GOLDEN.under("weights/"))
    return backbone.eval(), head.eval()


def received(features):
    """Per patch, summing to 1 for each person, as the reference has it."""
    stride = features.importance.shape[1] // features.tokens.shape[1]
    return features.importance.unflatten(1, (-1, stride)).sum(2)


@torch.no_grad()
def compare(mask, suffix):
    backbone, head = models()
    x = sequences()
    features = backbone(x, mask=mask, with_importance=True)
    assert_close(features.tokens, GOLDEN[f"out/tokens{suffix}"], TOKENS)
    assert_close(received(features), GOLDEN[f"out/attention_received{suffix}"], ATTENTION)
    prediction = head(features.tokens, torch.arange(len(x)) // 2, len(x) // 2)
    assert_close(prediction.embedding, GOLDEN[f"out/hidden{suffix}"], HIDDEN)
    assert_close(prediction.logits, GOLDEN[f"out/logits{suffix}"], LOGITS)


def test_full_clips():
    compare(None, "")


def test_hidden_patches():
    compare(GOLDEN.tensor("in/mask"), "_masked")
