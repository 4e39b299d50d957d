"""Callbacks: when to mask, which epoch to keep, when to stop, what to say and to draw."""

from maskclr_pl.callbacks.collapse import CollapseCallback
from maskclr_pl.callbacks.console import EpochLines
from maskclr_pl.callbacks.cost import CostCallback, EpochTime
from maskclr_pl.callbacks.figures import FiguresCallback
from maskclr_pl.callbacks.finite import FiniteTraining
from maskclr_pl.callbacks.history import RowInCheckpoint
from maskclr_pl.callbacks.masking import MaskingCallback
from maskclr_pl.callbacks.selection import BestCheckpoint, EarlyStopping, best_of, too_few
from maskclr_pl.callbacks.signals import CheckpointOnSignal

__all__ = [
    "BestCheckpoint",
    "CheckpointOnSignal",
    "CollapseCallback",
    "CostCallback",
    "EarlyStopping",
    "EpochLines",
    "EpochTime",
    "FiguresCallback",
    "FiniteTraining",
    "MaskingCallback",
    "RowInCheckpoint",
    "best_of",
    "too_few",
]
