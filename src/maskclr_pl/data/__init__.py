"""Skeleton data: sources, and the store that all of them end in.

The data module is in `maskclr_pl.data.datamodule`; this package opens stores without Lightning.
"""

from maskclr_pl.data.store.reader import Recording, Store
from maskclr_pl.data.store.writer import write_store

__all__ = ["Recording", "Store", "write_store"]
