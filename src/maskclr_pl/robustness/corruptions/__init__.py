"""What can go wrong with a pose estimator, at test time, with a level in natural units.

A corruption acts on clips as the data module delivers them: the joints of the data file, image
units, before the joints are converted and the clip is cropped. Its random part is drawn per clip
from (seed, draw, corruption, clip name), so that every model sees the same; the levels of one
draw share it, so that a higher level is the same disturbance, stronger. No model is trained on
them.
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

UNITS = {
    **{f"occlusion_{part}": PartOcclusion.unit for part in PARTS},
    **{
        str(corruption.name): corruption.unit
        for corruption in (
            *(SpatialNoise, SpatiotemporalNoise),
            *(JointOcclusion, KeypointOcclusion, FrameMasking),
            *(FrameDrop, FrameRate, TimeCrop),
            *(ConfidenceDropout, SideSwap, BodyScale),
        )
    },
    "adversarial": f"reach, {NOISE_UNIT}",
    "second_store": "1: the other store",
}
"""Row of the robustness table -> unit of its level."""
