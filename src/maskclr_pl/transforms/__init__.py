"""Transforms of clips; the same object works on one clip and on a batch on the device."""

from maskclr_pl.transforms.augment import CropScale, RandomMove
from maskclr_pl.transforms.base import Transform
from maskclr_pl.transforms.normalize import Convert, image_normalize, track
from maskclr_pl.transforms.sampling import jittered_frames, uniform_frames

__all__ = [
    "Convert",
    "CropScale",
    "RandomMove",
    "Transform",
    "image_normalize",
    "jittered_frames",
    "track",
    "uniform_frames",
]
