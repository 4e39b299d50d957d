"""Backbones: one person's sequence to tokens, in plain torch."""

from maskclr_pl.backbones.base import Backbone
from maskclr_pl.backbones.dstformer import DSTformer
from maskclr_pl.backbones.sttformer import STTFormer
from maskclr_pl.backbones.transformer import Transformer

__all__ = ["Backbone", "DSTformer", "STTFormer", "Transformer"]
