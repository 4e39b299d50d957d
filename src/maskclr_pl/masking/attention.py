"""Masks guided by what a first pass attended to: MaskCLR, and its controls that are not drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from maskclr_pl.masking.base import PooledMasking, draw_mask, relative_to_max, sample_mask


@dataclass(frozen=True)
class AttentionGuidedMasking(PooledMasking):
    """Attention-guided probabilistic masking (AGPM): the more attended, the likelier hidden.

    Items are drawn without replacement with odds softmax(z / temperature), where z is the
    importance of an item relative to its pool. With `normalise=max`, z = importance / max, as
    published; the most attended item is then at most exp(1 / temperature) times as likely to be
    drawn first as the least (3.8 at 0.75), and nearly as likely as any other while attention is
    flat. With `normalise=zscore`, z = (importance - mean) / standard deviation, which guides as
    strongly whether attention is flat or peaked.

    Args:
        ratio: See `PooledMasking`; likewise `scope` and `tube_length`.
        scope: The released code pools per joint over the whole batch instead, which hides every
            joint equally often; the paper's figure has one pool per clip.
        tube_length: Steps per stretch with scope=tube.
        temperature: > 0; small is nearly deterministic, large nearly uniform.
        normalise: What importance is relative to.
    """

    temperature: float = 0.75
    normalise: Literal["max", "zscore"] = "max"
    uses_importance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"masking temperature must be positive, got {self.temperature}")
        if self.normalise not in ("max", "zscore"):
            raise ValueError(f"masking normalise must be max or zscore, got {self.normalise!r}")

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"],
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """See `Masking`."""
        logits = self.logits(importance, stride)
        mask = draw_mask(logits, round(self.ratio * logits.shape[-1]), generator)
        return self.to_tokens(mask, x.shape[1] // stride, x.shape[2])

    def logits(self, importance: Float[Tensor, "N T V"], stride: int) -> Float[Tensor, "N G P"]:
        """Unnormalised log-probabilities of the items of each pool."""
        pools = self.to_pools(importance, stride)
        if self.normalise == "zscore":
            spread, mean = torch.std_mean(pools, dim=-1, correction=0, keepdim=True)
            return (pools - mean) / (self.temperature * spread).clamp_min(1e-12)
        return relative_to_max(pools, self.temperature)

    def sampling_steps(
        self, importance: Float[Tensor, "N T V"], stride: int, generator: Generator | None = None
    ) -> "MaskingSteps":
        """A draw with what it was drawn from, each on the tokens: for figures."""
        logits = self.logits(importance, stride)
        steps, joints = importance.shape[1] // stride, importance.shape[2]
        mask = draw_mask(logits, round(self.ratio * logits.shape[-1]), generator)
        parts = (self.to_pools(importance, stride), logits.softmax(-1), mask)
        return MaskingSteps(*(self.to_tokens(part, steps, joints) for part in parts))


class MaskingSteps(NamedTuple):
    """Attention-guided masking step by step."""

    scores: Float[Tensor, "N S V"]
    """Importance, mean over each item (a token, or a joint over a stretch of time)."""
    probabilities: Float[Tensor, "N S V"]
    """Of the token's item to be drawn first from its pool; of a pool's items they sum to 1."""
    mask: Bool[Tensor, "N S V"]


@dataclass(frozen=True)
class TopMasking(PooledMasking):
    """Hide the most attended items, deterministically."""

    uses_importance: ClassVar[bool] = True

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"],
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """See `Masking`."""
        pools = self.to_pools(importance, stride)
        mask = sample_mask(pools, round(self.ratio * pools.shape[-1]))
        return self.to_tokens(mask, x.shape[1] // stride, x.shape[2])


@dataclass(frozen=True)
class PartMasking:
    """Hide whole body parts over the whole clip, the more attended the likelier.

    Args:
        parts: Joint indices of each part (`Skeleton.parts`).
        ratio: Share of the parts to hide; `round(ratio * parts)` are.
        temperature: As for `AttentionGuidedMasking`, over the mean importance of the parts;
            `inf` hides parts at random.

    Raises:
        ValueError: If a value is out of range.
    """

    parts: Sequence[Sequence[int]]
    ratio: float = 0.4
    temperature: float = 0.75
    uses_importance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.parts or not all(self.parts):
            raise ValueError("masking parts must be non-empty lists of joints")
        if not 0 <= self.ratio <= 1 or not self.temperature > 0:
            raise ValueError(
                f"masking needs a ratio in [0, 1] and a positive temperature, "
                f"got {self.ratio} and {self.temperature}"
            )

    def num_masked(self, steps: int, joints: int) -> int | None:
        """See `Masking`; parts differ in their number of joints."""
        return None

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"],
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """See `Masking`."""
        member = torch.zeros(len(self.parts), x.shape[2])
        for row, part in enumerate(self.parts):
            member[row, list(part)] = 1
        member = member.to(x.device, non_blocking=True)
        attended = importance.float().mean(1) @ (member / member.sum(1, keepdim=True)).T
        logits = relative_to_max(attended, self.temperature)
        hidden = draw_mask(logits, round(self.ratio * len(self.parts)), generator)
        joints = (hidden.to(member) @ member) > 0
        return joints.unsqueeze(1).expand(-1, x.shape[1] // stride, -1)
