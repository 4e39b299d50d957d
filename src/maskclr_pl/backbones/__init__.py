"""Backbones: one person's sequence to tokens, in plain torch."""

from maskclr_pl.backbones.base import Backbone
from maskclr_pl.backbones.dstformer import DSTformer

__all__ = ["Backbone", "DSTformer"]
