"""Readers of published data sets and pose files; each yields recordings for the store."""

from maskclr_pl.sources.base import Source

__all__ = ["Source"]
