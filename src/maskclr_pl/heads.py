"""Heads: the tokens of a clip's persons to logits or an embedding."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskclr_pl.types import Prediction


def pool_persons(
    vectors: Float[Tensor, "N P"], clip_index: Int[Tensor, " N"], batch_size: int
) -> Float[Tensor, "B P"]:
    """Average over the persons of each clip; zeros for a clip without persons.

    Args:
        vectors: One vector per person.
        clip_index: Clip of each person, in [0, B); B for persons to ignore (see `Method.pack`).
        batch_size: B.
    """
    sums = vectors.new_zeros(batch_size + 1, vectors.shape[1]).index_add(0, clip_index, vectors)
    ones = torch.ones_like(vectors[:, :1])
    counts = vectors.new_zeros(batch_size + 1, 1).index_add(0, clip_index, ones)
    return (sums / counts.clamp_min(1))[:batch_size]


class ActionHead(nn.Module):
    """MotionBERT's action head.

    Dropout, mean over time, flatten to V * D (joint-major), mean over persons, Linear, BatchNorm,
    ReLU, Linear. Parameter names are those of the published checkpoints.

    Args:
        dim: Width of the tokens.
        joints: V.
        num_classes: K.
        hidden: Width of the hidden layer (published: 2048).
        dropout: On the tokens before pooling (published: 0.5).
        embedding: Input of contrastive losses: `pooled` (V * D), `fc1` (before the BatchNorm), or
            `hidden` (after the ReLU).

    Raises:
        ValueError: If `embedding` is unknown.
    """

    def __init__(
        self,
        dim: int,
        joints: int,
        num_classes: int,
        hidden: int = 2048,
        dropout: float = 0.5,
        embedding: Literal["pooled", "fc1", "hidden"] = "hidden",
    ):
        super().__init__()
        if embedding not in ("pooled", "fc1", "hidden"):
            raise ValueError(f"embedding must be pooled, fc1 or hidden, got {embedding!r}")
        self.embedding = embedding
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(dim * joints, hidden)
        self.bn = nn.BatchNorm1d(hidden)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Prediction:
        """Return logits (B, K) and embedding (B, E)."""
        pooled = self.dropout(tokens).mean(1).flatten(1)  # (N, V * D)
        pooled = pool_persons(pooled, clip_index, batch_size)
        fc1 = self.fc1(pooled)
        hidden = F.relu(self.bn(fc1))
        embedding = {"pooled": pooled, "fc1": fc1, "hidden": hidden}[self.embedding]
        return Prediction(self.fc2(hidden), embedding)


class LinearHead(nn.Module):
    """STTFormer's head: mean over time, joints and persons, then Linear.

    Args:
        dim: Width of the tokens.
        num_classes: K.
        dropout: On the pooled features (published: 0).
    """

    def __init__(self, dim: int, num_classes: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(dim, num_classes)

    def forward(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Prediction:
        """Return logits (B, K) and the pooled features (B, D) as embedding."""
        pooled = pool_persons(tokens.mean((1, 2)), clip_index, batch_size)
        return Prediction(self.fc(self.dropout(pooled)), pooled)


class EmbeddingHead(nn.Module):
    """MotionBERT's one-shot head: pooling as in `ActionHead`, Linear, L2 normalization.

    Args:
        dim: Width of the tokens.
        joints: V.
        embed_dim: Width of the embedding (published: 2048).
        dropout: On the tokens before pooling (published: 0.1).
    """

    def __init__(self, dim: int, joints: int, embed_dim: int = 2048, dropout: float = 0.1):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc1 = nn.Linear(dim * joints, embed_dim)

    def forward(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Float[Tensor, "B E"]:
        """Return unit vectors."""
        pooled = self.dropout(tokens).mean(1).flatten(1)  # (N, V * D)
        pooled = pool_persons(pooled, clip_index, batch_size)
        return F.normalize(self.fc1(pooled), dim=-1)


class Projector(nn.Module):
    """Projector of contrastive pre-training: pooling as in `LinearHead`, then a small MLP.

    Linear, ReLU, Linear, L2 normalization, without BatchNorm (MoCo v2, AimCLR, CrosSCLR).

    Args:
        dim: Width of the tokens.
        hidden: Width between the two layers (published: that of the backbone).
        embed_dim: E (published: 128).
    """

    def __init__(self, dim: int, hidden: int, embed_dim: int = 128):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Float[Tensor, "B E"]:
        """Return unit vectors in float32."""
        pooled = pool_persons(tokens.mean((1, 2)), clip_index, batch_size)
        return F.normalize(self.fc2(F.relu(self.fc1(pooled))).float(), dim=-1)


def is_finite_prediction(logits: Float[Tensor, "B K"]) -> Bool[Tensor, " B"]:
    """Return for which clips the largest logit is finite; does not synchronize the device.

    Minus infinity is allowed for classes that are ruled out.
    """
    return logits.amax(1).isfinite()


def count_non_finite_as_wrong(
    logits: Float[Tensor, "B K"], label: Int[Tensor, " B"]
) -> Float[Tensor, "B K"]:
    """Rank the true class last in clips whose prediction is not finite.

    The argmax of NaNs is class 0, so such clips would count as correct if their class is 0.
    """
    wrong = torch.zeros_like(logits).scatter(1, label.long().unsqueeze(1), -1.0)
    return torch.where(is_finite_prediction(logits).unsqueeze(1), logits, wrong)
