"""The store: one HDF5 file per data set, whatever the source format.

A row is one person in one frame. The rows of a recording are contiguous, person after person, so
that a clip is one slice. They are uncompressed, so that the file can be memory-mapped.
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from maskclr_pl.command_line import shell_command
from maskclr_pl.data.store.hdf5 import open_hdf5, read_attribute, read_dataset
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError
from maskclr_pl.visibility import DIMENSIONS, visible_joints

FORMAT_VERSION = 1
ATTRIBUTES = ("subject", "camera", "setup")
_LARGE = 2**31


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


def apply_scores(recording: Recording) -> Recording:
    """Set 3D joints without a score above 0 to zero, and drop the scores."""
    keypoint, score = recording.keypoint, recording.score
    if score is None or keypoint.shape[-1] != 3 or score.shape != keypoint.shape[:-1]:
        return recording
    found = visible_joints(keypoint, score)[..., None]
    keypoint = np.where(found, keypoint, keypoint.dtype.type(0))
    return replace(recording, keypoint=keypoint, score=None)


class Store:
    """Read access to a data set; opening reads metadata only.

    Rows are memory-mapped at the first access in each process, so that stores can be sent to
    workers of a data loader.

    Args:
        path: A file written by `prepare`.

    Raises:
        InputError: If the file is missing, damaged, not a store, or from a newer version.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not os.path.isfile(self.path):  # unlike Path.is_file, False for an impossible name
            raise InputError(
                f"{self.path}: no such file; create it with `{_prepare('FILE.pkl', self.path)}`"
            )
        with self._opened() as file:
            self._read_metadata(file)

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        """Open the file; any error while it is read becomes an InputError."""
        try:
            with open_hdf5(self.path) as file:
                yield file
        except InputError:
            raise
        except Exception as error:  # damaged files raise errors of many types
            pickled = self.path.suffix == ".pkl"
            line = _prepare(self.path if pickled else "FILE.pkl", self.path.with_suffix(".h5"))
            raise InputError(
                f"{self.path}: {'a pickle, not a store' if pickled else 'not a complete store'}; "
                f"create one with `{line}`"
            ) from error

    def _read_metadata(self, file: h5py.File) -> None:
        version = int(read_attribute(file, "format_version", -1))
        if version > FORMAT_VERSION:
            raise InputError(
                f"{self.path}: store format {version}, but this version reads formats up to "
                f"{FORMAT_VERSION}; update maskclr_pl or prepare the data again"
            )
        if version < 1:
            raise InputError(f"{self.path}: an HDF5 file, but not a store written by prepare")
        self.skeleton = Skeleton.from_dict(json.loads(read_attribute(file, "skeleton")))
        self.coordinates = str(read_attribute(file, "coordinates"))
        self.class_names = [_text(name) for name in json.loads(read_attribute(file, "class_names"))]
        self.source_hash = str(read_attribute(file, "source_sha256"))
        self._layout = {
            key: (file[key].id.get_offset(), file[key].shape, file[key].dtype)
            for key in ("keypoint", "score")
            if key in file
        }
        self._check_layout()
        rows = int(self._layout["keypoint"][1][0])
        clips = file["name"].shape[:1]
        self._name = read_dataset(file["name"], "S", clips)
        self.frames = _integers(file["frames"], clips, 1, rows + 1)
        self.persons = _integers(file["persons"], clips, 1, rows + 1)
        self.start = _integers(file["start"], clips, 0, rows)
        end = (self.frames * self.persons).cumsum()
        if end[-1] != rows or not np.array_equal(self.start[1:], end[:-1]) or self.start[0]:
            raise ValueError("recordings are not contiguous")
        self.label = _integers(file["label"], clips, 0, len(self.class_names))
        self.frame_size = None
        if self.coordinates == "pixels":
            self.frame_size = _integers(file["frame_size"], (*clips, 2), 1, _LARGE)
        self.subject, self.camera, self.setup = (
            _integers(file[key], clips, -1, _LARGE) if key in file else None for key in ATTRIBUTES
        )
        self.digest = read_dataset(file["digest"], "u", clips) if "digest" in file else None
        self.splits = {
            _text(split): _integers(indices, indices.shape[:1], 0, *clips)
            for split, indices in file.get("splits", {}).items()
        }

    def _check_layout(self) -> None:
        """Check shapes, dtypes, and completeness of the rows."""
        rows, joints = self._layout["keypoint"][1][0], len(self.skeleton)
        channels = DIMENSIONS[self.coordinates]
        shapes = {"keypoint": (rows, joints, channels), "score": (rows, joints)}
        for key, (offset, shape, dtype) in self._layout.items():
            if shape != shapes[key] or dtype.kind not in "fiu":
                raise ValueError(f"{key} is {shape} {dtype}")
            if self.path.stat().st_size < offset + math.prod(shape) * dtype.itemsize:
                raise InputError(f"{self.path}: the file is truncated; run prepare again")

    def __len__(self) -> int:
        return len(self.label)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_rows"}

    @property
    def channels(self) -> int:
        """Channels of a clip: always 3, (x, y, confidence) or (x, y, z)."""
        return 3

    @cached_property
    def _rows(self) -> dict[str, np.memmap]:
        return {
            key: np.memmap(self.path, dtype, "r", offset, shape)
            for key, (offset, shape, dtype) in self._layout.items()
        }

    def name(self, index: int) -> str:
        """Return the name of a recording."""
        return self._name[index].decode(errors="replace")

    def skipped(self) -> list[tuple[str, str]]:
        """Return (name, reason) of the recordings skipped by `prepare on_error=skip`."""
        with self._opened() as file:
            texts = read_dataset(file["skipped"], "O") if "skipped" in file else ()
            return [
                (name.decode(errors="replace"), reason.decode(errors="replace"))
                for name, reason in texts
            ]

    def rows(self, split: str) -> np.ndarray:
        """Return the indices of the recordings of a split.

        Raises:
            InputError: If there is no such split.
        """
        if split not in self.splits:
            available = ", ".join(self.splits) or "none"
            raise InputError(f"{self.path}: no split {split!r}; available splits: {available}")
        return self.splits[split]

    def recording(self, index: int) -> Recording:
        """Return a recording in its stored precision."""
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


def _prepare(source: str | Path, store: Path) -> str:
    """Format the command that creates a store, for the most frequent case."""
    return shell_command("prepare", "source=pyskl", input=source, output=store, skeleton="coco17")


def _text(name: Any) -> str:
    """Make a name printable."""
    return str(name).encode(errors="replace").decode()


def _integers(dataset: h5py.Dataset, shape: tuple[int, ...], first: int, end: int) -> np.ndarray:
    """Read integers in [first, end); raise ValueError for others."""
    table = read_dataset(dataset, "iu", shape)
    if not ((table >= first) & (table < end)).all():
        raise ValueError(f"{dataset.name} has values out of range")
    return table.astype(np.int64)
