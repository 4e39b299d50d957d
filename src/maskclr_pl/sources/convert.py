"""Conversion of a source to a store: in several processes, and resumable after an interruption."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset

from maskclr_pl.data.store.reader import Recording, Store
from maskclr_pl.data.store.spool import SkippedRecording
from maskclr_pl.data.store.writer import Columns, Splits, split_indices, write_store
from maskclr_pl.data.workers import ignore_signals_in_worker
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.base import Source
from maskclr_pl.sources.format_detection import detect_format
from maskclr_pl.sources.units import CoordinateFormat
from maskclr_pl.types import InputError

T = TypeVar("T")


def convert(
    source: Source,
    path: str | Path,
    *,
    skeleton: Skeleton,
    splits: Splits | Callable[[Columns], Splits],
    class_names: Sequence[str] | None = None,
    first_label: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
    workers: int = 0,
    settings: str = "",
    form: CoordinateFormat | None = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, done: items,
) -> Store:
    """Write the recordings of a source to a store; an interrupted call is resumed.

    A call that stopped at an unusable recording is resumed with `on_error="skip"`, or once the
    recording can be used.

    Args:
        source: Recordings to read.
        path: The store to write.
        skeleton: Joint layout of the recordings.
        splits: See `write_store`.
        class_names: One name per class; by default the class numbers.
        first_label: Label of the first class in the source.
        on_error: See `write_store`.
        workers: Processes that read a `parallel` source.
        settings: Everything else that affects the result; a call with other settings restarts.
        form: Coordinate format of the source; by default detected from the first recordings.
        progress: Wraps the items, given how many of them are done already.

    Raises:
        InputError: See `write_store`.
    """
    names = [source.name(i) for i in range(len(source))]
    if not callable(splits):
        split_indices(names, splits, skip=on_error == "skip")  # fails before anything is read
    form = form or detect_source_format(source, path)
    key = [source.hash, skeleton.to_dict(), class_names, settings, first_label, asdict(form)]

    def recordings(done: int) -> Iterable[Recording | SkippedRecording]:
        items = _read(_UsableSource(source, form), done, workers)
        return progress((_finish(item, first_label) for item in items), done)

    return write_store(
        path,
        recordings,
        skeleton=skeleton,
        splits=splits,
        class_names=class_names,
        source_hash=source.hash,
        on_error=on_error,
        resume_key=json.dumps(key),
    )


def detect_source_format(
    source: Source, path: Any, units: str | None = None, flat: bool | None = None
) -> CoordinateFormat:
    """Return the coordinate format that a source defines, or detect it from the first recordings.

    Args:
        source: Recordings to read.
        path: Its name, for errors.
        units: Unit stated by the user.
        flat: True if 2D poses are expected, False for 3D, None if unknown.

    Raises:
        InputError: See `detect_format`.
    """
    units_of_source = getattr(source, "units", None)  # third-party sources may not have it
    if units_of_source is not None:
        return CoordinateFormat(units_of_source)
    return detect_format(_usable_recordings(source), path, units, flat)


def _usable_recordings(source: Source) -> Iterator[Recording]:
    for index in range(len(source)):
        with contextlib.suppress(InputError):  # raised again when it is converted
            yield source[index]


class _UsableSource(Dataset[Recording | SkippedRecording]):
    """Recordings of a source in units of the store; errors become `SkippedRecording` items."""

    def __init__(self, source: Source, form: CoordinateFormat):
        self.source, self.form = source, form

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Recording | SkippedRecording:
        try:
            return self.form.to_stored(self.source[index])
        except InputError as error:
            return SkippedRecording(self.source.name(index), str(error))


def _read(
    dataset: _UsableSource, done: int, workers: int
) -> Iterator[Recording | SkippedRecording]:
    """Yield the recordings from index `done` on, in order."""
    remaining = range(done, len(dataset))
    if not workers or not dataset.source.parallel or len(remaining) < 2:
        yield from (dataset[index] for index in remaining)
    else:
        yield from DataLoader(
            dataset,
            batch_size=None,
            sampler=remaining,
            num_workers=workers,
            collate_fn=_identity,
            worker_init_fn=ignore_signals_in_worker,
        )


def _finish(item: Recording | SkippedRecording, first_label: int) -> Recording | SkippedRecording:
    """Count classes from 0, and add an invisible person to a clip without any."""
    if isinstance(item, SkippedRecording):
        return item
    if first_label and item.label < first_label:
        reason = f"its label is {item.label}, but first_label={first_label}"
        return SkippedRecording(item.name, f"clip {item.name!r}: {reason}")
    item = replace(item, label=item.label - first_label) if first_label else item
    if np.ndim(item.keypoint) == 4 and not len(item.keypoint):
        empty = np.zeros((1, *item.keypoint.shape[1:]), item.keypoint.dtype)
        score = None if item.score is None else np.zeros(empty.shape[:3], item.score.dtype)
        item = replace(item, keypoint=empty, score=score)
    return item


def _identity(item: T) -> T:
    return item
