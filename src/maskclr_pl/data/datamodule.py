"""Clips of fixed size from a store, and the data module that serves them."""

from typing import Any, Literal, get_args

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from maskclr_pl.data.sampling import ClassBalancedBatches, EpochBatches, Key, hold_out
from maskclr_pl.data.store import Recording, Store
from maskclr_pl.transforms import image_normalize, jittered_frames, track, uniform_frames
from maskclr_pl.types import Batch, InputError

Sampling = Literal["resample", "whole"]
"""`resample`: frames are picked so that every clip has the same length. `whole`: all frames, and a
transform on the device brings batches to the same length (the 3D pipelines)."""

MAX_FRAMES = 300
"""Longest clip that `whole` passes on, as in NTU's published arrays; longer ones are thinned."""


class ClipDataset(Dataset[dict[str, Any]]):
    """Recordings of a split as clips with the same number of persons.

    The clip has the joints of the store; 2D coordinates are in image units ([-1, 1] over the longer
    side), and a joint without confidence is all zeros.

    Args:
        store: Where the recordings are.
        rows: Which recordings, in order.
        frames: Length of a clip, if resampled.
        persons: Persons per clip. Recordings with more keep those seen best.
        train: Draw the frames afresh at each access; otherwise evenly spaced ones.
        seed: The draws depend on (seed, epoch, index) alone.
        sampling: See `Sampling`.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        frames: int,
        persons: int,
        train: bool,
        seed: int = 0,
        sampling: Sampling = "resample",
    ):
        self.store, self.rows = store, rows
        self.frames, self.persons, self.train, self.seed = frames, persons, train, seed
        self.sampling = sampling

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
        frame = self._frames(recording.keypoint.shape[1], epoch, index)
        size = recording.frame_size
        if size is None:  # (x, y, z): there is no room for a confidence
            clip = _metric_clip(recording, frame, self.persons)
        else:
            clip = _image_clip(recording, frame, self.persons, size)
        seen = (clip != 0).any(0) if size is None else clip[2] > 0
        return {
            "clip": clip,
            "present": seen.any((1, 2)),
            "frame": frame,
            "label": recording.label,
            "index": index,
        }

    def _frames(self, length: int, epoch: int, index: int) -> np.ndarray:
        """Which frames of a recording make the clip."""
        if self.sampling == "whole":
            return uniform_frames(length, min(length, MAX_FRAMES))
        if self.train:
            draws = np.random.default_rng((self.seed, epoch, index)).random(self.frames)
            return jittered_frames(length, self.frames, draws)
        return uniform_frames(length, self.frames)


def _best(weight: np.ndarray, persons: int) -> np.ndarray:
    """The persons with the largest sums of weights (M, T, V), in their order."""
    return np.sort(np.argsort(-weight.sum((1, 2), dtype=np.float32), kind="stable")[:persons])


def _metric_clip(recording: Recording, frame: np.ndarray, persons: int) -> np.ndarray:
    """(3, M, T, V) metres."""
    keypoint = recording.keypoint
    if len(keypoint) > persons:
        keypoint = keypoint[_best((keypoint != 0).any(-1), persons)]
    clip = np.zeros((3, persons, len(frame), keypoint.shape[2]), np.float32)
    clip[:, : len(keypoint)] = np.moveaxis(keypoint[:, frame], -1, 0)
    return clip


def _image_clip(
    recording: Recording, frame: np.ndarray, persons: int, size: tuple[int, int]
) -> np.ndarray:
    """(3, M, T, V): x, y in image units, confidence; persons keep their identity."""
    keypoint, score = recording.keypoint, recording.score
    if score is None:
        score = (keypoint != 0).any(-1)
    if len(keypoint) > persons:
        best = _best(score, persons)
        keypoint, score = keypoint[best], score[best]
    clip = np.zeros((3, persons, len(frame), keypoint.shape[2]), np.float32)
    there = clip[:, : len(keypoint)]
    there[:2] = np.moveaxis(image_normalize(keypoint[:, frame], size), -1, 0)
    there[2] = np.maximum(score[:, frame], 0)
    there[:2] *= there[2] > 0
    if len(keypoint) == 2:
        swapped = track(keypoint.astype(np.float32), score)[frame]
        there[:, :, swapped] = there[:, ::-1, swapped]
    return clip


def collate(items: list[dict[str, Any]]) -> Batch:
    """A batch from clips; the channels of `clip` are planes in memory, short clips end in zeros."""
    present = torch.from_numpy(np.stack([item["present"] for item in items]))
    length = max(len(item["frame"]) for item in items)
    first = items[0]["clip"]
    clip = np.zeros((len(first), len(items), first.shape[1], length, first.shape[3]), np.float32)
    frame = np.full((len(items), length), -1)
    for i, item in enumerate(items):
        frames = len(item["frame"])
        clip[:, i, :, :frames] = item["clip"]
        frame[i, :frames] = item["frame"]
    return {
        "clip": torch.from_numpy(clip).movedim(0, -1),
        "present": present,
        "sequence": present.flatten().nonzero().squeeze(1),
        "frame": torch.from_numpy(frame),
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
        sampling: See `Sampling`.
        copies: What to do with training clips that are copies of validation or test clips, and
            validation clips that are copies of test clips (same poses, other name): `drop` them,
            which is said, `refuse` the data, or `keep` them.
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
        sampling: Sampling = "resample",
        copies: Literal["drop", "refuse", "keep"] = "drop",
        batch_size: int = 32,
        balanced: dict[str, int] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        for key, value, known in (
            ("sampling", sampling, get_args(Sampling)),
            ("copies", copies, ("drop", "refuse", "keep")),
        ):
            if value not in known:
                raise InputError(f"data.{key}={value}: expected {', '.join(known)}")
        self.store, self.copies = Store(path), copies
        self.notes: list[str] = []
        """What is to be said about the splits, a line each."""
        self.batch_size, self.balanced = batch_size, balanced
        self.num_workers, self.seed = num_workers, seed
        train, test = self.store.rows(train_split), self.store.rows(test_split)
        self._disjoint(train_split, train, test_split, test)
        train = self._without_copies(train_split, train, test_split, test)
        if val_split is None:
            subjects = None if self.store.subject is None else self.store.subject[train]
            kept, held = hold_out(self.store.label[train], subjects, val_fraction, seed)
            train, val = train[kept], train[held]
        else:
            val = self.store.rows(val_split)
            self._disjoint(train_split, train, val_split, val)
            val = self._without_copies(val_split, val, test_split, test)
            if shared := len(np.intersect1d(val, test)):
                self.notes.append(
                    f"{shared} clips of {val_split} are in {test_split}, too: they choose the "
                    "checkpoint that is tested on them"
                )
        train = self._without_copies(train_split, train, "validation", val)
        self.train, self.val, self.test = (
            ClipDataset(self.store, rows, frames, persons, rows is train, seed, sampling)
            for rows in (train, val, test)
        )
        if not len(self.train) or not len(self.val) or not len(self.test):
            raise InputError(
                f"{path}: {len(self.train)} training, {len(self.val)} validation and "
                f"{len(self.test)} test clips; each part needs at least one"
                + "".join(f"; {note}" for note in self.notes)
            )

    def _disjoint(self, a: str, rows_a: np.ndarray, b: str, rows_b: np.ndarray) -> None:
        shared = np.intersect1d(rows_a, rows_b)
        if len(shared):
            raise InputError(
                f"{self.store.path}: splits {a!r} and {b!r} share {len(shared)} clips, the first "
                f"is {self.store.name(int(shared[0]))!r}; scores on them would mean nothing"
            )

    def _without_copies(self, a: str, rows_a: np.ndarray, b: str, rows_b: np.ndarray) -> np.ndarray:
        """The rows of split a whose poses are not those of another clip of split b."""
        if self.store.digest is None or self.copies == "keep":
            return rows_a
        theirs = self.store.digest[rows_b]
        copied = np.isin(self.store.digest[rows_a], theirs[theirs != 0])
        copied &= ~np.isin(rows_a, rows_b)  # the very same clip is no copy
        if not copied.any():
            return rows_a
        count, first = int(copied.sum()), self.store.name(int(rows_a[copied.argmax()]))
        if self.copies == "refuse":
            raise InputError(
                f"{self.store.path}: {count} clips of split {a!r} are copies of clips of split "
                f"{b!r}, the first is {first!r}; type data.copies=drop to leave them out, or "
                "data.copies=keep to accept it"
            )
        self.notes.append(f"{count} clips of {a} are left out, they are copies of clips of {b}")
        return rows_a[~copied]

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
