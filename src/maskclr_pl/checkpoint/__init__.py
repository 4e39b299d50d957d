"""Checkpoints: written, read, started from."""

from maskclr_pl.backbones.pretrained import load_published_weights

__all__ = ["load_published_weights"]
