"""The store: one HDF5 file a data set, whatever format it came in.

A row is one person in one frame. The rows of a recording stand together, person after person, so
that a clip is one slice; they are uncompressed, so that the file can be memory-mapped.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from maskclr_pl import __version__
from maskclr_pl.skeletons import Skeleton
from maskclr_pl.types import InputError

FORMAT_VERSION = 1
_COPY_ROWS = 1 << 18
_ATTRIBUTES = ("subject", "camera", "setup")


@dataclass(frozen=True)
class Recording:
    """One stored sequence, as a source yields it.

    Args:
        name: Unique name.
        label: Class, 0-based.
        keypoint: (M, T, V, C); C = 2 is (x, y) in pixels, C = 3 is (x, y, z) in metres.
        score: (M, T, V) confidence, 0 for a joint that was not detected; None where the source has
            none.
        frame_size: (height, width) of the video in pixels; None for metres.
        subject: Id of the person, -1 if unknown. Likewise `camera` and `setup`.
    """

    name: str
    label: int
    keypoint: np.ndarray
    score: np.ndarray | None = None
    frame_size: tuple[int, int] | None = None
    subject: int = -1
    camera: int = -1
    setup: int = -1


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
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
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
        partial.unlink(missing_ok=True)
    return Store(path)


def _spool(
    recordings: Iterable[Recording], skeleton: Skeleton, keypoints: BinaryIO, scores: BinaryIO
) -> dict[str, Any]:
    """Check the recordings and append their rows to the two scratch files."""
    table: dict[str, Any] = {
        key: [] for key in ("name", "label", "frames", "persons", "frame_size", *_ATTRIBUTES)
    }
    first: Recording | None = None
    seen: set[str] = set()
    for recording in recordings:
        check_recording(recording, skeleton)
        first = first or recording
        channels, scored = recording.keypoint.shape[3], recording.score is not None
        if channels != first.keypoint.shape[3] or scored != (first.score is not None):
            raise InputError(
                f"clip {recording.name!r}: it has {channels} channels and "
                f"{'a' if scored else 'no'} score, unlike clip {first.name!r}"
            )
        if recording.name in seen:
            raise InputError(f"clip {recording.name!r} occurs twice; names must be unique")
        seen.add(recording.name)
        keypoints.write(
            np.ascontiguousarray(recording.keypoint, dtype=first.keypoint.dtype.newbyteorder("<"))
        )
        if recording.score is not None:
            scores.write(np.ascontiguousarray(recording.score, dtype="<f2"))
        table["frames"].append(recording.keypoint.shape[1])
        table["persons"].append(recording.keypoint.shape[0])
        table["frame_size"].append(recording.frame_size or (0, 0))
        for key in ("name", "label", *_ATTRIBUTES):
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
            f"clip {clip!r}: its label {highest} is out of range, there are {len(names)} class names"
        )
    return names


def _split_indices(
    table: Mapping[str, Any], splits: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    row = {name: i for i, name in enumerate(table["name"])}
    indices = {}
    for split, names in splits.items():
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
    rows = frames.astype(np.int64) * persons
    joints = table["joints"]
    _copy_rows(file, "keypoint", keypoints, (rows.sum(), joints, table["channels"]), table["dtype"])
    if table["scored"]:
        _copy_rows(file, "score", scores, (rows.sum(), joints), np.dtype("<f2"))
    file["start"] = np.concatenate([[0], rows.cumsum()[:-1]])
    file["frames"] = frames.astype(np.int32)
    file["persons"] = persons.astype(np.int16)
    file["label"] = np.array(table["label"], dtype=np.int32)
    file["name"] = np.array([name.encode() for name in table["name"]])
    if table["channels"] == 2:
        file["frame_size"] = np.array(table["frame_size"], dtype=np.int32)
    for key in _ATTRIBUTES:
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


class Store:
    """Read access to a data set; opening reads metadata only.

    The rows are memory-mapped at the first access in each process, so an object of this class may
    be sent to the workers of a data loader.

    Args:
        path: A file written by `prepare`.

    Raises:
        InputError: If the file is missing, is not a store, is damaged or comes from a newer version.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(
                f"{self.path}: no such file; make it with `python -m maskclr_pl.prepare "
                f"source=pyskl input=FILE.pkl output={self.path} skeleton=coco17`"
            )
        try:
            with h5py.File(self.path, "r") as file:
                self._read_metadata(file)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path}: not a complete store ({str(error).splitlines()[0]}); make it again "
                "with `python -m maskclr_pl.prepare`"
            ) from error

    def _read_metadata(self, file: h5py.File) -> None:
        version = int(file.attrs.get("format_version", -1))
        if version > FORMAT_VERSION:
            raise InputError(
                f"{self.path}: written in store format {version}, this version reads up to "
                f"{FORMAT_VERSION}; update maskclr_pl or prepare the data again"
            )
        if version < 1:
            raise InputError(f"{self.path}: an HDF5 file, but not a store written by prepare")
        self.skeleton = Skeleton.from_dict(json.loads(file.attrs["skeleton"]))
        self.coordinates = str(file.attrs["coordinates"])
        self.class_names: list[str] = json.loads(file.attrs["class_names"])
        self.source_hash = str(file.attrs["source_sha256"])
        self.start = file["start"][:]
        self.frames = file["frames"][:]
        self.persons = file["persons"][:]
        self.label = file["label"][:]
        self._name = file["name"][:]
        self.frame_size = file["frame_size"][:] if "frame_size" in file else None
        self.subject, self.camera, self.setup = (
            file[key][:] if key in file else None for key in _ATTRIBUTES
        )
        self.splits = {split: indices[:] for split, indices in file.get("splits", {}).items()}
        self._layout = {
            key: (file[key].id.get_offset(), file[key].shape, file[key].dtype)
            for key in ("keypoint", "score")
            if key in file
        }
        rows = int(self.start[-1]) + int(self.frames[-1]) * int(self.persons[-1])
        offset, shape, dtype = self._layout["keypoint"]
        if shape[0] != rows or self.path.stat().st_size < offset + np.prod(shape) * dtype.itemsize:
            raise InputError(f"{self.path}: the file is cut short; make it again with prepare")

    def __len__(self) -> int:
        return len(self.label)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_rows"}

    @property
    def channels(self) -> int:
        """Channels of a clip: 3 in either case, (x, y, confidence) or (x, y, z)."""
        return 3

    @cached_property
    def _rows(self) -> dict[str, np.memmap]:
        return {
            key: np.memmap(self.path, dtype, "r", offset, shape)
            for key, (offset, shape, dtype) in self._layout.items()
        }

    def name(self, index: int) -> str:
        """Name of a recording."""
        return self._name[index].decode()

    def rows(self, split: str) -> np.ndarray:
        """Indices of the recordings of a split.

        Raises:
            InputError: If there is no such split.
        """
        if split not in self.splits:
            raise InputError(
                f"{self.path}: no split {split!r}; it has: {', '.join(self.splits) or 'none'}"
            )
        return self.splits[split]

    def recording(self, index: int) -> Recording:
        """A recording in the precision it was stored in."""
        frames, persons = int(self.frames[index]), int(self.persons[index])
        rows = slice(int(self.start[index]), int(self.start[index]) + frames * persons)
        keypoint, score = self._rows["keypoint"], self._rows.get("score")
        shape = (persons, frames, *keypoint.shape[1:])
        size = None if self.frame_size is None else tuple(map(int, self.frame_size[index]))
        return Recording(
            self.name(index),
            int(self.label[index]),
            np.asarray(keypoint[rows]).reshape(shape),
            None if score is None else np.asarray(score[rows]).reshape(shape[:3]),
            size,  # type: ignore[arg-type]  # two numbers by construction
            *(
                -1 if ids is None else int(ids[index])
                for ids in (self.subject, self.camera, self.setup)
            ),
        )


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
