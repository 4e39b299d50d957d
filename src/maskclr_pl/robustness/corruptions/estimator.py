"""What an estimator gets wrong beside places: confidence, left and right, the size of bodies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from maskclr_pl.robustness.corruptions.base import Corruption, Poses, of_frames, visible

FAINT = 0.01
"""What is left of a confidence that is lost. Not zero, which would be a missing joint."""


@dataclass(frozen=True)
class ConfidenceDropout(Corruption):
    """Joints that are found where they are, but with next to no confidence (a hundredth of it).

    Each joint in each frame of the recording by itself. In the image only.

    Args:
        levels: Probabilities that the confidence of a joint is lost in a frame.
    """

    levels: Sequence[float] = (0.25, 0.5, 1.0)
    name: ClassVar[str] = "confidence_dropout"
    unit: ClassVar[str] = "share of confidences"

    def skip_reason(self, poses: Poses) -> str | None:
        """No confidence to lose."""
        return "3D joints have no confidence" if poses.coordinates == 3 else None

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Uniform (frames, V)."""
        return rng.random((frames, len(poses.skeleton)), dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        lost = (of_frames(draws, frame) < level)[:, None, :, :, None]
        confidence = clip[..., 2:]
        return torch.cat((clip[..., :2], torch.where(lost, FAINT * confidence, confidence)), dim=-1)


@dataclass(frozen=True)
class SideSwap(Corruption):
    """Frames of the recording in which left and right are mistaken for each other.

    Args:
        levels: Probabilities that the sides are exchanged in a frame.
    """

    levels: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5)
    name: ClassVar[str] = "side_swap"
    unit: ClassVar[str] = "share of frames"

    def skip_reason(self, poses: Poses) -> str | None:
        """No two sides."""
        name = poses.skeleton.name
        return None if poses.skeleton.pairs else f"{name} has no pairs of left and right joints"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Uniform (frames,)."""
        return rng.random(frames, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        order = list(range(clip.shape[3]))
        for left, right in poses.skeleton.pairs:
            order[left], order[right] = right, left
        index = torch.tensor(order).to(clip.device, non_blocking=True)
        swapped = of_frames(draws, frame) < level
        exchanged = clip.index_select(3, index)
        return torch.where(swapped[:, None, :, None, None], exchanged, clip)


@dataclass(frozen=True)
class BodyScale(Corruption):
    """Bodies that are larger, or smaller, than they were; the ways they walk stay the same.

    The joints of each person move away from the mean of those seen in the frame, or towards it, by
    the factor 1 + level or its inverse (a coin decides for each clip). Of a person who stands still
    in the image nothing of it is left when the clip has been cropped.

    Args:
        levels: How much larger, 0.2 for 20 %.
    """

    levels: Sequence[float] = (0.1, 0.2, 0.3, 0.5)
    name: ClassVar[str] = "body_scale"
    unit: ClassVar[str] = "change of size"
    highest: ClassVar[float] = math.inf

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """1 for larger, -1 for smaller (1,)."""
        return rng.choice(np.array([-1, 1], np.float32), size=1)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        there = visible(clip, poses)
        points, others = clip[..., : poses.coordinates], clip[..., poses.coordinates :]
        centre = (points * there).sum(-2, keepdim=True) / there.sum(-2, keepdim=True).clamp(min=1)
        growth = ((1 + level) ** draws - 1)[:, :, None, None, None]
        moved = torch.where(there, points + growth * (points - centre), points)
        return torch.cat((moved, others), dim=-1)
