"""Callbacks: when to mask, what a training costs, and what to say and to draw after an epoch."""

from maskclr_pl.callbacks.collapse import CollapseCallback
from maskclr_pl.callbacks.cost import CostCallback, EpochTime
from maskclr_pl.callbacks.figures import FiguresCallback
from maskclr_pl.callbacks.masking import MaskingCallback
from maskclr_pl.callbacks.progress import EpochLines

__all__ = [
    "CollapseCallback",
    "CostCallback",
    "EpochLines",
    "EpochTime",
    "FiguresCallback",
    "MaskingCallback",
]
