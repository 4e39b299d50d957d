"""Attention-guided masks: MaskCLR and its deterministic and part-wise variants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from maskclr_pl.masking.base import PooledMasking, draw_mask, relative_to_max, sample_mask


@dataclass(frozen=True)
class AttentionGuidedMasking(PooledMasking):
    """Attention-guided probabilistic masking (AGPM): attended items are more likely to be masked.

    Items are drawn without replacement with probabilities softmax(z / temperature), where z is the
    importance of an item relative to its pool. With `normalize=max`, z = importance / max, as
    published: the most attended item is at most exp(1 / temperature) times as likely to be drawn
    first as the least attended (3.8 at 0.75), and nearly as likely as others while attention is
    flat. With `normalize=zscore`, z = (importance - mean) / standard deviation: guidance is
    independent of how peaked attention is.

    Args:
        ratio: See `PooledMasking`, likewise `scope` and `tube_length`.
        scope: The released code pools per joint over the whole batch, which masks all joints
            equally often; the paper's figure has one pool per clip.
        tube_length: Steps per tube with scope=tube.
        temperature: > 0; small is nearly deterministic, large nearly uniform.
        normalize: `max` or `zscore`.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> masking = AttentionGuidedMasking(ratio=0.25, scope="clip")
        >>> x, importance = torch.rand(2, 8, 17, 3), torch.rand(2, 8, 17)
        >>> masking(x, importance, stride=1).sum((1, 2))  # 25 % of 136 tokens
        tensor([34, 34])
    """

    temperature: float = 0.75
    normalize: Literal["max", "zscore"] = "max"
    uses_importance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"masking temperature must be positive, got {self.temperature}")
        if self.normalize not in ("max", "zscore"):
            raise ValueError(f"masking normalize must be max or zscore, got {self.normalize!r}")

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
        """Compute unnormalized log-probabilities of the items of each pool."""
        pools = self.to_pools(importance, stride)
        if self.normalize == "zscore":
            std, mean = torch.std_mean(pools, dim=-1, correction=0, keepdim=True)
            return (pools - mean) / (self.temperature * std).clamp_min(1e-12)
        return relative_to_max(pools, self.temperature)

    def sampling_steps(
        self, importance: Float[Tensor, "N T V"], stride: int, generator: Generator | None = None
    ) -> "MaskingSteps":
        """Draw a mask and return its scores and probabilities, too, for figures."""
        logits = self.logits(importance, stride)
        steps, joints = importance.shape[1] // stride, importance.shape[2]
        mask = draw_mask(logits, round(self.ratio * logits.shape[-1]), generator)
        parts = (self.to_pools(importance, stride), logits.softmax(-1), mask)
        return MaskingSteps(*(self.to_tokens(part, steps, joints) for part in parts))


class MaskingSteps(NamedTuple):
    """Steps of attention-guided masking, as values of the tokens."""

    scores: Float[Tensor, "N S V"]
    """Mean importance of the token's item (a token, or a joint over a tube)."""
    probabilities: Float[Tensor, "N S V"]
    """Probability that the token's item is drawn first; the items of a pool sum to 1."""
    mask: Bool[Tensor, "N S V"]


@dataclass(frozen=True)
class TopMasking(PooledMasking):
    """Mask the most attended items, deterministically.

    Args:
        ratio: See `PooledMasking`, likewise `scope` and `tube_length`.
        scope: `clip`, `frame` or `tube`.
        tube_length: Steps per tube with scope=tube.

    Example:
        >>> importance = torch.tensor([[[0.1, 0.6, 0.3]]])  # one frame, three joints
        >>> TopMasking(ratio=0.34)(torch.rand(1, 1, 3, 3), importance, stride=1)
        tensor([[[False,  True, False]]])
    """

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
    """Mask body parts over the whole clip; attended parts are more likely to be masked.

    Args:
        parts: Joint indices of each part (`Skeleton.parts`).
        ratio: Share of the parts to mask, rounded to `round(ratio * parts)`.
        temperature: As for `AttentionGuidedMasking`, over the mean importance of the parts; `inf`
            masks parts at random.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> masking = PartMasking(parts=[[0, 1], [2, 3]], ratio=0.5)  # one of two parts
        >>> masking(torch.rand(1, 2, 4, 3), torch.rand(1, 2, 4), stride=1).sum()
        tensor(4)
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
        """See `Masking`: varies, as parts differ in size."""
        return None

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"],
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """See `Masking`."""
        member = torch.zeros(len(self.parts), x.shape[2])  # (parts, V)
        for index, part in enumerate(self.parts):
            member[index, list(part)] = 1
        member = member.to(x.device, non_blocking=True)
        scores = importance.float().mean(1) @ (member / member.sum(1, keepdim=True)).T  # (N, parts)
        logits = relative_to_max(scores, self.temperature)
        masked = draw_mask(logits, round(self.ratio * len(self.parts)), generator)
        joints = (masked.to(member) @ member) > 0  # (N, V)
        return joints.unsqueeze(1).expand(-1, x.shape[1] // stride, -1)
