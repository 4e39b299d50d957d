"""What to hide: masking strategies over the tokens of a person's sequence.

A strategy says what to hide, never when (`callbacks.MaskingCallback` does). In every mask True
means hidden. Sequences are independent of each other.
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
