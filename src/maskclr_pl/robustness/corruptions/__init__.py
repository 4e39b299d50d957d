"""Test-time corruptions that simulate pose estimation errors, with levels in natural units.

A corruption acts on clips as the data module delivers them: the joints of the dataset in image
units or meters, before layout conversion and cropping. Its random part is seeded per clip by
(seed, draw, corruption, clip name), so that all models see the same clips. All levels of a draw
share it, so that a higher level is a stronger version of the same corruption. No model is trained
on them.
"""

from maskclr_pl.robustness.corruptions.base import Corruption, Poses, clip_rng
from maskclr_pl.robustness.corruptions.estimator import BodyScale, ConfidenceDropout, SideSwap
from maskclr_pl.robustness.corruptions.noise import NOISE_UNIT, SpatialNoise, SpatiotemporalNoise
from maskclr_pl.robustness.corruptions.occlusion import (
    PARTS,
    FrameMasking,
    JointOcclusion,
    KeypointOcclusion,
    PartOcclusion,
)
from maskclr_pl.robustness.corruptions.timing import FrameDrop, FrameRate, TimeCrop

__all__ = [
    "PARTS",
    "UNITS",
    "BodyScale",
    "ConfidenceDropout",
    "Corruption",
    "FrameDrop",
    "FrameMasking",
    "FrameRate",
    "JointOcclusion",
    "KeypointOcclusion",
    "PartOcclusion",
    "Poses",
    "SideSwap",
    "SpatialNoise",
    "SpatiotemporalNoise",
    "TimeCrop",
    "clip_rng",
]

_CLASSES: list[type[Corruption]] = [
    SpatialNoise,
    SpatiotemporalNoise,
    JointOcclusion,
    KeypointOcclusion,
    FrameMasking,
    FrameDrop,
    FrameRate,
    TimeCrop,
    ConfidenceDropout,
    SideSwap,
    BodyScale,
]

UNITS = {
    **{f"occlusion_{part}": PartOcclusion.unit for part in PARTS},
    **{str(corruption.name): corruption.unit for corruption in _CLASSES},
    "adversarial": f"max. change, {NOISE_UNIT}",
    "second_store": "1: the other store",
}
"""Corruption name in robustness.csv -> unit of its level."""
