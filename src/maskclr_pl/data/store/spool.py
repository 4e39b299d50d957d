"""Scratch files of a store being written, which survive interruptions."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.data.store.reader import ATTRIBUTES, Recording
from maskclr_pl.files import lock_file
from maskclr_pl.types import InputError

COLUMNS = ("name", "label", "frames", "persons", "frame_size", "digest", *ATTRIBUTES)
_FORMAT = ("dtype", "joints", "channels", "scored")


@dataclass(frozen=True)
class SkippedRecording:
    """A recording that cannot be stored, and the reason."""

    name: str
    reason: str


class Spool:
    """Folder with the rows written so far, and a journal with one line per recording.

    Rows are appended as they arrive; the store is written at the end because HDF5 needs to know
    their number. After an interruption, recordings with complete rows are reused if source and
    conversion are the same.

    Args:
        folder: Created if it does not exist.
        key: Identifies source and conversion. A folder with another key is emptied.
        skips: Reuse skipped recordings, too; otherwise only the recordings before the first one.

    Raises:
        InputError: If another process writes to the folder.
    """

    def __init__(self, folder: Path, key: str, skips: bool = True):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.columns: dict[str, list[Any]] = {column: [] for column in COLUMNS}
        self.skipped: list[SkippedRecording] = []
        self.format: dict[str, Any] = {}
        """dtype, joints, channels, and scored of all recordings; empty before the first."""
        self._seen: set[str] = set()
        self._table, self._keypoint, self._score = (
            open(folder / name, "ab+")  # noqa: SIM115  # closed by close()
            for name in ("table", "keypoint", "score")
        )
        busy = f"{folder}: another command is writing there; wait for it, or pass another output="
        try:
            lock_file(self._table, busy)
        except InputError:
            self.close()
            raise
        self._restore(key, skips)

    def __len__(self) -> int:
        """Count the recordings stored or skipped."""
        return len(self.columns["name"]) + len(self.skipped)

    def flush(self) -> None:
        """Flush all buffers."""
        for file in (self._table, self._keypoint, self._score):
            file.flush()

    def close(self) -> None:
        """Flush all buffers and release the lock."""
        for file in (self._table, self._keypoint, self._score):
            file.close()

    def add(self, recording: Recording) -> None:
        """Append a checked recording.

        Raises:
            InputError: If its name repeats, or its format differs from that of the first.
        """
        keypoint, score, name = recording.keypoint, recording.score, recording.name
        if name in self._seen:
            raise InputError(f"clip {name!r} occurs twice; names must be unique")
        kind = {
            "dtype": keypoint.dtype.newbyteorder("<").str,
            "joints": keypoint.shape[2],
            "channels": keypoint.shape[3],
            "scored": score is not None,
        }
        self._check_format(name, kind)
        rows = np.ascontiguousarray(keypoint, dtype=kind["dtype"])
        self._keypoint.write(rows.data)
        if score is not None:
            self._score.write(np.ascontiguousarray(score, dtype="<f2").data)
        line = {
            "name": name,
            "label": recording.label,
            "frames": keypoint.shape[1],
            "persons": keypoint.shape[0],
            "frame_size": recording.frame_size or (0, 0),
            "digest": _digest(rows, score),
            **{key: getattr(recording, key) for key in ATTRIBUTES},
        }
        self._write(line | kind)
        self._append(line, kind)

    def skip(self, recording: SkippedRecording) -> None:
        """Record a recording that is left out."""
        self._write({"name": recording.name, "skipped": recording.reason})
        self.skipped.append(recording)

    def _write(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode()
        self._table.write(_checksum(data) + b" " + data + b"\n")

    def _check_format(self, name: str, kind: Mapping[str, Any]) -> None:
        if not self.format or self.format == kind:
            return
        first, old = self.columns["name"][0], self.format
        if kind["channels"] != old["channels"] or kind["scored"] != old["scored"]:
            scored = "scores" if kind["scored"] else "no scores"
            raise InputError(
                f"clip {name!r} has {kind['channels']} channels and {scored}, unlike clip {first!r}"
            )
        dtype, first_dtype = np.dtype(kind["dtype"]), np.dtype(old["dtype"])
        raise InputError(f"clip {name!r} has dtype {dtype}, clip {first!r} has {first_dtype}")

    def _append(self, line: Mapping[str, Any], kind: Mapping[str, Any]) -> None:
        self.format = dict(kind)
        self._seen.add(line["name"])
        for column in COLUMNS:
            self.columns[column].append(line[column])

    def _restore(self, key: str, skips: bool) -> None:
        """Reuse the journal lines whose rows are complete; without any, start over."""
        ends = {"keypoint": 0, "score": 0, "table": 0}
        sizes = {name: (self.folder / name).stat().st_size for name in ends}
        self._table.seek(0)
        header = json.dumps({"key": key}).encode() + b"\n"
        if key and self._table.readline() == header:
            ends["table"] = len(header)
            for raw in self._table:
                if not self._restore_line(raw, ends, sizes, skips):
                    break
        for name, file in zip(ends, (self._keypoint, self._score, self._table), strict=True):
            file.truncate(ends[name])
        if not ends["table"]:
            self._table.write(header)

    def _restore_line(
        self, raw: bytes, ends: dict[str, int], sizes: Mapping[str, int], skips: bool
    ) -> bool:
        checksum, _, data = raw.removesuffix(b"\n").partition(b" ")
        if not raw.endswith(b"\n") or checksum != _checksum(data):  # cut in the middle, or damaged
            return False
        line = json.loads(data)
        if "skipped" in line and not skips:
            return False
        if "skipped" in line:
            self.skipped.append(SkippedRecording(line["name"], line["skipped"]))
        else:
            kind = {part: line[part] for part in _FORMAT}
            joints = line["frames"] * line["persons"] * line["joints"]
            size = joints * line["channels"] * np.dtype(line["dtype"]).itemsize
            keypoint, score = ends["keypoint"] + size, ends["score"] + 2 * joints * line["scored"]
            if keypoint > sizes["keypoint"] or score > sizes["score"]:
                return False
            ends.update(keypoint=keypoint, score=score)
            self._append(line, kind)
        ends["table"] += len(raw)
        return True


def _checksum(data: bytes) -> bytes:
    return b"%08x" % zlib.crc32(data)


def _digest(rows: np.ndarray, score: np.ndarray | None) -> int:
    """Hash the poses; 0 without a visible person, since such recordings are no duplicates."""
    if score is not None and rows.shape[3] == 2:  # clips of metres have no scores
        visible: np.ndarray = score > 0
    else:
        visible = rows
    if not rows.any() or not visible.any():
        return 0
    content = hashlib.blake2b(rows.data, digest_size=8, salt=str(rows.shape[:2]).encode()[:16])
    return int.from_bytes(content.digest(), "little")
