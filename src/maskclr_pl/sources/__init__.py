"""Readers of the forms in which data sets are published; each yields recordings for the store."""

from maskclr_pl.sources.base import Source

__all__ = ["Source"]
