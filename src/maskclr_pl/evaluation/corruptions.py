"""What can go wrong with a pose estimator, at test time, with a level in natural units.

A corruption acts on clips as the data module delivers them: the joints of the data file, image
units, before the joints are converted and the clip is cropped. Its random part is drawn per clip
from (seed, draw, corruption, clip name), so that every model sees the same; the levels of one
draw share it, so that a higher level is the same disturbance, stronger.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_NOISE_UNIT = "sigma, in half image widths (2D) or metres (3D)"


@runtime_checkable
class Corruption(Protocol):
    """A way in which poses get worse; level 0 changes nothing."""

    name: ClassVar[str]
    unit: ClassVar[str]

    @property
    def levels(self) -> Sequence[float]:
        """Levels above 0, ascending."""

    def draw(
        self, rng: np.random.Generator, frames: int, joints: int, coordinates: int
    ) -> np.ndarray:
        """The random part for one clip.

        Args:
            rng: Its generator.
            frames: Frames of the recording that may be asked for.
            joints: V.
            coordinates: 2 in the image, 3 in space.
        """

    def __call__(
        self,
        clip: Float[Tensor, "B M T V 3"],
        draws: Float[Tensor, "B *random"],
        frame: Int[Tensor, "B T"],
        level: float,
    ) -> Float[Tensor, "B M T V 3"]:
        """The corrupted clips."""


def clip_rng(seed: int, draw: int, corruption: str, clip: str) -> np.random.Generator:
    """The generator of one clip, the same on every machine."""
    words = (zlib.crc32(corruption.encode()), zlib.crc32(clip.encode()))
    return np.random.default_rng((seed, draw, *words))


def _add_noise(clip: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Coordinates of visible joints plus noise; in the image, kept inside [-1, 1]."""
    if noise.shape[-1] == 3:
        return torch.where((clip != 0).any(-1, keepdim=True), clip + sigma * noise, clip)
    seen = clip[..., 2:] > 0
    xy = clip[..., :2]
    # a joint that was outside of the image may stay where it was
    moved = (xy + sigma * noise).clamp(xy.clamp(max=-1), xy.clamp(min=1))
    return torch.cat((torch.where(seen, moved, xy), clip[..., 2:]), dim=-1)


@dataclass(frozen=True)
class SpatialNoise:
    """The same Gaussian offset of each joint in all frames: a skewed estimator.

    N(0, sigma^2) per joint and coordinate, in units of half the longer image side or in metres,
    shared by the persons of a clip. Confidence stays as it is, missing joints stay missing
    (MaskCLR, robustness to spatial noise).

    Args:
        levels: Values of sigma.
    """

    levels: Sequence[float] = (0.002, 0.004, 0.006, 0.008, 0.01)
    name: ClassVar[str] = "spatial_noise"
    unit: ClassVar[str] = _NOISE_UNIT

    def draw(
        self, rng: np.random.Generator, frames: int, joints: int, coordinates: int
    ) -> np.ndarray:
        """Standard normal (V, coordinates)."""
        return rng.standard_normal((joints, coordinates), dtype=np.float32)

    def __call__(self, clip: Tensor, draws: Tensor, frame: Tensor, level: float) -> Tensor:
        """See `Corruption`."""
        return _add_noise(clip, draws[:, None, None], level)


@dataclass(frozen=True)
class SpatiotemporalNoise:
    """Independent Gaussian noise in every frame of the recording: a jittery estimator.

    As `SpatialNoise`, drawn anew for each frame of the recording; a frame that a clip shows twice
    has the same noise both times.

    Args:
        levels: Values of sigma.
    """

    levels: Sequence[float] = (0.002, 0.004, 0.006, 0.008, 0.01)
    name: ClassVar[str] = "spatiotemporal_noise"
    unit: ClassVar[str] = _NOISE_UNIT

    def draw(
        self, rng: np.random.Generator, frames: int, joints: int, coordinates: int
    ) -> np.ndarray:
        """Standard normal (frames, V, coordinates)."""
        return rng.standard_normal((frames, joints, coordinates), dtype=np.float32)

    def __call__(self, clip: Tensor, draws: Tensor, frame: Tensor, level: float) -> Tensor:
        """See `Corruption`."""
        rows = torch.arange(len(clip), device=clip.device).unsqueeze(1)
        return _add_noise(clip, draws[rows, frame].unsqueeze(1), level)


@dataclass(frozen=True)
class JointOcclusion:
    """Joints that are not seen in the whole clip, of any person.

    Args:
        levels: Shares of the joints; `round(level * V)` are hidden.
    """

    levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)
    name: ClassVar[str] = "joint_occlusion"
    unit: ClassVar[str] = "share of joints"

    def draw(
        self, rng: np.random.Generator, frames: int, joints: int, coordinates: int
    ) -> np.ndarray:
        """The order (V,) in which joints are hidden."""
        return rng.permutation(joints).astype(np.float32)

    def __call__(self, clip: Tensor, draws: Tensor, frame: Tensor, level: float) -> Tensor:
        """See `Corruption`."""
        kept = draws >= round(level * draws.shape[1])
        return clip * kept[:, None, None, :, None]


@dataclass(frozen=True)
class FrameDrop:
    """Frames of the recording that are lost; the others are stretched over the clip.

    Each frame is lost with probability `level`; the last one left is never lost.

    Args:
        levels: Probabilities below 1.
    """

    levels: Sequence[float] = (0.2, 0.4, 0.6, 0.8)
    name: ClassVar[str] = "frame_drop"
    unit: ClassVar[str] = "share of frames"

    def draw(
        self, rng: np.random.Generator, frames: int, joints: int, coordinates: int
    ) -> np.ndarray:
        """Uniform (frames,)."""
        return rng.random(frames, dtype=np.float32)

    def __call__(self, clip: Tensor, draws: Tensor, frame: Tensor, level: float) -> Tensor:
        """See `Corruption`."""
        there = frame >= 0
        fate = draws.gather(1, frame.clamp(min=0)).masked_fill(~there, -1)
        kept = there & ((fate >= level) | (fate == fate.amax(1, keepdim=True)))
        order = (~kept).int().argsort(dim=1, stable=True)
        step = torch.arange(clip.shape[2], device=clip.device)
        place = step * kept.sum(1, keepdim=True) // there.sum(1, keepdim=True)
        index = torch.where(there, order.gather(1, place), step)  # padding stays at the end
        return clip.gather(2, index[:, None, :, None, None].expand(clip.shape))


UNITS = {
    corruption.name: corruption.unit
    for corruption in (SpatialNoise, SpatiotemporalNoise, JointOcclusion, FrameDrop)
}
"""Corruption -> unit of its level."""
