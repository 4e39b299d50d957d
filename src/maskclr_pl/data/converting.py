"""From a source to a store: several recordings at a time, and on from where it was interrupted."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch.utils.data import DataLoader, Dataset

from maskclr_pl.data.sources.base import Source
from maskclr_pl.data.spool import Unusable
from maskclr_pl.data.store import Recording, Store
from maskclr_pl.data.workers import leave_signals_to_the_parent
from maskclr_pl.data.writing import split_indices, write_store
from maskclr_pl.skeletons import Skeleton
from maskclr_pl.types import InputError

T = TypeVar("T")


def convert(
    source: Source,
    path: str | Path,
    *,
    skeleton: Skeleton,
    splits: Mapping[str, Sequence[str]],
    class_names: Sequence[str] | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    workers: int = 0,
    settings: str = "",
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, done: items,
) -> Store:
    """Write what a source yields to a store; a call that was interrupted is continued.

    So is one that stopped at an unusable recording, with `on_error="skip"` or if it can be used by
    then.

    Args:
        source: What to read.
        path: The store to write.
        skeleton: Joint layout of the recordings.
        splits: Split name -> names of recordings.
        class_names: One name per class; by default the class numbers.
        on_error: See `write_store`.
        workers: Processes that read, for sources where that is worth it.
        settings: What else the result depends on; a call with other settings starts anew.
        progress: Wraps the items, given how many of them are done already.

    Raises:
        InputError: See `write_store`.
    """
    names = [source.name(i) for i in range(len(source))]
    split_indices(names, splits, skip=on_error == "skip")  # found before anything is read
    key = json.dumps([source.hash, skeleton.to_dict(), class_names, settings])
    return write_store(
        path,
        lambda done: progress(_read(source, done, workers), done),
        skeleton=skeleton,
        splits=splits,
        class_names=class_names,
        source_hash=source.hash,
        on_error=on_error,
        resume_key=key,
    )


class _Safely(Dataset[Recording | Unusable]):
    """A source whose unusable recordings do not end the reading."""

    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Recording | Unusable:
        try:
            return self.source[index]
        except InputError as error:
            return Unusable(self.source.name(index), str(error))


def _read(source: Source, done: int, workers: int) -> Iterator[Recording | Unusable]:
    """The recordings from number `done` on, in order."""
    safely = _Safely(source)
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


def _as_it_is(item: T) -> T:
    return item
