"""The interface of masking strategies, and functions that draw masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor

from maskclr_pl.distributed import draw_for_persons

Scope = Literal["clip", "frame", "tube"]


@runtime_checkable
class Masking(Protocol):
    """A masking strategy; a frozen dataclass, so that a ramp can replace its ratio."""

    uses_importance: ClassVar[bool]
    """The mask depends on importance, which needs a forward pass first."""

    @property
    def ratio(self) -> float:
        """Share to mask, in [0, 1]."""

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"] | None,
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """Draw a mask, True = masked.

        Args:
            x: Person sequences.
            importance: Attention that each joint received; None if `uses_importance` is False.
            stride: Frames per token step, S = T / stride.
            generator: Draw from this generator instead of torch's.
        """

    def num_masked(self, steps: int, joints: int) -> int | None:
        """Return how many of the S * V tokens are masked in each sequence; None if it varies."""


def gumbel(shape: Sequence[int], like: Tensor, generator: Generator | None = None) -> Tensor:
    """Draw standard Gumbel noise, -log E with E ~ Exp(1), in float32 on the device of `like`."""
    draw = draw_for_persons(shape, like.device, lambda x, g: x.exponential_(generator=g), generator)
    return draw.log_().neg_()


def sample_mask(scores: Float[Tensor, "*pools P"], count: int) -> Bool[Tensor, "*pools P"]:
    """Mask the `count` highest scores of each pool.

    With scores = log-probabilities + Gumbel noise this draws `count` items without replacement with
    those probabilities (Gumbel top-k: Kool, van Hoof and Welling 2019).
    """
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(-1, scores.topk(count, dim=-1).indices, True)


def draw_mask(
    logits: Float[Tensor, "*pools P"], count: int, generator: Generator | None = None
) -> Bool[Tensor, "*pools P"]:
    """Mask `count` items of each pool, drawn without replacement from softmax(logits)."""
    return sample_mask(logits + gumbel(logits.shape, logits, generator), count)


def relative_to_max(
    scores: Float[Tensor, "*pools P"], temperature: float
) -> Float[Tensor, "*pools P"]:
    """Compute logits s / (temperature * max s) of scores s >= 0; zeros if all s are zero."""
    return scores / (temperature * scores.amax(-1, keepdim=True)).clamp_min(1e-12)


def visible_tokens(mask: Bool[Tensor, "N S V"], num_masked: int) -> Int[Tensor, "N K"]:
    """Return the visible tokens as ascending indices into the S * V of each sequence.

    Args:
        mask: Masks equally many tokens of each sequence.
        num_masked: How many; passed to avoid a synchronization with the GPU.
    """
    flat = mask.flatten(1)
    return flat.byte().argsort(dim=1, stable=True)[:, : flat.shape[1] - num_masked]


def mean_over_steps(values: Float[Tensor, "N T V"], length: int) -> Float[Tensor, "N G V"]:
    """Average over consecutive tubes of `length` steps; the last may be shorter."""
    pooled = F.avg_pool1d(values.float().transpose(1, 2), length, length, ceil_mode=True)
    return pooled.transpose(1, 2)


@dataclass(frozen=True)
class PooledMasking:
    """Base of strategies that mask a share of the items of each pool.

    Axes: G pools of P items per sequence.

    Args:
        ratio: Share to mask; `round(ratio * P)` items of each pool are masked.
        scope: `clip`: one pool of all S * V tokens. `frame`: one pool per step, of V joints.
            `tube`: one pool per tube, of V joints masked over the whole tube.
        tube_length: Steps per tube, the last may be shorter; None: the whole clip.

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

    def _tube(self, steps: int) -> int:
        return (self.tube_length or steps) if self.scope == "tube" else 1

    def to_pools(self, values: Float[Tensor, "N T V"], stride: int) -> Float[Tensor, "N G P"]:
        """Average values over the items of each pool."""
        values = mean_over_steps(values, stride * self._tube(values.shape[1] // stride))
        return values.flatten(1).unsqueeze(1) if self.scope == "clip" else values

    def to_tokens(
        self, items: Shaped[Tensor, "N G P"], steps: int, joints: int
    ) -> Shaped[Tensor, "N S V"]:
        """Map values of pool items, such as a mask, back to the tokens."""
        if self.scope == "clip":
            return items.view(-1, steps, joints)
        return items.repeat_interleave(self._tube(steps), dim=1)[:, :steps]

    def num_masked(self, steps: int, joints: int) -> int | None:
        """See `Masking`."""
        if self.scope == "clip":
            return round(self.ratio * steps * joints)
        return steps * round(self.ratio * joints)
