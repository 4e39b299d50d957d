"""Gaussian noise on joint positions, as on the MaskCLR poster.

Noise is added to the joints of the dataset in image units, before layout conversion and cropping.
Joints that the conversion averages from others get less of it: for COCO to Human3.6M, root, neck
and head have 0.71 sigma, the belly 0.50 sigma.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maskclr_pl.robustness.corruptions.base import (
    Corruption,
    Poses,
    gather_frames,
    visible_joints,
)

NOISE_UNIT = "half image widths (3D: m)"
_POSTER_SIGMAS = tuple(thousandths / 1000 for thousandths in range(1, 11))


def coordinate_bounds(
    clip: Float[Tensor, "B M T V 3"], max_change: float, poses: Poses
) -> tuple[Float[Tensor, "B M T V c"], Float[Tensor, "B M T V c"]]:
    """Return lower and upper bounds of corrupted coordinates.

    Visible joints may move by `max_change`, but 2D joints not out of the image.
    """
    points = clip[..., : poses.coordinates]
    change = torch.where(visible_joints(clip, poses), max_change, 0.0)
    low, high = points - change, points + change
    if poses.coordinates == 3:
        return low, high
    # a joint that was already outside of the image may stay there
    return low.maximum(points.clamp(max=-1)), high.minimum(points.clamp(min=1))


def _add_noise(clip: Tensor, noise: Tensor, sigma: float, poses: Poses) -> Tensor:
    """Add noise to the coordinates of visible joints; 2D joints stay inside of the image."""
    low, high = coordinate_bounds(clip, math.inf, poses)
    points, confidence = clip[..., : poses.coordinates], clip[..., poses.coordinates :]
    return torch.cat(((points + sigma * noise).clamp(low, high), confidence), dim=-1)


@dataclass(frozen=True)
class SpatialNoise(Corruption):
    """A Gaussian offset per joint that is the same in all frames: a biased estimator.

    N(0, sigma^2) per joint and coordinate, shared by the persons of a clip. Confidence does not
    change, missing joints stay missing (MaskCLR, robustness to spatial noise).

    Args:
        levels: Values of sigma, in half the longer image side (2D) or meters (3D).
    """

    levels: Sequence[float] = _POSTER_SIGMAS
    name: ClassVar[str] = "spatial_noise"
    unit: ClassVar[str] = f"sigma, {NOISE_UNIT}"
    highest: ClassVar[float] = math.inf

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw standard normal values (V, coordinates)."""
        return rng.standard_normal((len(poses.skeleton), poses.coordinates), dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        return _add_noise(clip, draws[:, None, None], level, poses)  # noise (B, 1, 1, V, c)


@dataclass(frozen=True)
class SpatiotemporalNoise(Corruption):
    """Independent Gaussian noise in every frame of the recording: a jittery estimator.

    Like `SpatialNoise`, but drawn for each frame. A frame that a clip shows twice has the same
    noise both times.

    Args:
        levels: Values of sigma, in half the longer image side (2D) or meters (3D).
    """

    levels: Sequence[float] = _POSTER_SIGMAS
    name: ClassVar[str] = "spatiotemporal_noise"
    unit: ClassVar[str] = f"sigma, {NOISE_UNIT}"
    highest: ClassVar[float] = math.inf

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw standard normal values (frames, V, coordinates)."""
        shape = frames, len(poses.skeleton), poses.coordinates
        return rng.standard_normal(shape, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        noise = gather_frames(draws, frame).unsqueeze(1)  # (B, 1, T, V, c)
        return _add_noise(clip, noise, level, poses)
