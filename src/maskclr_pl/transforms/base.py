"""Interface of transforms, memory layout of clips and random draws per clip."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskclr_pl.distributed import draw_for_clips
from maskclr_pl.errors import InputError


@runtime_checkable
class Transform(Protocol):
    """Clip to clip. Missing joints and absent persons are zeros before and after.

    T and V may change. Random parameters are drawn once per clip, on the device of the clip.
    """

    def __call__(self, clip: Float[Tensor, "*batch M T V C"]) -> Float[Tensor, "*batch M T2 V2 C"]:
        """Return the transformed clip; the input is not modified."""


def planes(clip: Float[Tensor, "*batch M T V C"]) -> Float[Tensor, "C *batch M T V"]:
    """Move the channels first and make each contiguous (no copy if `join` made the clip).

    Operations on whole planes vectorize; on interleaved channels they are several times slower.
    """
    return clip.movedim(-1, 0).contiguous()


def join(
    channels: Sequence[Float[Tensor, "*batch M T V"]] | Float[Tensor, "C *batch M T V"],
) -> Float[Tensor, "*batch M T V C"]:
    """Make a clip from its channels, which stay planes in memory."""
    stacked = channels if isinstance(channels, Tensor) else torch.stack(tuple(channels))
    return stacked.movedim(0, -1)


def visible_weight(channels: Float[Tensor, "C *batch M T V"]) -> Float[Tensor, "*batch M T V"]:
    """Return 1 for visible joints of metric clips, 0 for missing ones (exact zeros).

    The rule of `visibility.visible_joints` as numbers, computed from squares (values below 1e-19
    count as zero): boolean temporaries are several times slower on a CPU.
    """
    squares = channels[0].square()
    for channel in channels[1:]:
        squares.addcmul_(channel, channel)
    return squares.sign_()


def uniform(clip: Tensor, low: float, high: float, *shape: int) -> Tensor:
    """Draw uniform numbers in [low, high) per clip, shape (*batch, *shape)."""
    return draw_for_clips(
        (*clip.shape[:-4], *shape), clip.device, lambda x, g: x.uniform_(low, high, generator=g)
    )


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
    """Draw True with probability p for each clip."""
    return uniform(clip, 0, 1) < p


def check_joints(clip: Tensor, joints: Sequence[int], name: str) -> None:
    """Raise an InputError if a joint index is out of range (reads the shape only)."""
    if joints and not 0 <= min(joints) <= max(joints) < clip.shape[-2]:
        raise InputError(f"{name}={list(joints)}: expected indices from 0 to {clip.shape[-2] - 1}")
