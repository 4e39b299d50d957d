"""Data module: training, validation, and test clips of one store."""

import math
from functools import partial
from typing import Any, Literal, get_args

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from maskclr_pl.data.dataset import ClipDataset, Sampling, collate
from maskclr_pl.data.holdout import check_fraction, hold_out, hold_out_notes
from maskclr_pl.data.loading import EpochLoader, completed_batches
from maskclr_pl.data.samplers import (
    ClassBalancedBatches,
    EpochBatches,
    check_balanced,
    clips_per_rank,
)
from maskclr_pl.data.splits import (
    check_label_fraction,
    check_novel,
    draw_labeled,
    draw_novel,
    named_clips,
)
from maskclr_pl.data.store.reader import Store
from maskclr_pl.data.workers import ignore_signals_in_worker
from maskclr_pl.types import InputError


class SkeletonDataModule(L.LightningDataModule):
    """Training, validation, and test clips of one store.

    Args:
        path: Store written by `prepare`.
        train_split: Name of the training split.
        test_split: Name of the test split; unused before testing unless it is also `val_split`.
        val_split: Split for model selection; by default, `val_fraction` of the training split is
            held out (see `hold_out`).
        val_fraction: Share held out, in [0, 1), 0.1 by default; 0 trains on the whole split,
            without validation.
        exemplar_split: Clips that represent the novel classes of a one-shot protocol.
        novel_classes: Share of the classes drawn as novel, for a one-shot protocol without
            `exemplar_split`. Their exemplars are the first training clips by name; test clips of
            the other classes are dropped.
        label_fraction: Share of each class used for training (see `draw_labeled`), or a file with
            the names of the training clips, which are then never held out. None: all clips.
        frames: Length of a clip.
        persons: Persons per clip.
        sampling: See `Sampling`.
        released: See `make_clip`.
        duplicates: Handling of training clips with the same poses as a validation or test clip,
            and of validation clips with the same poses as a test clip: `drop` them with a note,
            `refuse` the data, or `keep` them.
        batch_size: Clips per batch, over all devices.
        balanced: {classes: P, samples: K} for class-balanced training batches; `batch_size` then
            applies to validation and test.
        num_workers: Loader processes; 0 loads in the training process.
        seed: Seed of shuffling, frame sampling, and the held-out part.

    Attributes:
        notes: Remarks about the splits for the log.

    Raises:
        InputError: If the store or a split is missing, or splits share clips.
    """

    def __init__(
        self,
        path: str,
        train_split: str,
        test_split: str,
        val_split: str | None = None,
        val_fraction: float | None = None,
        exemplar_split: str | None = None,
        novel_classes: float | None = None,
        label_fraction: float | int | str | None = None,
        frames: int = 81,
        persons: int = 2,
        sampling: Sampling = "resample",
        released: bool = False,
        duplicates: Literal["drop", "refuse", "keep"] = "drop",
        batch_size: int = 32,
        balanced: dict[str, int] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        for key, value, choices in (
            ("sampling", sampling, get_args(Sampling)),
            ("duplicates", duplicates, ("drop", "refuse", "keep")),
        ):
            if value not in choices:
                raise InputError(f"data.{key}={value}: expected {', '.join(choices)}")
        check_label_fraction(label_fraction)
        val_fraction = 0.1 if val_fraction is None else val_fraction
        check_fraction(val_fraction)
        check_balanced(balanced)
        self.store, self.duplicates = Store(path), duplicates
        self.notes: list[str] = []
        self.batch_size, self.balanced = batch_size, balanced
        self.num_workers, self.seed = num_workers, seed
        test = self.store.rows(test_split)
        train, val = self._training_rows(train_split, test_split, test, val_split, val_fraction)
        available = len(train)
        if isinstance(label_fraction, str):
            train, val = self._listed_rows(label_fraction, train_split, train, val)
        train = self._without_duplicates(train_split, train, "validation", val)
        if isinstance(label_fraction, float | int):
            train = train[draw_labeled(self.store.label[train], label_fraction, seed)]
        if label_fraction is not None:
            self.notes.append(f"{len(train)} of {available} training clips are labeled and used")
        exemplars = test[:0] if exemplar_split is None else self.store.rows(exemplar_split)
        if novel_classes is not None and exemplar_split is None:
            train, val, test, exemplars = self._one_shot_rows(novel_classes, train, val, test)
        self.train, self.val, self.test, self.exemplars = (
            ClipDataset(self.store, rows, frames, persons, rows is train, seed, sampling, released)
            for rows in (train, val, test, exemplars)
        )
        if exemplar_split is not None:
            self._check_disjoint(exemplar_split, exemplars, test_split, test)
            labels = (self.train.labels, self.exemplars.labels, self.test.labels)
            check_novel(*labels, self.store.class_names)
        validated = val_split is not None or val_fraction > 0
        if not len(self.train) or not len(self.test) or (validated and not len(self.val)):
            raise InputError(
                f"{path}: {len(self.train)} training, {len(self.val)} validation, and "
                f"{len(self.test)} test clips; each part needs at least one"
                + "".join(f"; {note}" for note in self.notes)
            )

    def _training_rows(
        self, split: str, test_split: str, test: np.ndarray, val_split: str | None, fraction: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to train on, and those to validate on (held out, or from a split)."""
        train = self.store.rows(split)
        self._check_disjoint(split, train, test_split, test)
        train = self._without_duplicates(split, train, test_split, test)
        if val_split is not None:
            val = self.store.rows(val_split)
            self._check_disjoint(split, train, val_split, val)
            val = self._without_duplicates(val_split, val, test_split, test)
            if shared := len(np.intersect1d(val, test)):
                self.notes.append(
                    f"{shared} clips of {val_split} are also in {test_split}: the checkpoint is "
                    "selected on clips it is tested on"
                )
            return train, val
        if fraction == 0:
            return train, train[:0]
        subjects = None if self.store.subject is None else self.store.subject[train]
        labels = self.store.label[train]
        kept, held = hold_out(labels, subjects, fraction, self.seed)
        self.notes += hold_out_notes(labels, subjects, kept, held, self.store.class_names)
        return train[kept], train[held]

    def _one_shot_rows(
        self, share: float, train: np.ndarray, val: np.ndarray, test: np.ndarray
    ) -> list[np.ndarray]:
        """Return training, validation, test, and exemplar rows of a drawn one-shot protocol."""
        label, rows = self.store.label, np.concatenate([train, val])
        novel = draw_novel(label[rows], label[test], share, self.seed)
        by_name = sorted(rows[np.isin(label[rows], novel)].tolist(), key=self.store.name)
        first = np.unique(label[by_name], return_index=True)[1]
        self.notes.append(
            f"{len(novel)} novel classes, each with one exemplar (its first training clip by "
            f"name): {', '.join(self.store.class_names[index] for index in novel)}"
        )
        base = [part[~np.isin(label[part], novel)] for part in (train, val)]
        return [*base, test[np.isin(label[test], novel)], np.array(by_name)[first]]

    def _listed_rows(
        self, file: str, split: str, train: np.ndarray, val: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a split listed in a file, and the validation rows not listed."""
        rows = self.store.rows(split)
        listed = rows[named_clips(file, [self.store.name(int(row)) for row in rows], split)]
        return np.intersect1d(listed, np.union1d(train, val)), np.setdiff1d(val, listed)

    def _check_disjoint(self, a: str, rows_a: np.ndarray, b: str, rows_b: np.ndarray) -> None:
        shared = np.intersect1d(rows_a, rows_b)
        if len(shared):
            raise InputError(
                f"{self.store.path}: splits {a!r} and {b!r} share {len(shared)} clips, for example "
                f"{self.store.name(int(shared[0]))!r}; use disjoint splits"
            )

    def _without_duplicates(
        self, a: str, rows_a: np.ndarray, b: str, rows_b: np.ndarray
    ) -> np.ndarray:
        """Return the rows of split a whose poses differ from those of all other clips in b."""
        if self.store.digest is None or self.duplicates == "keep":
            return rows_a
        digests = self.store.digest[rows_b]
        duplicate = np.isin(self.store.digest[rows_a], digests[digests != 0])
        duplicate &= ~np.isin(rows_a, rows_b)  # a clip is no duplicate of itself
        if not duplicate.any():
            return rows_a
        count, example = int(duplicate.sum()), self.store.name(int(rows_a[duplicate.argmax()]))
        if self.duplicates == "refuse":
            raise InputError(
                f"{self.store.path}: {count} clips of split {a!r} have the same poses as clips of "
                f"split {b!r}, for example {example!r}; pass data.duplicates=drop to drop them, "
                "or data.duplicates=keep"
            )
        self.notes.append(f"{count} clips of {a} are dropped: same poses as clips of {b}")
        return rows_a[~duplicate]

    @property
    def train_batch_size(self) -> int:
        """Clips per training batch, over all devices."""
        return math.prod(self.balanced.values()) if self.balanced else self.batch_size

    def batch_line(self, devices: int, accumulated: int) -> str:
        """Describe a training batch that differs from `batch_size`; '' if it does not.

        Args:
            devices: Number of devices that share the batch.
            accumulated: Batches per optimizer step.
        """
        size, parts = self.train_batch_size, []
        if self.balanced:
            parts.append("{classes} classes with {samples} clips each".format(**self.balanced))
            if size != self.batch_size:
                parts.append(f"{self.batch_size} clips in validation and test")
        if devices > 1:
            parts.append(f"{size // devices} on each of {devices} devices")
        if accumulated > 1:
            parts.append(f"{accumulated} batches ({accumulated * size} clips) per optimizer step")
        return f"{size} clips: {'; '.join(parts)}" if parts else ""

    def validate_on_test(self) -> None:
        """Validate on the test clips (`monitor_split=test`)."""
        if unused := len(self.val):
            self.notes.append(
                f"{unused} validation clips are unused because of monitor_split=test; leave out "
                "data.val_fraction and data.val_split to train on them"
            )
        self.val = self.test

    def check_devices(self, devices: int) -> None:
        """Check that all devices get clips; one without clips would block the others.

        Raises:
            InputError: If a part or a training batch cannot be shared among the devices.
        """
        if devices == 1:
            return
        key = "balanced" if self.balanced else "batch_size"
        clips_per_rank(self.train_batch_size, devices, f"data.{key}")
        parts = {"validation": self.val, "test": self.test, "exemplar": self.exemplars}
        for name, part in {"training": self.train, **parts}.items():
            least = devices * (2 if name == "training" else 1)  # BatchNorm needs two
            if 0 < len(part) < least:
                raise InputError(
                    f"{self.store.path}: {len(part)} {name} clips for {devices} devices, expected "
                    f"at least {least}; pass trainer.devices=1"
                )

    def _loader(self, dataset: ClipDataset, batches: EpochBatches) -> DataLoader[Any]:
        return EpochLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=ignore_signals_in_worker,
            # keeps worker seeds out of the generator that masks and augmentation draw from
            generator=torch.Generator().manual_seed(self.seed),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Load shuffled or class-balanced training batches, from where a checkpoint ended."""
        size, seed = self.batch_size, self.seed
        labels, completed = self.train.labels, partial(completed_batches, self.trainer)
        if self.balanced:
            batches: EpochBatches = ClassBalancedBatches(
                labels, **self.balanced, seed=seed, completed=completed
            )
        else:
            batches = EpochBatches(len(labels), size, seed=seed, shuffle=True, completed=completed)
        return self._loader(self.train, batches)

    def sequential_loader(self, dataset: ClipDataset) -> DataLoader[Any]:
        """Load every clip of a part once, in file order, shared among the ranks."""
        batches = EpochBatches(len(dataset), self.batch_size, seed=self.seed, shuffle=False)
        return self._loader(dataset, batches)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Load every validation clip once, in file order; no loader if there are none."""
        return [self.sequential_loader(self.val)] if len(self.val) else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Load every test clip once, in file order."""
        return self.sequential_loader(self.test)
