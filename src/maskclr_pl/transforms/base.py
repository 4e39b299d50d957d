"""What a transform is, and how the channels of a clip lie in memory."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Transform(Protocol):
    """Clip to clip. Missing joints and absent persons are zeros before and after.

    T and V may change. Random parameters are drawn once per clip, on the clip's device.
    """

    def __call__(self, clip: Float[Tensor, "*batch M T V C"]) -> Float[Tensor, "*batch M T2 V2 C"]:
        """The transformed clip; the input is not changed."""


def planes(clip: Float[Tensor, "*batch M T V C"]) -> Float[Tensor, "C *batch M T V"]:
    """The channels of a clip, each contiguous (no copy if `join` made the clip).

    Work on whole planes vectorises; on interleaved channels it is several times slower.
    """
    return clip.movedim(-1, 0).contiguous()


def join(
    channels: Sequence[Float[Tensor, "*batch M T V"]] | Float[Tensor, "C *batch M T V"],
) -> Float[Tensor, "*batch M T V C"]:
    """A clip from its channels, which keep their planes in memory."""
    stacked = channels if isinstance(channels, Tensor) else torch.stack(tuple(channels))
    return stacked.movedim(0, -1)
