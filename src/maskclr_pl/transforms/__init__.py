"""Transforms of clips; each works on a single clip and on a batch, on any device."""

from maskclr_pl.transforms.alignment import Center, FaceView
from maskclr_pl.transforms.augment2d import CropScale, RandomMove, set_released
from maskclr_pl.transforms.augment3d import (
    AxisMask,
    GaussianNoise,
    RandomRotation,
    RotateMainAxis,
    Shear,
    SpatialFlip,
)
from maskclr_pl.transforms.base import Transform
from maskclr_pl.transforms.frame_sampling import jittered_frames, uniform_frames
from maskclr_pl.transforms.normalize import Convert, find_identity_swaps, image_normalize
from maskclr_pl.transforms.simulated_poses import (
    CropScale3D,
    DropJoints,
    Mirror,
    PoseNoise,
    Project,
    project,
)
from maskclr_pl.transforms.streams import Stream
from maskclr_pl.transforms.temporal import (
    GaussianBlur,
    TemporalCrop,
    TemporalFlip,
    ValidCropResize,
)

__all__ = [
    "AxisMask",
    "Center",
    "Convert",
    "CropScale",
    "CropScale3D",
    "DropJoints",
    "FaceView",
    "GaussianBlur",
    "GaussianNoise",
    "Mirror",
    "PoseNoise",
    "Project",
    "RandomMove",
    "RandomRotation",
    "RotateMainAxis",
    "Shear",
    "SpatialFlip",
    "Stream",
    "TemporalCrop",
    "TemporalFlip",
    "Transform",
    "ValidCropResize",
    "find_identity_swaps",
    "image_normalize",
    "jittered_frames",
    "project",
    "set_released",
    "uniform_frames",
]
