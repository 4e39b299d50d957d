"""What to hide: masking strategies over the tokens of a person's sequence.

A strategy says what to hide, never when (`callbacks.MaskingCallback` does). In every mask True
means hidden. Sequences are independent of each other, and the number of hidden tokens is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

Scope = Literal["clip", "frame", "tube"]


@runtime_checkable
class Masking(Protocol):
    """A strategy: a frozen dataclass, so that a ramp can replace its ratio."""

    uses_importance: ClassVar[bool]

    @property
    def ratio(self) -> float:
        """Share to hide, in [0, 1]."""

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"] | None,
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """The mask of each sequence, S = T / stride."""

    def hidden(self, steps: int, joints: int) -> int | None:
        """How many of the S * V tokens are hidden in each sequence; None where that varies."""


def gumbel(shape: Sequence[int], like: Tensor, generator: Generator | None = None) -> Tensor:
    """Standard Gumbel noise, -log E with E ~ Exp(1), in float32 on the device of `like`."""
    noise = torch.empty(shape, dtype=torch.float32, device=like.device)
    return noise.exponential_(generator=generator).log_().neg_()


def sample_mask(scores: Float[Tensor, "*pools P"], count: int) -> Bool[Tensor, "*pools P"]:
    """Hide the `count` highest scores of each pool.

    With scores = log-probabilities + Gumbel noise this draws `count` items without replacement with
    those probabilities (Gumbel top-k: Kool, van Hoof and Welling 2019).
    """
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(-1, scores.topk(count, dim=-1).indices, True)


def visible_tokens(mask: Bool[Tensor, "N S V"], hidden: int) -> Int[Tensor, "N K"]:
    """The tokens that a mask leaves, as ascending indices into the S * V of each sequence.

    Args:
        mask: Hides equally many of each sequence.
        hidden: How many (given, so that a GPU need not be asked).
    """
    flat = mask.flatten(1)
    return flat.byte().argsort(dim=1, stable=True)[:, : flat.shape[1] - hidden]


def mean_over_steps(values: Float[Tensor, "N T V"], length: int) -> Float[Tensor, "N G V"]:
    """Mean over consecutive stretches of `length` steps; the last may be shorter."""
    pooled = F.avg_pool1d(values.float().transpose(1, 2), length, length, ceil_mode=True)
    return pooled.transpose(1, 2)


@dataclass(frozen=True)
class _Pools:
    """Where a strategy draws from.

    Args:
        ratio: Share to hide; `round(ratio * size)` items of each pool are hidden.
        scope: `clip`: one pool of all S * V tokens of the sequence. `frame`: the V joints of each
            step. `tube`: the V joints of each stretch of time, hidden over the whole stretch.
        tube_length: Steps per stretch; None is the whole clip. The last may be shorter.

    Raises:
        ValueError: If a value is out of range.
    """

    ratio: float = 0.5
    scope: Scope = "clip"
    tube_length: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"masking ratio must be in [0, 1], got {self.ratio}")
        if self.scope not in ("clip", "frame", "tube"):
            raise ValueError(f"masking scope must be clip, frame or tube, got {self.scope!r}")
        if self.tube_length is not None and (self.scope != "tube" or self.tube_length < 1):
            raise ValueError("masking tube_length must be at least 1 and goes with scope=tube")

    def hidden(self, steps: int, joints: int) -> int | None:
        """See `Masking`."""
        if self.scope == "clip":
            return round(self.ratio * steps * joints)
        return steps * round(self.ratio * joints)

    def _tube(self, steps: int) -> int:
        return (self.tube_length or steps) if self.scope == "tube" else 1

    def _gather(self, values: Float[Tensor, "N T V"], stride: int) -> Float[Tensor, "N G P"]:
        """One value per item of each pool."""
        values = mean_over_steps(values, stride * self._tube(values.shape[1] // stride))
        return values.flatten(1).unsqueeze(1) if self.scope == "clip" else values

    def _spread(
        self, mask: Bool[Tensor, "N G P"], steps: int, joints: int
    ) -> Bool[Tensor, "N S V"]:
        """The mask over pools, back on the tokens."""
        if self.scope == "clip":
            return mask.view(-1, steps, joints)
        return mask.repeat_interleave(self._tube(steps), dim=1)[:, :steps]


@dataclass(frozen=True)
class AttentionGuidedMasking(_Pools):
    """Attention-guided probabilistic masking (AGPM): the more attended, the likelier hidden.

    Items are drawn without replacement with odds softmax(z / temperature), where z is the
    importance of an item relative to its pool. With `normalise=max`, z = importance / max, as
    published; the most attended item is then at most exp(1 / temperature) times as likely to be
    drawn first as the least (3.8 at 0.75), and nearly as likely as any other while attention is
    flat. With `normalise=zscore`, z = (importance - mean) / standard deviation, which guides as
    strongly whether attention is flat or peaked.

    Args:
        ratio: See `_Pools`; likewise `scope` and `tube_length`.
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
        scores = self.logits(importance, stride)
        scores += gumbel(scores.shape, scores, generator)
        mask = sample_mask(scores, round(self.ratio * scores.shape[-1]))
        return self._spread(mask, x.shape[1] // stride, x.shape[2])

    def logits(self, importance: Float[Tensor, "N T V"], stride: int) -> Float[Tensor, "N G P"]:
        """Unnormalised log-probabilities of the items of each pool."""
        pools = self._gather(importance, stride)
        if self.normalise == "zscore":
            spread, mean = torch.std_mean(pools, dim=-1, correction=0, keepdim=True)
            return (pools - mean) / (self.temperature * spread).clamp_min(1e-12)
        return pools / (self.temperature * pools.amax(-1, keepdim=True)).clamp_min(1e-12)


@dataclass(frozen=True)
class TopMasking(_Pools):
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
        pools = self._gather(importance, stride)
        mask = sample_mask(pools, round(self.ratio * pools.shape[-1]))
        return self._spread(mask, x.shape[1] // stride, x.shape[2])


@dataclass(frozen=True)
class RandomMasking(_Pools):
    """Hide items uniformly at random: the control for every guided strategy."""

    uses_importance: ClassVar[bool] = False

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"] | None,
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """See `Masking`."""
        draws = torch.rand(x.shape[:3], device=x.device, generator=generator)
        # the mean of uniform draws is exchangeable, so that its order is uniform as well
        pools = self._gather(draws, stride)
        mask = sample_mask(pools, round(self.ratio * pools.shape[-1]))
        return self._spread(mask, x.shape[1] // stride, x.shape[2])


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

    def hidden(self, steps: int, joints: int) -> int | None:
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
        scores = attended / (self.temperature * attended.amax(-1, keepdim=True)).clamp_min(1e-12)
        scores += gumbel(scores.shape, scores, generator)
        hidden = sample_mask(scores, round(self.ratio * len(self.parts)))
        joints = (hidden.to(member) @ member) > 0
        return joints.unsqueeze(1).expand(-1, x.shape[1] // stride, -1)
