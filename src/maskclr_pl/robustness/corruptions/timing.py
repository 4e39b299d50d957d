"""What happens to time: frames that are lost, a slow camera, an action that is cut short."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskclr_pl.robustness.corruptions.base import Corruption, Poses, of_frames, window


def _take(
    clip: Float[Tensor, "B M T V 3"], step: Int[Tensor, "B T"], frame: Int[Tensor, "B T"]
) -> Float[Tensor, "B M T V 3"]:
    """Other frames of each clip in the place of its own; padding stays at the end."""
    own = torch.arange(clip.shape[2], device=clip.device)
    index = torch.where(frame >= 0, step, own)
    return clip.gather(2, index[:, None, :, None, None].expand(clip.shape))


def _stretch(
    clip: Float[Tensor, "B M T V 3"], kept: Bool[Tensor, "B T"], frame: Int[Tensor, "B T"]
) -> Float[Tensor, "B M T V 3"]:
    """The frames that are kept, at least one of each clip, over the length of all its frames."""
    order = (~kept).int().argsort(dim=1, stable=True)
    step = torch.arange(clip.shape[2], device=clip.device)
    length = (frame >= 0).sum(1, keepdim=True)
    place = (step * kept.sum(1, keepdim=True) // length).clamp(max=clip.shape[2] - 1)
    return _take(clip, order.gather(1, place), frame)


@dataclass(frozen=True)
class FrameDrop(Corruption):
    """Frames of the recording that are lost; the others are stretched over the clip.

    Each frame is lost with probability `level`; the last one left is never lost.

    Args:
        levels: Probabilities.
    """

    levels: Sequence[float] = (0.2, 0.4, 0.6, 0.8)
    name: ClassVar[str] = "frame_drop"
    unit: ClassVar[str] = "share of frames"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Uniform (frames,)."""
        return rng.random(frames, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        there = frame >= 0
        fate = of_frames(draws, frame).masked_fill(~there, -1)
        kept = there & ((fate >= level) | (fate == fate.amax(1, keepdim=True)))
        return _stretch(clip, kept, frame)


@dataclass(frozen=True)
class FrameRate(Corruption):
    """A camera that is slow: the clip shows a pose until the next one comes.

    Of the clip's frames only each (1 / (1 - level))-th is new, from a random one on.

    Args:
        levels: Shares of the frame rate that are lost: 0.5 is half the rate.
    """

    levels: Sequence[float] = (0.5, 0.75, 0.875)
    name: ClassVar[str] = "frame_rate"
    unit: ClassVar[str] = "share of the frame rate lost"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """How long ago the first pose came, as a share of the time between two; uniform (1,)."""
        return rng.random(1, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        step = torch.arange(clip.shape[2], device=clip.device)
        number = (step.double() * (1 - level) + draws.double()).floor()  # of the pose that is shown
        new = torch.ones_like(frame, dtype=torch.bool)
        new[:, 1:] = number[:, 1:] != number[:, :-1]
        return _take(clip, (step * new).cummax(1).values, frame)


@dataclass(frozen=True)
class TimeCrop(Corruption):
    """An action of which the beginning and the end are cut off; the rest fills the clip.

    Args:
        levels: Shares of the clip's frames that are cut off, at random ends; a frame is left.
    """

    levels: Sequence[float] = (0.2, 0.4, 0.6, 0.8)
    name: ClassVar[str] = "time_crop"
    unit: ClassVar[str] = "share of the clip"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Where the rest stands, uniform (1,)."""
        return rng.random(1, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        return _stretch(clip, window(frame, 1 - level, draws, least=1), frame)
