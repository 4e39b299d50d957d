"""What a corruption is, what it is told of the clips, and where its randomness comes from."""

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


class Poses(NamedTuple):
    """What the clips of a store consist of."""

    skeleton: Skeleton
    coordinates: Literal[2, 3]
    """2 in the image, (x, y, confidence); 3 in space, (x, y, z)."""


@dataclass(frozen=True)
class Corruption(ABC):
    """A way in which poses get worse. Level 0 changes nothing, a higher level more.

    Zeros (absent persons, missing joints, padding) stay zeros. All persons of a clip share the
    random part.

    Args:
        levels: Levels above 0, ascending, in the unit of the corruption.

    Raises:
        InputError: If the levels are not so, or above `highest`.
    """

    levels: Sequence[float]
    unit: ClassVar[str]
    highest: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        levels = [0.0, *self.levels]
        rising = all(a < b for a, b in itertools.pairwise(levels))
        if len(levels) == 1 or not rising or not levels[-1] <= self.highest:
            limit = "" if math.isinf(self.highest) else f", at most {self.highest:g}"
            raise InputError(
                f"corruption {self.name}: levels {list(self.levels)}, expected ascending ones "
                f"above 0{limit} ({self.unit})"
            )

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in tables."""

    def skip_reason(self, poses: Poses) -> str | None:
        """Why it means nothing for such clips, in a few words; None if it does."""
        return None

    @abstractmethod
    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """The random part for one clip, float32.

        Args:
            rng: The clip's generator.
            frames: Frames of the recording that may be asked for. More of them must not change
                what is drawn for the first ones.
            poses: What the clip consists of.
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
        """The corrupted clips.

        Args:
            clip: Clips as the data module delivers them.
            draws: What `draw` drew for each.
            frame: The frame of the recording that each frame shows; -1 for padding, at the end.
            level: 0, or one of the levels.
            poses: What the clips consist of.
        """


def clip_rng(seed: int, draw: int, corruption: str, clip: str) -> np.random.Generator:
    """The generator of one clip, the same on every machine."""
    words = (zlib.crc32(corruption.encode()), zlib.crc32(clip.encode()))
    return np.random.default_rng((seed, draw, *words))


def visible(clip: Float[Tensor, "B M T V 3"], poses: Poses) -> Bool[Tensor, "B M T V 1"]:
    """Which joints are there."""
    return clip[..., 2:] > 0 if poses.coordinates == 2 else (clip != 0).any(-1, keepdim=True)


def of_frames(
    draws: Float[Tensor, "B R *one"], frame: Int[Tensor, "B T"]
) -> Float[Tensor, "B T *one"]:
    """What was drawn for the frames of the recording that the clips show (padding: for any)."""
    rows = torch.arange(len(frame), device=frame.device).unsqueeze(1)
    return draws[rows, frame.clamp(min=0)]


def window(
    frame: Int[Tensor, "B T"], share: float, place: Float[Tensor, "B 1"], least: int = 0
) -> Bool[Tensor, "B T"]:
    """A share of the frames of each clip, one after the other; padding does not count.

    Args:
        frame: -1 for padding.
        share: In [0, 1].
        place: Where the window stands, in [0, 1). The window of a larger share contains it.
        least: Frames that it has at least.
    """
    length = (frame >= 0).sum(1, keepdim=True)
    size = (share * length.double()).round().long().clamp(min=least)
    start = (place.double() * (length - size + 1)).long()
    step = torch.arange(frame.shape[1], device=frame.device)
    return (step >= start) & (step < start + size)
