"""Masking strategies over the tokens of a person's sequence.

In every mask, True means masked. Sequences are masked independently. A strategy decides what to
mask; `callbacks.MaskingCallback` decides when.
"""

from maskclr_pl.masking.attention import AttentionGuidedMasking, PartMasking, TopMasking
from maskclr_pl.masking.base import (
    Masking,
    PooledMasking,
    draw_mask,
    gumbel,
    mean_over_steps,
    relative_to_max,
    sample_mask,
    visible_tokens,
)
from maskclr_pl.masking.motion import MotionAwareMasking
from maskclr_pl.masking.uniform import FrameJointMasking, RandomMasking

__all__ = [
    "AttentionGuidedMasking",
    "FrameJointMasking",
    "Masking",
    "MotionAwareMasking",
    "PartMasking",
    "PooledMasking",
    "RandomMasking",
    "TopMasking",
    "draw_mask",
    "gumbel",
    "mean_over_steps",
    "relative_to_max",
    "sample_mask",
    "visible_tokens",
]
