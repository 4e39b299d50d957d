"""What a transform is, how the channels of a clip lie in memory, one draw per clip."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskclr_pl.distributed import draw_for_clips
from maskclr_pl.types import InputError


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


def visible_weight(channels: Float[Tensor, "C *batch M T V"]) -> Float[Tensor, "*batch M T V"]:
    """1 for the joints of metric clips that are there, 0 for those that are exactly zero.

    As numbers, and from squares (what is below 1e-19 counts as zero): truth values and further
    temporaries are several times slower on a CPU.
    """
    squares = channels[0].square()
    for channel in channels[1:]:
        squares.addcmul_(channel, channel)
    return squares.sign_()


def uniform(clip: Tensor, low: float, high: float, *more: int) -> Tensor:
    """One draw per clip, shape (*batch, *more)."""
    shape = (*clip.shape[:-4], *more)
    return draw_for_clips(shape, clip.device, lambda x, g: x.uniform_(low, high, generator=g))


def uniform_like(x: Tensor, clip_axis: int) -> Tensor:
    """Draw uniform numbers in [0, 1) in the shape of `x`, whose clips lie on `clip_axis`."""
    shape = x.movedim(clip_axis, 0).shape
    draw = draw_for_clips(shape, x.device, lambda empty, g: empty.uniform_(generator=g))
    return draw.movedim(0, clip_axis)


def normal_like(x: Tensor, clip_axis: int) -> Tensor:
    """Draw standard normal numbers in the shape of `x`, whose clips lie on `clip_axis`."""
    shape = x.movedim(clip_axis, 0).shape
    draw = draw_for_clips(shape, x.device, lambda empty, g: empty.normal_(generator=g))
    return draw.movedim(0, clip_axis)


def bernoulli(clip: Tensor, p: float) -> Bool[Tensor, "*batch"]:
    """True for each clip with probability p."""
    return uniform(clip, 0, 1) < p


def check_joints(clip: Tensor, joints: Sequence[int], what: str) -> None:
    """Raise an InputError if a clip has not all of these joints (a look at its shape only)."""
    if joints and not 0 <= min(joints) <= max(joints) < clip.shape[-2]:
        raise InputError(
            f"{what} {list(joints)}: expected joints from 0 to {clip.shape[-2] - 1}, which are "
            "those of the clips"
        )
