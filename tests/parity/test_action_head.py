import pytest
import torch

from maskclr_pl.checkpoint import load_published_weights
from maskclr_pl.heads import ActionHead, EmbeddingHead
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("action_head")
TOLERANCE = {"pooled": 1e-6, "fc1": 1e-5, "hidden": 1e-5}  # golden/README.md
LOGITS, EMBEDDING = 1e-5, 2e-6


def persons() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Tokens of all persons, their clip_indices, number of clips."""
    x = GOLDEN.tensor("in/x")
    return x.flatten(0, 1), torch.arange(x.shape[0]).repeat_interleave(x.shape[1]), x.shape[0]


@pytest.mark.parametrize("embedding", TOLERANCE)
@torch.no_grad()
def test_classification_head(embedding):
    config = GOLDEN.config
    head = ActionHead(
        dim=config["dim_rep"],
        joints=config["num_joints"],
        num_classes=config["num_classes"],
        hidden=config["hidden_dim"],
        dropout=config["dropout"],
        embedding=embedding,
    )
    load_published_weights(head, GOLDEN.under("weights/class."))
    prediction = head.eval()(*persons())
    assert_close(prediction.embedding, GOLDEN[f"out/{embedding}"], TOLERANCE[embedding])
    assert_close(prediction.logits, GOLDEN["out/logits"], LOGITS)


@torch.no_grad()
def test_embedding_head():
    config = GOLDEN.config
    head = EmbeddingHead(
        dim=config["dim_rep"],
        joints=config["num_joints"],
        embed_dim=config["embed_dim"],
        dropout=config["dropout"],
    )
    load_published_weights(head, GOLDEN.under("weights/embed."))
    assert_close(head.eval()(*persons()), GOLDEN["out/embedding"], EMBEDDING)
