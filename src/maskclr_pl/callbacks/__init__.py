"""Lightning callbacks: masking, model selection, early stopping, progress, cost and figures."""

from maskclr_pl.callbacks.collapse import CollapseCallback
from maskclr_pl.callbacks.console import ProgressLog
from maskclr_pl.callbacks.cost import CostCallback, EpochTimeEstimate
from maskclr_pl.callbacks.figures import FiguresCallback
from maskclr_pl.callbacks.finite import StopOnNonFinite
from maskclr_pl.callbacks.history import SaveEpochRow
from maskclr_pl.callbacks.masking import MaskingCallback
from maskclr_pl.callbacks.selection import (
    BestCheckpoint,
    EarlyStopping,
    best_checkpoint,
    too_few_clips,
)
from maskclr_pl.callbacks.signals import CheckpointOnSignal

__all__ = [
    "BestCheckpoint",
    "CheckpointOnSignal",
    "CollapseCallback",
    "CostCallback",
    "EarlyStopping",
    "EpochTimeEstimate",
    "FiguresCallback",
    "MaskingCallback",
    "ProgressLog",
    "SaveEpochRow",
    "StopOnNonFinite",
    "best_checkpoint",
    "too_few_clips",
]
