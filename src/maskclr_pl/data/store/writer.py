"""Writing a store: check every recording, stream the rows, appear under its name when complete."""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from maskclr_pl import __version__
from maskclr_pl.data.store.checks import UNSTORABLE, check_recording, is_storable
from maskclr_pl.data.store.reader import ATTRIBUTES, FORMAT_VERSION, Recording, Store
from maskclr_pl.data.store.spool import Spool, Unusable
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError, printable

Items = Iterable[Recording | Unusable]
Splits = Mapping[str, Sequence[str]]
Table = Mapping[str, Sequence[Any]]
"""What is known of each recording: name, label, subject, digest and more (`spool.COLUMNS`)."""
_COPY_ROWS = 1 << 18


def write_store(
    path: str | Path,
    recordings: Items | Callable[[int], Items],
    *,
    skeleton: Skeleton,
    splits: Splits | Callable[[Table], Splits],
    class_names: Sequence[str] | None = None,
    source_hash: str = "",
    on_error: Literal["stop", "skip"] = "stop",
    resume_key: str = "",
) -> Store:
    """Write recordings to a new store; memory use does not grow with their size.

    The rows are collected in a hidden folder beside the store, which appears under its name only
    when it is complete.

    Args:
        path: The store to write. It is replaced if it exists.
        recordings: What a source yields, all of the same kind; or, to resume, a function from the
            number of recordings that are done already to the others.
        skeleton: Joint layout of the recordings.
        splits: Split name -> names of recordings; or a function that divides them when all are
            read.
        class_names: One name per class; by default the class numbers.
        source_hash: SHA-256 of the source, stored as an attribute.
        on_error: At a recording that cannot be used, `stop` raises its error; `skip` leaves it
            out, and the store lists it with the reason (`Store.skipped`).
        resume_key: Says what is converted, and how. If it is given, what was done is kept
            whatever stops the writing (an interruption, a reading process that was killed, an
            unusable recording) but a full disk, and the next call with this key goes on from
            there; otherwise nothing is left behind.

    Raises:
        InputError: If a recording is unusable (see `check_recording`), names repeat, a split names
            absent recordings, or the disk is full.
    """
    given, path = Path(path), Path(os.path.realpath(path))  # a link to another disk stays a link
    made = [folder for folder in path.parents if not os.path.exists(folder)]
    # what cannot be resumed may be written by several processes at a time: the last one stays
    owner = "" if resume_key else f".{os.getpid()}"
    scratch = path.with_name(f".{path.name}{owner}.partial")
    spool = _spool(scratch, resume_key, path, on_error)
    keep, collected = bool(resume_key), False
    try:
        with contextlib.closing(spool):  # and locked until the store is there
            items = recordings(len(spool)) if callable(recordings) else recordings
            _collect(items, spool, skeleton, class_names, on_error)
            spool.flush()
            collected = True
            divided = splits(spool.columns) if callable(splits) else splits
            _fill(scratch / "store", spool, skeleton, divided, class_names, source_hash, on_error)
            os.replace(scratch / "store", path)
        keep = False
    except InputError as error:
        keep = keep and on_error == "stop" and len(spool) > 0
        if not keep or collected:
            raise
        raise InputError(
            f"{error}; type on_error=skip to leave it out and go on from here"
        ) from error
    except OSError as error:
        keep = False
        raise InputError(f"{given}: cannot be written ({error.strerror or error})") from error
    finally:
        if not keep:
            _clear(scratch, path, made)
    return Store(given)


def _spool(folder: Path, key: str, path: Path, on_error: str) -> Spool:
    try:
        return Spool(folder, key, skips=on_error == "skip")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _clear(scratch: Path, path: Path, made: Sequence[Path]) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    if not path.exists():
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _collect(
    items: Items,
    spool: Spool,
    skeleton: Skeleton,
    class_names: Sequence[str] | None,
    on_error: str,
) -> None:
    """Check the recordings and append them to the spool."""
    classes = None if class_names is None else len(class_names)
    odd = next((name for name in class_names or () if not is_storable(name)), None)
    if odd is not None:
        raise InputError(f"class {odd!r}: {UNSTORABLE}")
    for item in items:
        try:
            if isinstance(item, Unusable):
                raise InputError(item.reason)
            check_recording(item, skeleton, classes)
            spool.add(item)
        except InputError as error:
            if on_error == "stop":
                raise
            spool.skip(Unusable(item.name, str(error)))
    if not spool.format:
        if not spool.skipped:
            raise InputError("no recordings found in the source")
        raise InputError(
            f"none of the {len(spool.skipped)} recordings can be used; the first: "
            f"{spool.skipped[0].reason}"
        )


