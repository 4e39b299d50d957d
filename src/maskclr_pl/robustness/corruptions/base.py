"""The interface of corruptions, and helpers that they share."""

import itertools
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError
from maskclr_pl.visibility import visible_in_clip


class Poses(NamedTuple):
    """Format of the poses in a dataset."""

    skeleton: Skeleton
    coordinates: Literal[2, 3]
    """2: image coordinates (x, y, confidence); 3: camera coordinates (x, y, z)."""


@dataclass(frozen=True)
class Corruption(ABC):
    """A corruption of poses. Level 0 is the identity; higher levels are stronger.

    Zeros (absent persons, missing joints, padding) stay zeros. All persons of a clip share the
    random part.

    Args:
        levels: Ascending levels above 0, in the unit of the corruption.

    Raises:
        InputError: If levels are not ascending, not above 0, or above `highest`.
    """

    levels: Sequence[float]
    unit: ClassVar[str]
    highest: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        levels = [0.0, *self.levels]
        ascending = all(a < b for a, b in itertools.pairwise(levels))
        if len(levels) == 1 or not ascending or levels[-1] > self.highest:
            limit = "" if math.isinf(self.highest) else f", at most {self.highest:g}"
            raise InputError(
                f"corruption {self.name}: levels {list(self.levels)}, expected ascending levels "
                f"above 0{limit} ({self.unit})"
            )

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in tables and figures."""

    def skip_reason(self, poses: Poses) -> str | None:
        """Return why the corruption does not apply to such poses, or None if it does."""
        return None

    @abstractmethod
    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw the random part of one clip as float32.

        Args:
            rng: Generator of the clip.
            frames: Number of frames of the recording to draw for. The values of the first frames
                must not depend on it.
            poses: Format of the poses.
        """

    @abstractmethod
    def __call__(
        self,
        clip: Float[Tensor, "B M T V 3"],
        draws: Float[Tensor, " B *random"],
        frame: Int[Tensor, "B T"],
        level: float,
        poses: Poses,
    ) -> Float[Tensor, "B M T V 3"]:
        """Corrupt clips.

        Args:
            clip: Clips as the data module delivers them.
            draws: Random parts of the clips from `draw`.
            frame: Frame of the recording shown at each time step; -1 for padding at the end.
            level: 0 or one of the levels.
            poses: Format of the poses.
        """


def clip_rng(seed: int, draw: int, corruption: str, clip: str) -> np.random.Generator:
    """Return the generator of one clip, which is the same on every machine."""
    names = zlib.crc32(corruption.encode()), zlib.crc32(clip.encode())
    return np.random.default_rng((seed, draw, *names))


def visible_joints(clip: Float[Tensor, "B M T V 3"], poses: Poses) -> Bool[Tensor, "B M T V 1"]:
    """Return which joints are visible: confidence above 0 (2D) or not exactly zero (3D)."""
    return visible_in_clip(clip, "pixels" if poses.coordinates == 2 else "metres")[..., None]


def gather_frames(
    draws: Float[Tensor, "B R *one"], frame: Int[Tensor, "B T"]
) -> Float[Tensor, "B T *one"]:
    """Select the draws of the recording frames shown in each clip (any frame for padding)."""
    batch = torch.arange(len(frame), device=frame.device).unsqueeze(1)
    return draws[batch, frame.clamp(min=0)]


def time_window(
    frame: Int[Tensor, "B T"], share: float, position: Float[Tensor, "B 1"], min_length: int = 0
) -> Bool[Tensor, "B T"]:
    """Select a contiguous share of the frames of each clip, padding excluded.

    Args:
        frame: Recording frame of each time step, -1 for padding.
        share: Share of the frames in [0, 1].
        position: Position of the window in [0, 1). Windows of larger shares contain smaller ones.
        min_length: Minimum length of the window in frames.
    """
    length = (frame >= 0).sum(1, keepdim=True)
    size = (share * length.double()).round().long().clamp(min=min_length)
    start = (position.double() * (length - size + 1)).long()
    step = torch.arange(frame.shape[1], device=frame.device)
    return (step >= start) & (step < start + size)
