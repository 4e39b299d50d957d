"""The data module: training, validation and test clips of one store."""

from functools import partial
from typing import Any, Literal, get_args

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from maskclr_pl.data.dataset import ClipDataset, Sampling, collate
from maskclr_pl.data.holdout import check_fraction, hold_out, hold_out_notes
from maskclr_pl.data.loading import EpochLoader, batches_done
from maskclr_pl.data.samplers import (
    ClassBalancedBatches,
    EpochBatches,
    check_balanced,
    clips_per_rank,
)
from maskclr_pl.data.splits import (
    check_labelled,
    check_novel,
    draw_novel,
    labelled_share,
    named_clips,
)
from maskclr_pl.data.store.reader import Store
from maskclr_pl.data.workers import leave_signals_to_the_parent
from maskclr_pl.types import InputError


class SkeletonDataModule(L.LightningDataModule):
    """Train, validation and test clips of one store.

    Args:
        path: Store written by `prepare`.
        train_split: Name of the training split.
        test_split: Name of the test split; never looked at before testing, unless it is also
            given as `val_split`.
        val_split: Split for model selection; by default `val_fraction` of the training split is
            held out (see `hold_out`).
        val_fraction: Share held out, in [0, 1), 0.1 by default; 0 trains on the whole split,
            without validation.
        exemplar_split: Of a one-shot protocol: the clips of the classes that are new at test time.
        novel_classes: Of a one-shot protocol without `exemplar_split`: the share of the classes
            that is new, drawn by the seed. Their exemplars are the first training clips by name;
            test clips of the other classes are left out.
        labelled: Training clips that are used: a share of each class (see `labelled_share`), or a
            file with their names, which are then never held out. None: all.
        frames: Length of a clip.
        persons: Persons per clip.
        sampling: See `Sampling`.
        released: See `clip_item`.
        copies: What to do with training clips that are copies of validation or test clips, and
            validation clips that are copies of test clips (same poses, other name): `drop` them,
            which is said, `refuse` the data, or `keep` them.
        batch_size: Clips per batch, of all devices together.
        balanced: {classes: P, samples: K} for class-balanced training batches instead; `batch_size`
            is then that of validation and test.
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
        val_fraction: float | None = None,
        exemplar_split: str | None = None,
        novel_classes: float | None = None,
        labelled: float | int | str | None = None,
        frames: int = 81,
        persons: int = 2,
        sampling: Sampling = "resample",
        released: bool = False,
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
        check_labelled(labelled)
        val_fraction = 0.1 if val_fraction is None else val_fraction
        check_fraction(val_fraction)
        check_balanced(balanced)
        self.store, self.copies = Store(path), copies
        self.notes: list[str] = []
        """What is to be said about the splits, a line each."""
        self.batch_size, self.balanced = batch_size, balanced
        self.num_workers, self.seed = num_workers, seed
        test = self.store.rows(test_split)
        train, val = self._training_rows(train_split, test_split, test, val_split, val_fraction)
        whole = len(train)
        if isinstance(labelled, str):
            train, val = self._named(labelled, train_split, train, val)
        train = self._without_copies(train_split, train, "validation", val)
        if isinstance(labelled, float | int):
            train = train[labelled_share(self.store.label[train], labelled, seed)]
        if labelled is not None:
            self.notes.append(f"{len(train)} of {whole} training clips are used: those labelled")
        exemplars = test[:0] if exemplar_split is None else self.store.rows(exemplar_split)
        if novel_classes is not None and exemplar_split is None:
            train, val, test, exemplars = self._with_new_classes(novel_classes, train, val, test)
        self.train, self.val, self.test, self.exemplars = (
            ClipDataset(self.store, rows, frames, persons, rows is train, seed, sampling, released)
            for rows in (train, val, test, exemplars)
        )
        if exemplar_split is not None:
            self._disjoint(exemplar_split, exemplars, test_split, test)
            parts = (self.train.labels, self.exemplars.labels, self.test.labels)
            check_novel(*parts, self.store.class_names)
        unvalidated = val_split is None and val_fraction == 0
        if not len(self.train) or not len(self.test) or not (len(self.val) or unvalidated):
            raise InputError(
                f"{path}: {len(self.train)} training, {len(self.val)} validation and "
                f"{len(self.test)} test clips; each part needs at least one"
                + "".join(f"; {note}" for note in self.notes)
            )

    def _training_rows(
        self, split: str, test_split: str, test: np.ndarray, val_split: str | None, fraction: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The clips to train on, and those held out from them or given for validation."""
        train = self.store.rows(split)
        self._disjoint(split, train, test_split, test)
        train = self._without_copies(split, train, test_split, test)
        if val_split is not None:
            val = self.store.rows(val_split)
            self._disjoint(split, train, val_split, val)
            val = self._without_copies(val_split, val, test_split, test)
            if shared := len(np.intersect1d(val, test)):
                self.notes.append(
                    f"{shared} clips of {val_split} are in {test_split}, too: they choose the "
                    "checkpoint that is tested on them"
                )
            return train, val
        if fraction == 0:
            return train, train[:0]
        subjects = None if self.store.subject is None else self.store.subject[train]
        labels = self.store.label[train]
        kept, held = hold_out(labels, subjects, fraction, self.seed)
        self.notes += hold_out_notes(labels, subjects, kept, held, self.store.class_names)
        return train[kept], train[held]

    def _with_new_classes(
        self, share: float, train: np.ndarray, val: np.ndarray, test: np.ndarray
    ) -> list[np.ndarray]:
        """Clips to train on, validation, test clips and exemplars of a one-shot protocol."""
        label, known = self.store.label, np.concatenate([train, val])
        novel = draw_novel(label[known], label[test], share, self.seed)
        candidates = known[np.isin(label[known], novel)].tolist()
        candidates.sort(key=self.store.name)
        first = np.unique(label[candidates], return_index=True)[1]
        self.notes.append(
            f"{len(novel)} new classes, each with one exemplar (the first training clip by name): "
            + ", ".join(self.store.class_names[one] for one in novel)
        )
        old = [rows[~np.isin(label[rows], novel)] for rows in (train, val)]
        return [*old, test[np.isin(label[test], novel)], np.array(candidates)[first]]

    def _named(
        self, file: str, split: str, train: np.ndarray, val: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The clips of a split that a file names, and the held-out ones that it does not."""
        rows = self.store.rows(split)
        named = rows[named_clips(file, [self.store.name(int(row)) for row in rows], split)]
        return np.intersect1d(named, np.union1d(train, val)), np.setdiff1d(val, named)

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
                f"{b!r}, the first is {first!r}; pass data.copies=drop to leave them out, or "
                "data.copies=keep to accept it"
            )
        self.notes.append(f"{count} clips of {a} are left out, they are copies of clips of {b}")
        return rows_a[~copied]

    @property
    def step_clips(self) -> int:
        """Clips per training batch, of all devices together."""
        balanced = self.balanced
        return balanced["classes"] * balanced["samples"] if balanced else self.batch_size

    def batch_line(self, devices: int, accumulated: int) -> str:
        """Describe the training batch where it is not simply `batch_size`; '' where it is.

        Args:
            devices: That share it.
            accumulated: Batches per step of the optimizer.
        """
        clips, balanced = self.step_clips, self.balanced
        parts = []
        if balanced:
            parts.append(f"{balanced['classes']} classes with {balanced['samples']} clips each")
            if clips != self.batch_size:
                parts.append(f"in validation and test {self.batch_size} clips")
        if devices > 1:
            parts.append(f"{clips // devices} on each of {devices} devices")
        if accumulated > 1:
            parts.append(f"{accumulated} batches, {accumulated * clips} clips, make a step")
        return f"{clips} clips: {'; '.join(parts)}" if parts else ""

    def validate_on_test(self) -> None:
        """Use the test clips for validation (`monitor_split=test`) in the place of any others."""
        if unused := len(self.val):
            self.notes.append(
                f"{unused} validation clips are neither trained on nor used, because of "
                "monitor_split=test; leave out data.val_fraction and data.val_split"
            )
        self.val = self.test

    def check_devices(self, devices: int) -> None:
        """Raise an InputError if a part or a training batch cannot be shared among devices.

        A device without clips would leave the others waiting for it.
        """
        if devices == 1:
            return
        key = "data.balanced" if self.balanced else "data.batch_size"
        clips_per_rank(self.step_clips, devices, key)
        parts = {"training": self.train, "validation": self.val, "test": self.test}
        for name, part in {**parts, "exemplar": self.exemplars}.items():
            least = devices * (2 if name == "training" else 1)  # BatchNorm needs two
            if 0 < len(part) < least:
                raise InputError(
                    f"{self.store.path}: {len(part)} {name} clips for {devices} devices, expected "
                    f"{least} or more; pass trainer.devices=1"
                )

    def _loader(self, dataset: ClipDataset, batches: EpochBatches) -> DataLoader[Any]:
        return EpochLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_signals_to_the_parent,
            # worker seeds must not disturb the generator that masks and augmentation draw from
            generator=torch.Generator().manual_seed(self.seed),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled or class-balanced training batches; those that a checkpoint holds are over."""
        labels, done = self.train.labels, partial(batches_done, self.trainer)
        batches = (
            ClassBalancedBatches(labels, **self.balanced, seed=self.seed, done=done)
            if self.balanced
            else EpochBatches(len(labels), self.batch_size, seed=self.seed, shuffle=True, done=done)
        )
        return self._loader(self.train, batches)

    def in_order(self, dataset: ClipDataset) -> DataLoader[Any]:
        """Every clip of a part once, in file order; each rank has its share."""
        batches = EpochBatches(len(dataset), self.batch_size, seed=self.seed, shuffle=False)
        return self._loader(dataset, batches)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Every validation clip once, in file order; no loader if there are none."""
        return [self.in_order(self.val)] if len(self.val) else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Every test clip once, in file order."""
        return self.in_order(self.test)
