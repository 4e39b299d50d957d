"""Writing a store: check every recording, stream the rows, appear under its name when complete."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from maskclr_pl import __version__
from maskclr_pl.data.store import ATTRIBUTES, FORMAT_VERSION, Recording, Store
from maskclr_pl.skeletons import Skeleton
from maskclr_pl.types import InputError

_COPY_ROWS = 1 << 18


def check_recording(recording: Recording, skeleton: Skeleton) -> None:
    """Raise an InputError that names the recording if it cannot be stored."""

    def fail(message: str) -> None:
        raise InputError(f"clip {recording.name!r}: {message}")

    keypoint, score = recording.keypoint, recording.score
    if not isinstance(keypoint, np.ndarray) or keypoint.dtype.kind not in "fiu":
        fail("its keypoints are not an array of numbers")
    if keypoint.ndim != 4 or keypoint.shape[3] not in (2, 3):
        fail(
            f"its keypoints have shape {keypoint.shape}, expected (persons, frames, joints, 2 or 3)"
        )
    if keypoint.shape[2] != len(skeleton):
        fail(
            f"it has {keypoint.shape[2]} joints, but skeleton {skeleton.name} has {len(skeleton)}; "
            "type the skeleton=... that the file was made with"
        )
    if 0 in keypoint.shape:
        fail(f"it is empty (shape {keypoint.shape})")
    if score is not None and score.shape != keypoint.shape[:3]:
        fail(f"its scores have shape {score.shape}, expected {keypoint.shape[:3]}")
    if score is not None and score.dtype.kind not in "fiub":
        fail("its scores are not an array of numbers")
    if score is not None and np.abs(score).max() > 65504:
        fail(f"its scores go up to {np.abs(score).max():g}, expected confidences")
    for what, values in (("coordinate", keypoint), ("score", score)):
        if values is not None and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))
            person, frame, joint = bad[0][:3]
            fail(
                f"{len(bad)} {what}s are NaN or infinite, the first at person {person}, frame "
                f"{frame}, joint {skeleton.joints[joint]}; set missing joints to 0 with score 0"
            )
    if not isinstance(recording.label, int) or recording.label < 0:
        fail(f"its label is {recording.label!r}, expected an integer from 0")
    if keypoint.shape[3] == 2 and recording.frame_size is None:
        fail("it has pixels but no image size; type frame_size=[HEIGHT,WIDTH]")


def write_store(
    path: str | Path,
    recordings: Iterable[Recording],
    *,
    skeleton: Skeleton,
    splits: Mapping[str, Sequence[str]],
    class_names: Sequence[str] | None = None,
    source_hash: str = "",
) -> "Store":
    """Write recordings to a new store; memory use does not grow with their number.

    The rows go to an anonymous temporary file first and the store appears under its name only when
    it is complete, so an interruption leaves nothing behind.

    Args:
        path: The store to write. It is replaced if it exists.
        recordings: What a source yields; all of the same dimension.
        skeleton: Joint layout of the recordings.
        splits: Split name -> names of recordings.
        class_names: One name per class; by default the class numbers.
        source_hash: SHA-256 of the source file, stored as an attribute.

    Raises:
        InputError: If a recording is unusable (see `check_recording`), names repeat, a split names
            absent recordings, a label has no class name, or the disk is full.
    """
    path = Path(path)
    made = [folder for folder in path.parents if not folder.exists()]
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryFile(dir=path.parent) as keypoints,
            tempfile.TemporaryFile(dir=path.parent) as scores,
        ):
            table = _spool(recordings, skeleton, keypoints, scores)
            names = _class_names(table, class_names)
            indices = _split_indices(table, splits)
            with h5py.File(partial, "w") as file:
                _fill(file, table, indices, keypoints, scores)
                file.attrs.update(
                    format_version=FORMAT_VERSION,
                    written_by=f"maskclr_pl {__version__}",
                    skeleton=json.dumps(skeleton.to_dict()),
                    coordinates="pixels" if table["channels"] == 2 else "metres",
                    class_names=json.dumps(list(names)),
                    source_sha256=source_hash,
                )
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
        if not path.exists():
            for folder in made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
    return Store(path)


def _spool(
    recordings: Iterable[Recording], skeleton: Skeleton, keypoints: BinaryIO, scores: BinaryIO
) -> dict[str, Any]:
    """Check the recordings and append their rows to the two scratch files."""
    table: dict[str, Any] = {
        key: [] for key in ("name", "label", "frames", "persons", "frame_size", *ATTRIBUTES)
    }
    first: Recording | None = None
    seen: set[str] = set()
    for recording in recordings:
        check_recording(recording, skeleton)
        first = first or recording
        if recording.keypoint.dtype != first.keypoint.dtype:
            raise InputError(
                f"clip {recording.name!r}: it is {recording.keypoint.dtype}, unlike clip "
                f"{first.name!r} ({first.keypoint.dtype})"
            )
        channels, scored = recording.keypoint.shape[3], recording.score is not None
        if channels != first.keypoint.shape[3] or scored != (first.score is not None):
            raise InputError(
                f"clip {recording.name!r}: it has {channels} channels and "
                f"{'a' if scored else 'no'} score, unlike clip {first.name!r}"
            )
        if recording.name in seen:
            raise InputError(f"clip {recording.name!r} occurs twice; names must be unique")
        seen.add(recording.name)
        stored = first.keypoint.dtype.newbyteorder("<")
        keypoints.write(np.ascontiguousarray(recording.keypoint, dtype=stored).data)
        if recording.score is not None:
            scores.write(np.ascontiguousarray(recording.score, dtype="<f2").data)
        table["frames"].append(recording.keypoint.shape[1])
        table["persons"].append(recording.keypoint.shape[0])
        table["frame_size"].append(recording.frame_size or (0, 0))
        for key in ("name", "label", *ATTRIBUTES):
            table[key].append(getattr(recording, key))
    if first is None:
        raise InputError("no recordings found in the source")
    table["dtype"] = first.keypoint.dtype.newbyteorder("<")
    table["joints"], table["channels"] = first.keypoint.shape[2:]
    table["scored"] = first.score is not None
    return table


def _class_names(table: Mapping[str, Any], names: Sequence[str] | None) -> Sequence[str]:
    highest = max(table["label"])
    if names is None:
        return [str(i) for i in range(highest + 1)]
    if highest >= len(names):
        clip = table["name"][table["label"].index(highest)]
        raise InputError(
            f"clip {clip!r}: its label {highest} is out of range of {len(names)} class names"
        )
    return names


def _split_indices(
    table: Mapping[str, Any], splits: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    row = {name: i for i, name in enumerate(table["name"])}
    indices = {}
    for split, names in splits.items():
        if not re.fullmatch(r"[^/]+", split) or split in (".", ".."):
            raise InputError(f"split {split!r}: a split needs a name without slashes")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"split {split!r} names clip {twice!r} twice")
        absent = [name for name in names if name not in row]
        if absent:
            raise InputError(
                f"split {split!r} names {len(absent)} of {len(names)} clips that are not in the "
                f"file, the first is {absent[0]!r}"
            )
        indices[split] = np.array([row[name] for name in names], dtype=np.int64)
    return indices


def _fill(
    file: h5py.File,
    table: Mapping[str, Any],
    splits: Mapping[str, np.ndarray],
    keypoints: BinaryIO,
    scores: BinaryIO,
) -> None:
    frames, persons = np.array(table["frames"]), np.array(table["persons"])
    total = int((frames.astype(np.int64) * persons).sum())
    rows = frames.astype(np.int64) * persons
    joints = table["joints"]
    _copy_rows(file, "keypoint", keypoints, (total, joints, table["channels"]), table["dtype"])
    if table["scored"]:
        _copy_rows(file, "score", scores, (total, joints), np.dtype("<f2"))
    file["start"] = np.concatenate([[0], rows.cumsum()[:-1]])
    file["frames"] = frames.astype(np.int32)
    file["persons"] = persons.astype(np.int16)
    file["label"] = np.array(table["label"], dtype=np.int32)
    file["name"] = np.array([name.encode() for name in table["name"]])
    if table["channels"] == 2:
        file["frame_size"] = np.array(table["frame_size"], dtype=np.int32)
    for key in ATTRIBUTES:
        if max(table[key]) >= 0:
            file[key] = np.array(table[key], dtype=np.int32)
    for split, indices in splits.items():
        file[f"splits/{split}"] = indices


def _copy_rows(
    file: h5py.File, name: str, scratch: BinaryIO, shape: tuple[int, ...], dtype: np.dtype
) -> None:
    dataset = file.create_dataset(name, shape=shape, dtype=dtype)
    scratch.seek(0)
    size = int(np.prod(shape[1:])) * dtype.itemsize
    for begin in range(0, shape[0], _COPY_ROWS):
        count = min(_COPY_ROWS, shape[0] - begin)
        block = np.frombuffer(scratch.read(count * size), dtype=dtype)
        dataset[begin : begin + count] = block.reshape(count, *shape[1:])


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
