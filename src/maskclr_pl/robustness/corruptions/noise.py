"""Joints that are not where the estimator says: Gaussian noise, as on MaskCLR's poster.

Noise is added to the joints of the data file, in image units, before they are converted and the
clip is cropped. A joint that is built as the mean of others so gets less of it: of COCO's joints
as Human3.6M's, root, neck and head 0.71 of sigma, the belly 0.50.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maskclr_pl.robustness.corruptions.base import Corruption, Poses, of_frames, visible

NOISE_UNIT = "half image widths (3D: m)"
_POSTER = tuple(thousandths / 1000 for thousandths in range(1, 11))


def bounds(
    clip: Float[Tensor, "B M T V 3"], reach: float, poses: Poses
) -> tuple[Float[Tensor, "B M T V c"], Float[Tensor, "B M T V c"]]:
    """How far coordinates may move: joints that are there by `reach`, and not out of the image."""
    points = clip[..., : poses.coordinates]
    far = torch.where(visible(clip, poses), reach, 0.0)
    low, high = points - far, points + far
    if poses.coordinates == 3:
        return low, high
    # a joint that was outside of the image may stay where it was
    return low.maximum(points.clamp(max=-1)), high.minimum(points.clamp(min=1))


def _add_noise(clip: Tensor, noise: Tensor, sigma: float, poses: Poses) -> Tensor:
    """Coordinates of visible joints plus noise; in the image, kept inside [-1, 1]."""
    low, high = bounds(clip, math.inf, poses)
    points, others = clip[..., : poses.coordinates], clip[..., poses.coordinates :]
    return torch.cat(((points + sigma * noise).clamp(low, high), others), dim=-1)


@dataclass(frozen=True)
class SpatialNoise(Corruption):
    """The same Gaussian offset of each joint in all frames: a skewed estimator.

    N(0, sigma^2) per joint and coordinate, in units of half the longer image side or in metres,
    shared by the persons of a clip. Confidence stays as it is, missing joints stay missing
    (MaskCLR, robustness to spatial noise).

    Args:
        levels: Values of sigma.
    """

    levels: Sequence[float] = _POSTER
    name: ClassVar[str] = "spatial_noise"
    unit: ClassVar[str] = f"sigma, {NOISE_UNIT}"
    highest: ClassVar[float] = math.inf

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Standard normal (V, coordinates)."""
        return rng.standard_normal((len(poses.skeleton), poses.coordinates), dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        return _add_noise(clip, draws[:, None, None], level, poses)


@dataclass(frozen=True)
class SpatiotemporalNoise(Corruption):
    """Independent Gaussian noise in every frame of the recording: a jittery estimator.

    As `SpatialNoise`, drawn anew for each frame of the recording; a frame that a clip shows twice
    has the same noise both times.

    Args:
        levels: Values of sigma.
    """

    levels: Sequence[float] = _POSTER
    name: ClassVar[str] = "spatiotemporal_noise"
    unit: ClassVar[str] = f"sigma, {NOISE_UNIT}"
    highest: ClassVar[float] = math.inf

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Standard normal (frames, V, coordinates)."""
        shape = frames, len(poses.skeleton), poses.coordinates
        return rng.standard_normal(shape, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        return _add_noise(clip, of_frames(draws, frame).unsqueeze(1), level, poses)
