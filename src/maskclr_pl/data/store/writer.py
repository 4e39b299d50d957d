"""Writing of stores: validate recordings, stream rows, rename the complete file into place."""

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
from maskclr_pl.data.store.checks import INVALID_NAME, check_recording, is_valid_name
from maskclr_pl.data.store.reader import ATTRIBUTES, FORMAT_VERSION, Recording, Store
from maskclr_pl.data.store.spool import SkippedRecording, Spool
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError, printable

Recordings = Iterable[Recording | SkippedRecording]
Splits = Mapping[str, Sequence[str]]
Columns = Mapping[str, Sequence[Any]]
"""Metadata of all recordings by column: name, label, subject, digest, ... (`spool.COLUMNS`)."""
_COPY_ROWS = 1 << 18


def write_store(
    path: str | Path,
    recordings: Recordings | Callable[[int], Recordings],
    *,
    skeleton: Skeleton,
    splits: Splits | Callable[[Columns], Splits],
    class_names: Sequence[str] | None = None,
    source_hash: str = "",
    on_error: Literal["stop", "skip"] = "stop",
    resume_key: str = "",
) -> Store:
    """Write recordings to a new store; memory use does not grow with their size.

    Rows are collected in a hidden folder beside the store, which appears under its name only when
    it is complete.

    Args:
        path: Store to write; replaced if it exists.
        recordings: Recordings of one kind; or, to resume, a function from the number of completed
            recordings to the remaining ones.
        skeleton: Joint layout of the recordings.
        splits: Split name -> names of recordings; or a function that returns it from the columns
            when all recordings are read.
        class_names: One name per class; by default the class numbers.
        source_hash: SHA-256 of the source, stored as an attribute.
        on_error: For an invalid recording, `stop` raises its error; `skip` omits it, and the store
            lists it with the reason (`Store.skipped`).
        resume_key: Identifies source and conversion. If given, progress is kept after any
            interruption except a full disk, and the next call with this key continues; otherwise
            nothing is left behind.

    Raises:
        InputError: If a recording is invalid (see `check_recording`), names repeat, a split names
            absent recordings, or the disk is full.
    """
    given, path = Path(path), Path(os.path.realpath(path))  # keeps a link to another disk
    new_folders = [folder for folder in path.parents if not os.path.exists(folder)]
    # without resuming, several processes may write at once: the last one wins
    suffix = "" if resume_key else f".{os.getpid()}"
    scratch = path.with_name(f".{path.name}{suffix}.partial")
    spool = _spool(scratch, resume_key, path, on_error)
    keep, collected = bool(resume_key), False
    try:
        with contextlib.closing(spool):  # locked until the store exists
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
            f"{error}; pass on_error=skip to skip it and continue from here"
        ) from error
    except OSError as error:
        keep = False
        raise InputError(f"{given}: cannot be written ({error.strerror or error})") from error
    finally:
        if not keep:
            _remove(scratch, path, new_folders)
    return Store(given)


def _spool(folder: Path, key: str, path: Path, on_error: str) -> Spool:
    try:
        return Spool(folder, key, skips=on_error == "skip")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _remove(scratch: Path, path: Path, new_folders: Sequence[Path]) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    if not path.exists():
        for folder in new_folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _collect(
    items: Recordings,
    spool: Spool,
    skeleton: Skeleton,
    class_names: Sequence[str] | None,
    on_error: str,
) -> None:
    """Validate recordings and append them to the spool."""
    classes = None if class_names is None else len(class_names)
    invalid = next((name for name in class_names or () if not is_valid_name(name)), None)
    if invalid is not None:
        raise InputError(f"class {invalid!r}: {INVALID_NAME}")
    for item in items:
        try:
            if isinstance(item, SkippedRecording):
                raise InputError(item.reason)
            check_recording(item, skeleton, classes)
            spool.add(item)
        except InputError as error:
            if on_error == "stop":
                raise
            spool.skip(SkippedRecording(item.name, str(error)))
    if not spool.format:
        if not spool.skipped:
            raise InputError("no recordings found in the source")
        raise InputError(
            f"all {len(spool.skipped)} recordings are invalid; the first: {spool.skipped[0].reason}"
        )


def split_indices(
    names: Sequence[str], splits: Mapping[str, Sequence[str]], skip: bool = False
) -> tuple[dict[str, np.ndarray], list[SkippedRecording]]:
    """Return the row indices of each split, and the recordings that do not exist.

    Raises:
        InputError: If a split has an invalid name, names a recording twice, or, unless `skip`,
            names one that does not exist.
    """
    row = {name: i for i, name in enumerate(names)}
    indices, absent = {}, []
    for split, members in splits.items():
        if not is_valid_name(split) or "/" in split or split in (".", ".."):
            raise InputError(f"split {split!r}: split names must be plain text without slashes")
        repeated = next((name for name, n in Counter(members).items() if n > 1), None)
        if repeated is not None:
            raise InputError(f"split {split!r} names clip {repeated!r} twice")
        missing = [name for name in members if name not in row]
        if missing and not skip:
            raise InputError(
                f"split {split!r}: {len(missing)} of {len(members)} clips are not in the file, for "
                f"example {missing[0]!r}; pass on_error=skip to continue without them"
            )
        absent += [
            SkippedRecording(name, f"listed in split {split!r} but not in the file")
            for name in missing
        ]
        existing = [row[name] for name in members if name in row]
        indices[split] = np.array(existing, dtype=np.int64)
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
    """Write the HDF5 file from the spool."""
    table, kind = spool.columns, spool.format
    indices, absent = split_indices(table["name"], splits, skip=on_error == "skip")
    reported = {recording.name for recording in spool.skipped}
    skipped = [*spool.skipped, *(r for r in absent if r.name not in reported)]
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
            reasons = [(printable(r.name), printable(r.reason)) for r in skipped]
            file.create_dataset("skipped", data=reasons, dtype=h5py.string_dtype())
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
