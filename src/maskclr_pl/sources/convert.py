"""From a source to a store: several recordings at a time, and on from where it was interrupted."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset

from maskclr_pl.data.store.reader import Recording, Store
from maskclr_pl.data.store.spool import Unusable
from maskclr_pl.data.store.writer import Splits, Table, split_indices, write_store
from maskclr_pl.data.workers import leave_signals_to_the_parent
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
    splits: Splits | Callable[[Table], Splits],
    class_names: Sequence[str] | None = None,
    first_label: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
    workers: int = 0,
    settings: str = "",
    form: CoordinateFormat | None = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, done: items,
) -> Store:
    """Write what a source yields to a store; a call that was interrupted is continued.

    So is one that stopped at an unusable recording, with `on_error="skip"` or if it can be used by
    then.

    Args:
        source: What to read.
        path: The store to write.
        skeleton: Joint layout of the recordings.
        splits: See `write_store`.
        class_names: One name per class; by default the class numbers.
        first_label: Label of the first class in the source.
        on_error: See `write_store`.
        workers: Processes that read, for sources where that is worth it.
        settings: What else the result depends on; a call with other settings starts anew.
        form: What the numbers of the source mean; by default the first recordings tell.
        progress: Wraps the items, given how many of them are done already.

    Raises:
        InputError: See `write_store`.
    """
    names = [source.name(i) for i in range(len(source))]
    if not callable(splits):
        split_indices(names, splits, skip=on_error == "skip")  # found before anything is read
    form = form or detect_source_format(source, path)
    key = [source.hash, skeleton.to_dict(), class_names, settings, first_label, asdict(form)]
    return write_store(
        path,
        lambda done: progress(_completed(_read(source, form, done, workers), first_label), done),
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
    """What the numbers of a source mean: it says so itself, or its first recordings tell.

    Args:
        source: What to read.
        path: Its name, for errors.
        units: The unit as the user states it.
        flat: Whether 2D poses are expected, where that is known.

    Raises:
        InputError: See `detect_format`.
    """
    known = getattr(source, "units", None)  # sources from outside may not have it
    if known is not None:
        return CoordinateFormat(known)
    return detect_format(_readable(source), path, units, flat)


def _readable(source: Source) -> Iterator[Recording]:
    for index in range(len(source)):
        with contextlib.suppress(InputError):  # raised again when it is its turn
            yield source[index]


class _Safely(Dataset[Recording | Unusable]):
    """A source whose unusable recordings do not end the reading, in units of the store."""

    def __init__(self, source: Source, form: CoordinateFormat):
        self.source, self.form = source, form

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Recording | Unusable:
        try:
            return self.form.to_stored(self.source[index])
        except InputError as error:
            return Unusable(self.source.name(index), str(error))


def _read(
    source: Source, form: CoordinateFormat, done: int, workers: int
) -> Iterator[Recording | Unusable]:
    """The recordings from number `done` on, in order."""
    safely = _Safely(source, form)
    rest = range(done, len(source))
    if not workers or not source.parallel or len(rest) < 2:
        yield from (safely[index] for index in rest)
    else:
        yield from DataLoader(
            safely,
            batch_size=None,
            sampler=rest,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=leave_signals_to_the_parent,
        )


def _completed(
    items: Iterable[Recording | Unusable], first_label: int
) -> Iterator[Recording | Unusable]:
    """Count classes from 0, and give a clip of no persons one who is never seen."""
    for item in items:
        if isinstance(item, Recording) and first_label:
            label = item.label
            if label < first_label:
                why = f"its label is {label}, but first_label={first_label}"
                item = Unusable(item.name, f"clip {item.name!r}: {why}")
            else:
                item = replace(item, label=label - first_label)
        if isinstance(item, Recording) and np.ndim(item.keypoint) == 4 and not len(item.keypoint):
            nobody = np.zeros((1, *item.keypoint.shape[1:]), item.keypoint.dtype)
            score = None if item.score is None else np.zeros(nobody.shape[:3], item.score.dtype)
            item = replace(item, keypoint=nobody, score=score)
        yield item


def _as_it_is(item: T) -> T:
    return item
