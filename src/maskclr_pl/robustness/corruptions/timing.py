"""Corruptions of time: dropped frames, low frame rates, truncated actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskclr_pl.robustness.corruptions.base import Corruption, Poses, gather_frames, time_window


def _take_steps(
    clip: Float[Tensor, "B M T V 3"], step: Int[Tensor, "B T"], frame: Int[Tensor, "B T"]
) -> Float[Tensor, "B M T V 3"]:
    """Show other time steps of each clip; padding stays at the end."""
    identity = torch.arange(clip.shape[2], device=clip.device)
    index = torch.where(frame >= 0, step, identity)
    return clip.gather(2, index[:, None, :, None, None].expand(clip.shape))


def _stretch(
    clip: Float[Tensor, "B M T V 3"], remaining: Bool[Tensor, "B T"], frame: Int[Tensor, "B T"]
) -> Float[Tensor, "B M T V 3"]:
    """Stretch the remaining frames (at least one per clip) to the length of the clip."""
    order = (~remaining).int().argsort(dim=1, stable=True)  # remaining steps come first
    step = torch.arange(clip.shape[2], device=clip.device)
    length = (frame >= 0).sum(1, keepdim=True)
    source = (step * remaining.sum(1, keepdim=True) // length).clamp(max=clip.shape[2] - 1)
    return _take_steps(clip, order.gather(1, source), frame)


@dataclass(frozen=True)
class FrameDrop(Corruption):
    """Dropped frames of the recording; the remaining ones are stretched over the clip.

    Each frame is dropped with probability `level`, but at least one remains.

    Args:
        levels: Probabilities that a frame is dropped.
    """

    levels: Sequence[float] = (0.2, 0.4, 0.6, 0.8)
    name: ClassVar[str] = "frame_drop"
    unit: ClassVar[str] = "share of frames"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw uniform values (frames,)."""
        return rng.random(frames, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        real = frame >= 0
        score = gather_frames(draws, frame).masked_fill(~real, -1)
        remaining = real & ((score >= level) | (score == score.amax(1, keepdim=True)))
        return _stretch(clip, remaining, frame)


@dataclass(frozen=True)
class FrameRate(Corruption):
    """A low frame rate: every pose is repeated until the next one arrives.

    Only every (1 / (1 - level))-th frame of the clip is new, with a random phase.

    Args:
        levels: Lost shares of the frame rate: 0.5 is half the rate.
    """

    levels: Sequence[float] = (0.5, 0.75, 0.875)
    name: ClassVar[str] = "frame_rate"
    unit: ClassVar[str] = "share of the frame rate lost"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw the phase as a share of the time between two poses, uniform (1,)."""
        return rng.random(1, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        step = torch.arange(clip.shape[2], device=clip.device)
        pose_number = (step.double() * (1 - level) + draws.double()).floor()
        new = torch.ones_like(frame, dtype=torch.bool)
        new[:, 1:] = pose_number[:, 1:] != pose_number[:, :-1]
        return _take_steps(clip, (step * new).cummax(1).values, frame)


@dataclass(frozen=True)
class TimeCrop(Corruption):
    """A truncated action: beginning and end are cut off, the rest is stretched over the clip.

    Args:
        levels: Shares of the frames that are cut off, split at random; at least one frame remains.
    """

    levels: Sequence[float] = (0.2, 0.4, 0.6, 0.8)
    name: ClassVar[str] = "time_crop"
    unit: ClassVar[str] = "share of the clip"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw the position of the remaining frames, uniform (1,)."""
        return rng.random(1, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        return _stretch(clip, time_window(frame, 1 - level, draws, min_length=1), frame)
