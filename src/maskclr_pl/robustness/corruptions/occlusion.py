"""What the camera does not see: joints, parts of the body, frames. What is hidden becomes zeros."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from maskclr_pl.robustness.corruptions.base import Corruption, Poses, of_frames, window
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
"""The groups that `PartOcclusion` hides -> parts of a `Skeleton`; the trunk includes the head."""


@dataclass(frozen=True)
class PartOcclusion(Corruption):
    """A part of the body that is not seen in a share of the clip, of any person.

    The frames are one after the other, from a random one on. At level 1 there is nothing random.

    Args:
        part: One of `PARTS`.
        levels: Shares of the clip's frames; 1 is the whole clip.

    Raises:
        InputError: If there is no such part.
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
        """As `occlusion_left_arm`."""
        return f"occlusion_{self.part}"

    def skip_reason(self, poses: Poses) -> str | None:
        """Nothing to hide, or nothing that would be left."""
        skeleton, parts = poses.skeleton, PARTS[self.part]
        lacking = [part.replace("_", " ") for part in parts if part not in skeleton.parts]
        if lacking:
            return f"the joints of {skeleton.name} name no {lacking[0]}"
        if len(self._joints(poses)) == len(skeleton):
            return f"{skeleton.name} has no other joints"
        return None

    def _joints(self, poses: Poses) -> list[int]:
        return [joint for part in PARTS[self.part] for joint in poses.skeleton.parts[part]]

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Where the window stands, uniform (1,)."""
        return rng.random(1, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        joints = torch.zeros(clip.shape[3], dtype=torch.bool)
        joints[self._joints(poses)] = True
        joints = joints.to(clip.device, non_blocking=True)
        hidden = window(frame, level, draws).unsqueeze(-1) & joints
        return clip * ~hidden[:, None, :, :, None]


@dataclass(frozen=True)
class JointOcclusion(Corruption):
    """Joints that are not seen in the whole clip, of any person.

    Args:
        levels: Shares of the joints; `round(level * V)` are hidden.
    """

    levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)
    name: ClassVar[str] = "joint_occlusion"
    unit: ClassVar[str] = "share of joints"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """The order (V,) in which joints are hidden."""
        return rng.permutation(len(poses.skeleton)).astype(np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        kept = draws >= round(level * draws.shape[1])
        return clip * kept[:, None, None, :, None]


@dataclass(frozen=True)
class KeypointOcclusion(Corruption):
    """Joints that are not seen now and then: each in each frame of the recording by itself.

    Args:
        levels: Probabilities that a joint is hidden in a frame.
    """

    levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)
    name: ClassVar[str] = "keypoint_occlusion"
    unit: ClassVar[str] = "share of joints in frames"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Uniform (frames, V)."""
        return rng.random((frames, len(poses.skeleton)), dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        kept = of_frames(draws, frame) >= level
        return clip * kept[:, None, :, :, None]


@dataclass(frozen=True)
class FrameMasking(Corruption):
    """Frames of the recording in which nobody is seen; time goes on.

    Args:
        levels: Probabilities that a frame is empty.
    """

    levels: Sequence[float] = (0.2, 0.4, 0.6, 0.8)
    name: ClassVar[str] = "frame_masking"
    unit: ClassVar[str] = "share of frames"

    def draw(self, rng: np.random.Generator, frames: int, poses: Poses) -> np.ndarray:
        """Uniform (frames,)."""
        return rng.random(frames, dtype=np.float32)

    def __call__(
        self, clip: Tensor, draws: Tensor, frame: Tensor, level: float, poses: Poses
    ) -> Tensor:
        """See `Corruption`."""
        kept = of_frames(draws, frame) >= level
        return clip * kept[:, None, :, None, None]
