"""Estimation errors other than position: confidence, left-right swaps, body size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from maskclr_pl.robustness.corruptions.base import (
    Corruption,
    Poses,
    gather_frames,
    visible_joints,
)

LOW_CONFIDENCE = 0.01
"""Factor of a lost confidence; not zero, because zero marks a missing joint."""


@dataclass(frozen=True)
class ConfidenceDropout(Corruption):
    """Joints with correct positions whose confidence drops to a hundredth; 2D only.

    Each joint is drawn independently in each frame of the recording.

    Args:
        levels: Probabilities that a joint loses its confidence in a frame.
    """

    levels: Sequence[float] = (0.25, 0.5, 1.0)
    name: ClassVar[str] = "confidence_dropout"
    unit: ClassVar[str] = "share of confidences"

    def skip_reason(self, poses: Poses) -> str | None:
        """Skip 3D poses."""
        return "3D joints have no confidence" if poses.coordinates == 3 else None

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw uniform values (frames, V)."""
        return rng.random((frames, len(poses.skeleton)), dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        dropped = (gather_frames(draws, frame) < level)[:, None, :, :, None]  # (B, 1, T, V, 1)
        confidence = clip[..., 2:]
        confidence = torch.where(dropped, LOW_CONFIDENCE * confidence, confidence)
        return torch.cat((clip[..., :2], confidence), dim=-1)


@dataclass(frozen=True)
class SideSwap(Corruption):
    """Frames of the recording in which left and right joints are swapped.

    Args:
        levels: Probabilities that the sides are swapped in a frame.
    """

    levels: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5)
    name: ClassVar[str] = "side_swap"
    unit: ClassVar[str] = "share of frames"

    def skip_reason(self, poses: Poses) -> str | None:
        """Skip skeletons without left-right pairs."""
        name = poses.skeleton.name
        return None if poses.skeleton.pairs else f"{name} has no pairs of left and right joints"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw uniform values (frames,)."""
        return rng.random(frames, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        order = list(range(clip.shape[3]))
        for left, right in poses.skeleton.pairs:
            order[left], order[right] = right, left
        index = torch.tensor(order).to(clip.device, non_blocking=True)
        swapped = gather_frames(draws, frame) < level
        return torch.where(swapped[:, None, :, None, None], clip.index_select(3, index), clip)


@dataclass(frozen=True)
class BodyScale(Corruption):
    """Larger or smaller bodies that move along the same path.

    In each frame, the joints of a person are scaled about the mean of the visible ones by 1 + level
    or its inverse (decided by a coin flip per clip). Cropping to the person removes most of the
    effect where the person stays in one place.

    Args:
        levels: Relative changes of size, 0.2 for 20 %.
    """

    levels: Sequence[float] = (0.1, 0.2, 0.3, 0.5)
    name: ClassVar[str] = "body_scale"
    unit: ClassVar[str] = "change of size"
    highest: ClassVar[float] = math.inf

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw 1 (larger) or -1 (smaller), shape (1,)."""
        return rng.choice(np.array([-1, 1], np.float32), size=1)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        visible = visible_joints(clip, poses)
        points, confidence = clip[..., : poses.coordinates], clip[..., poses.coordinates :]
        count = visible.sum(-2, keepdim=True).clamp(min=1)
        center = (points * visible).sum(-2, keepdim=True) / count
        growth = ((1 + level) ** draws - 1)[:, :, None, None, None]
        scaled = torch.where(visible, points + growth * (points - center), points)
        return torch.cat((scaled, confidence), dim=-1)
