"""Occlusion of joints, body parts and frames. Occluded joints become zeros."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from maskclr_pl.robustness.corruptions.base import Corruption, Poses, gather_frames, time_window
from maskclr_pl.types import InputError

PARTS = {
    "left_arm": ("left_arm",),
    "right_arm": ("right_arm",),
    "left_leg": ("left_leg",),
    "right_leg": ("right_leg",),
    "trunk": ("trunk",),
    "arms": ("left_arm", "right_arm"),
    "legs": ("left_leg", "right_leg"),
}
"""Occluded group -> parts of a `Skeleton`; the trunk includes the head."""


@dataclass(frozen=True)
class PartOcclusion(Corruption):
    """A body part of all persons that is occluded during a contiguous share of the clip.

    The position of this time window is random; level 1 is the whole clip.

    Args:
        part: A key of `PARTS`.
        levels: Shares of the frames of the clip.

    Raises:
        InputError: If the part is unknown.
    """

    part: str = field(kw_only=True)
    levels: Sequence[float] = (0.5, 1.0)
    unit: ClassVar[str] = "share of the clip"

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise InputError(f"part={self.part}: expected {', '.join(PARTS)}")
        super().__post_init__()

    @property
    def name(self) -> str:
        """Name in tables, such as `occlusion_left_arm`."""
        return f"occlusion_{self.part}"

    def skip_reason(self, poses: Poses) -> str | None:
        """Skip skeletons without this part, or without any other joint."""
        skeleton = poses.skeleton
        for part in PARTS[self.part]:
            if part not in skeleton.parts:
                return f"{skeleton.name} has no joints named as {part.replace('_', ' ')}"
        if len(self._joints(poses)) == len(skeleton):
            return f"{skeleton.name} has no other joints"
        return None

    def _joints(self, poses: Poses) -> list[int]:
        return [joint for part in PARTS[self.part] for joint in poses.skeleton.parts[part]]

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw the position of the window, uniform (1,)."""
        return rng.random(1, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        joints = torch.zeros(clip.shape[3], dtype=torch.bool)
        joints[self._joints(poses)] = True
        joints = joints.to(clip.device, non_blocking=True)
        occluded = time_window(frame, level, draws).unsqueeze(-1) & joints  # (B, T, V)
        return clip * ~occluded[:, None, :, :, None]


@dataclass(frozen=True)
class JointOcclusion(Corruption):
    """Random joints of all persons that are occluded during the whole clip.

    Args:
        levels: Shares of joints; `round(level * V)` joints are occluded.
    """

    levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)
    name: ClassVar[str] = "joint_occlusion"
    unit: ClassVar[str] = "share of joints"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw the order (V,) in which joints are occluded."""
        return rng.permutation(len(poses.skeleton)).astype(np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        visible = draws >= round(level * draws.shape[1])
        return clip * visible[:, None, None, :, None]


@dataclass(frozen=True)
class KeypointOcclusion(Corruption):
    """Joints that are occluded independently in each frame of the recording.

    Args:
        levels: Probabilities that a joint is occluded in a frame.
    """

    levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)
    name: ClassVar[str] = "keypoint_occlusion"
    unit: ClassVar[str] = "share of joints in frames"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw uniform values (frames, V)."""
        return rng.random((frames, len(poses.skeleton)), dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        visible = gather_frames(draws, frame) >= level
        return clip * visible[:, None, :, :, None]


@dataclass(frozen=True)
class FrameMasking(Corruption):
    """Frames of the recording in which all joints are missing; time does not change.

    Args:
        levels: Probabilities that a frame is empty.
    """

    levels: Sequence[float] = (0.2, 0.4, 0.6, 0.8)
    name: ClassVar[str] = "frame_masking"
    unit: ClassVar[str] = "share of frames"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Draw uniform values (frames,)."""
        return rng.random(frames, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """Corrupt clips, see `Corruption`."""
        visible = gather_frames(draws, frame) >= level
        return clip * visible[:, None, :, None, None]