def split_indices(
    names: Sequence[str], splits: Mapping[str, Sequence[str]], skip: bool = False
) -> tuple[dict[str, np.ndarray], list[Unusable]]:
    """Rows of each split, and the names that are not there.

    Raises:
        InputError: If a split has no plain name, names a recording twice, or, unless `skip`, names
            one that is not there.
    """
    row = {name: i for i, name in enumerate(names)}
    indices, absent = {}, []
    for split, members in splits.items():
        if not is_storable(split) or "/" in split or split in (".", ".."):
            raise InputError(
                f"split {split!r}: a split needs a name of plain text, without slashes"
            )
        twice = next((name for name, times in Counter(members).items() if times > 1), None)
        if twice is not None:
            raise InputError(f"split {split!r} names clip {twice!r} twice")
        gone = [name for name in members if name not in row]
        if gone and not skip:
            raise InputError(
                f"split {split!r} names {len(gone)} of {len(members)} clips that are not in the "
                f"file, the first is {gone[0]!r}; type on_error=skip to go on without them"
            )
        absent += [
            Unusable(name, f"split {split!r} names it, but it is not there") for name in gone
        ]
        there = [row[name] for name in members if name in row]
        indices[split] = np.array(there, dtype=np.int64)
    return indices, absent


def _fill(
    path: Path,
    spool: Spool,
    skeleton: Skeleton,
    splits: Splits,
    class_names: Sequence[str] | None,
    source_hash: str,
    on_error: str,
) -> None:
    """Put the HDF5 file together."""
    table, kind = spool.columns, spool.format
    indices, absent = split_indices(table["name"], splits, skip=on_error == "skip")
    known = {one.name for one in spool.skipped}
    skipped = [*spool.skipped, *(one for one in absent if one.name not in known)]
    classes = class_names or [str(i) for i in range(max(table["label"]) + 1)]
    persons, frames = (np.array(table[key], dtype=np.int64) for key in ("persons", "frames"))
    rows = frames * persons
    shape = (int(rows.sum()), kind["joints"], kind["channels"])
    with h5py.File(path, "w") as file:
        _copy_rows(file, "keypoint", spool.folder, shape, np.dtype(kind["dtype"]))
        if kind["scored"]:
            _copy_rows(file, "score", spool.folder, shape[:2], np.dtype("<f2"))
        file["start"] = np.concatenate([[0], rows.cumsum()[:-1]])
        file["frames"], file["persons"] = frames.astype(np.int32), persons.astype(np.int32)
        file["label"] = np.array(table["label"], dtype=np.int32)
        file["name"] = np.array([name.encode() for name in table["name"]])
        file["digest"] = np.array(table["digest"], dtype=np.uint64)
        if kind["channels"] == 2:
            file["frame_size"] = np.array(table["frame_size"], dtype=np.int32)
        for key in ATTRIBUTES:
            if max(table[key]) >= 0:
                file[key] = np.array(table[key], dtype=np.int32)
        for split, members in indices.items():
            file[f"splits/{split}"] = members
        if skipped:
            texts = [(printable(one.name), printable(one.reason)) for one in skipped]
            file.create_dataset("skipped", data=texts, dtype=h5py.string_dtype())
        file.attrs.update(
            format_version=FORMAT_VERSION,
            written_by=f"maskclr_pl {__version__}",
            skeleton=json.dumps(skeleton.to_dict()),
            coordinates="pixels" if kind["channels"] == 2 else "metres",
            class_names=json.dumps(list(classes)),
            source_sha256=source_hash,
        )


def _copy_rows(
    file: h5py.File, name: str, folder: Path, shape: tuple[int, ...], dtype: np.dtype
) -> None:
    dataset = file.create_dataset(name, shape=shape, dtype=dtype)
    size = int(np.prod(shape[1:])) * dtype.itemsize
    with open(folder / name, "rb") as scratch:
        for begin in range(0, shape[0], _COPY_ROWS):
            count = min(_COPY_ROWS, shape[0] - begin)
            block = np.frombuffer(scratch.read(count * size), dtype=dtype)
            dataset[begin : begin + count] = block.reshape(count, *shape[1:])
