"""Skeleton data: sources, the store that all of them end in, and the data module."""

from maskclr_pl.data.datamodule import ClipDataset, SkeletonDataModule, collate
from maskclr_pl.data.store import Recording, Store
from maskclr_pl.data.writing import write_store

__all__ = ["ClipDataset", "Recording", "SkeletonDataModule", "Store", "collate", "write_store"]
