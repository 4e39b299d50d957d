"""Skeleton data: sources, the store that all of them end in, and the data module."""

from maskclr_pl.data.datamodule import ClipDataset, SkeletonDataModule
from maskclr_pl.data.store import Recording, Store, write_store

__all__ = ["ClipDataset", "Recording", "SkeletonDataModule", "Store", "write_store"]
