"""Checkpoints: metadata, loading, and starting from other runs."""

from maskclr_pl.backbones.pretrained import load_published_weights

__all__ = ["load_published_weights"]
