"""Clips of fixed size from a store, and the data module that serves them."""

from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from maskclr_pl.data.sampling import ClassBalancedBatches, EpochBatches, Key, hold_out
from maskclr_pl.data.store import Store
from maskclr_pl.transforms import image_normalize, jittered_frames, track, uniform_frames
from maskclr_pl.types import Batch, InputError


class ClipDataset(Dataset[dict[str, Any]]):
    """Recordings of a split, resampled to clips of the same length and number of persons.

    The clip has the joints of the store; 2D coordinates are in image units ([-1, 1] over the longer
    side), and a joint without confidence is all zeros.

    Args:
        store: Where the recordings are.
        rows: Which recordings, in order.
        frames: Length of a clip.
        persons: Persons per clip. Recordings with more keep those seen best.
        train: Draw the frames afresh at each access; otherwise evenly spaced ones.
        seed: The draws depend on (seed, epoch, index) alone.
    """

    def __init__(
        self, store: Store, rows: np.ndarray, frames: int, persons: int, train: bool, seed: int = 0
    ):
        self.store, self.rows = store, rows
        self.frames, self.persons, self.train, self.seed = frames, persons, train, seed

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """Class of each clip."""
        return self.store.label[self.rows]

    @property
    def names(self) -> list[str]:
        """Name of each clip."""
        return [self.store.name(int(row)) for row in self.rows]

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """One clip, unbatched, as NumPy arrays; a plain index means epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        recording = self.store.recording(int(self.rows[index]))
        length = recording.keypoint.shape[1]
        if self.train:
            draws = np.random.default_rng((self.seed, epoch, index)).random(self.frames)
            frame = jittered_frames(length, self.frames, draws)
        else:
            frame = uniform_frames(length, self.frames)
        keypoint, score = recording.keypoint, recording.score
        if recording.frame_size is None:  # (x, y, z): there is no room for a confidence
            score = None
        if recording.frame_size is not None and score is None:
            score = (keypoint != 0).any(-1)
        if len(keypoint) > self.persons:
            weight = (np.abs(keypoint).sum(-1) > 0) if score is None else score.astype(np.float32)
            best = np.sort(np.argsort(-weight.sum((1, 2)), kind="stable")[: self.persons])
            keypoint, score = keypoint[best], None if score is None else score[best]
        swapped = None
        if score is not None and len(keypoint) == 2:
            swapped = track(keypoint.astype(np.float32), score)[frame]
        clip = np.zeros((3, self.persons, self.frames, keypoint.shape[2]), np.float32)
        there = clip[:, : len(keypoint)]
        keypoint = keypoint[:, frame]
        if score is None:
            there[:] = np.moveaxis(keypoint, -1, 0)
        else:
            there[:2] = np.moveaxis(
                image_normalize(keypoint, recording.frame_size or (1, 1)), -1, 0
            )
            there[2] = np.maximum(score[:, frame], 0)
            there[:2] *= there[2] > 0
            if swapped is not None and swapped.any():
                there[:, :, swapped] = there[:, ::-1, swapped]
        present = (clip[2] > 0 if score is not None else (clip != 0).any(0)).any((1, 2))
        return {
            "clip": clip,
            "present": present,
            "frame": frame,
            "label": recording.label,
            "index": index,
        }


def collate(items: list[dict[str, Any]]) -> Batch:
    """A batch from clips; the channels of `clip` are planes in memory."""
    clip = torch.from_numpy(np.stack([item["clip"] for item in items], axis=1))
    present = torch.from_numpy(np.stack([item["present"] for item in items]))
    return {
        "clip": clip.movedim(0, -1),
        "present": present,
        "sequence": present.flatten().nonzero().squeeze(1),
        "frame": torch.from_numpy(np.stack([item["frame"] for item in items])),
        "label": torch.tensor([item["label"] for item in items]),
        "index": torch.tensor([item["index"] for item in items]),
    }


class SkeletonDataModule(L.LightningDataModule):
    """Train, validation and test clips of one store.

    Args:
        path: Store written by `prepare`.
        train_split: Name of the training split.
        test_split: Name of the test split; never looked at before testing, unless it is also
            given as `val_split`.
        val_split: Split for model selection; by default `val_fraction` of the training split is
            held out, whole subjects where they are known.
        val_fraction: Share held out.
        frames: Length of a clip.
        persons: Persons per clip.
        batch_size: Clips per batch and device.
        balanced: {classes: P, samples: K} for class-balanced training batches instead.
        num_workers: Loader processes; 0 loads in the training process.
        seed: Seed of shuffling, resampling and the held-out part.

    Raises:
        InputError: If the store or a split is missing, or splits share clips.
    """

    def __init__(
        self,
        path: str,
        train_split: str,
        test_split: str,
        val_split: str | None = None,
        val_fraction: float = 0.1,
        frames: int = 81,
        persons: int = 2,
        batch_size: int = 32,
        balanced: dict[str, int] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        self.store = Store(path)
        self.batch_size, self.balanced = batch_size, balanced
        self.num_workers, self.seed = num_workers, seed
        train, test = self.store.rows(train_split), self.store.rows(test_split)
        self._disjoint(train_split, train, test_split, test)
        if val_split is None:
            subjects = None if self.store.subject is None else self.store.subject[train]
            kept, held = hold_out(self.store.label[train], subjects, val_fraction, seed)
            train, val = train[kept], train[held]
        else:
            val = self.store.rows(val_split)
            self._disjoint(train_split, train, val_split, val)
        self.train, self.val, self.test = (
            ClipDataset(self.store, rows, frames, persons, rows is train, seed)
            for rows in (train, val, test)
        )
        if not len(self.train) or not len(self.val) or not len(self.test):
            raise InputError(
                f"{path}: {len(self.train)} training, {len(self.val)} validation and "
                f"{len(self.test)} test clips; each part needs at least one"
            )

    def _disjoint(self, a: str, rows_a: np.ndarray, b: str, rows_b: np.ndarray) -> None:
        shared = np.intersect1d(rows_a, rows_b)
        if len(shared):
            raise InputError(
                f"{self.store.path}: splits {a!r} and {b!r} share {len(shared)} clips, the first "
                f"is {self.store.name(int(shared[0]))!r}; scores on them would mean nothing"
            )

    def _loader(self, dataset: ClipDataset, batches: EpochBatches) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # worker seeds must not disturb the generator that masks and augmentation draw from
            generator=torch.Generator().manual_seed(self.seed),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled or class-balanced training batches."""
        labels = self.train.labels
        batches = (
            ClassBalancedBatches(labels, **self.balanced, seed=self.seed)
            if self.balanced
            else EpochBatches(len(labels), self.batch_size, seed=self.seed, shuffle=True)
        )
        return self._loader(self.train, batches)

    def _in_order(self, dataset: ClipDataset) -> DataLoader[Any]:
        batches = EpochBatches(len(dataset), self.batch_size, seed=self.seed, shuffle=False)
        return self._loader(dataset, batches)

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation clip once, in file order."""
        return self._in_order(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Every test clip once, in file order."""
        return self._in_order(self.test)
