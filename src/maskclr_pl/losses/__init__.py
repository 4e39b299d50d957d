"""Loss terms over the predictions of the two pathways, and their weighted sum."""

from maskclr_pl.losses.base import LossTerm, WeightedSum
from maskclr_pl.losses.classification import CrossEntropy
from maskclr_pl.losses.contrastive import ClassContrast, SampleContrast, SupervisedContrast

__all__ = [
    "ClassContrast",
    "CrossEntropy",
    "LossTerm",
    "SampleContrast",
    "SupervisedContrast",
    "WeightedSum",
]
