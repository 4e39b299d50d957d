"""CSV tables of poses: a row for each person in each frame, of one video or several.

A joint has the columns `NAME_x`, `NAME_y` and, if there are scores, `NAME_score` (or `_s`, `_c`,
`_conf`, `_confidence`, `_likelihood`, `_visibility`). `frame` is the number of the frame or the
name of its image; without it every row is the next frame. `video` and `person` are needed if there
are several. Other columns, such as labels, are ignored.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskclr_pl.reading import check_no_device
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.sources.poses.files import (
    MAX_FRAMES,
    MAX_PERSONS,
    Detections,
    clip_name,
    frame_number,
)
from maskclr_pl.sources.poses.labels import open_csv
from maskclr_pl.types import InputError

_JOINT_COLUMN = re.compile(
    r"(.+?)[_. ]?(x|y|s|c|score|conf|confidence|likelihood|visibility)", re.IGNORECASE
)
_MAX_CELL = 500  # characters; an array of strings is as wide as its widest
_VIDEO = ("video", "clip", "file", "filename")
_FRAME = ("frame", "frame_id", "frame_index", "image", "image_id")
_PERSON = ("person", "person_id", "track", "track_id", "id")


class PoseTable(NamedTuple):
    """The rows of a file, in its order."""

    video: np.ndarray
    """(R,) name of the video; "" without such a column."""
    frame: np.ndarray
    """(R,) int64."""
    person: np.ndarray
    """(R,) int64 track id, -1 for none."""
    pose: np.ndarray
    """(R, V, 3) x, y, score; NaN for an empty cell, score 0 without scores."""
    joints: tuple[str, ...]
    """Names of the joints as in our layouts."""


def is_table(path: str | Path) -> bool:
    """Check if a file is a table, by its extension."""
    return Path(path).suffix.lower() in (".csv", ".tsv")


def read_video_names(path: str | Path) -> list[str]:
    """Return the names of the videos in a table, in its order; [""] without such a column."""
    return list(dict.fromkeys(_read_table(path).video.tolist()))


def read_table(path: str | Path, video: str | None = None) -> tuple[Detections, Skeleton | None]:
    """Read the persons of one video of a table.

    Args:
        path: CSV file.
        video: Name of the video, where there are several.

    Returns:
        The detections, and the joint layout: those joints of a named layout that the table has, in
        its order; None if they are of none.

    Raises:
        InputError: If the table is malformed, or does not contain that video.
    """
    table = _read_table(path)
    names = read_video_names(path)
    if video is None and len(names) > 1:
        raise InputError(f"{path}: {len(names)} videos in one table, expected one")
    if video is not None and video not in names:
        raise InputError(f"{path}: no video {video[:60]!r} in this table")
    rows = np.flatnonzero(table.video == (names[0] if video is None else video))
    rows = rows[np.argsort(table.frame[rows], kind="stable")]
    frame = table.frame[rows]
    most = int(np.unique(frame, return_counts=True)[1].max())
    if most > MAX_PERSONS:
        raise InputError(
            f"{path}: {most} rows for one frame, expected a row for each of at most {MAX_PERSONS} "
            "persons; is a column `video` missing?"
        )
    first, end = int(frame[0]), int(frame[-1]) + 1
    if end - first > MAX_FRAMES:
        raise InputError(f"{path}: frames from {first} to {end - 1}, expected at most {MAX_FRAMES}")
    detections = Detections(frame, table.pose[rows], table.person[rows], first, end, None)
    return detections, _find_layout(table.joints)


def _find_layout(joints: tuple[str, ...]) -> Skeleton | None:
    """Return the part of a named layout with these joints, each below its nearest ancestor."""
    for name, layout in SKELETONS.items():
        if not set(joints) <= set(layout.joints):
            continue
        parents = []
        for joint in joints:
            node = layout.parents[layout.joints.index(joint)]
            while node >= 0 and layout.joints[node] not in joints:
                node = layout.parents[node]
            parents.append(joints.index(layout.joints[node]) if node >= 0 else -1)
        name = name if joints == layout.joints else f"{len(joints)} joints of {name}"
        return Skeleton(name, joints, tuple(parents))
    return None


def _read_table(path: str | Path) -> PoseTable:
    path = Path(path)
    check_no_device(path)
    try:
        modified = path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return _parse_table(path, modified)


@lru_cache(maxsize=1)  # the videos of a table are read one after the other
def _parse_table(path: Path, modified: int) -> PoseTable:
    try:
        header, *rows = [row for row in open_csv(path) if row]
    except InputError:
        raise
    except (csv.Error, ValueError) as error:
        raise InputError(f"{path}: not a table of poses ({error})") from None
    columns = {name.strip().lower(): i for i, name in enumerate(header)}
    joints = _find_joints(path, [name.strip() for name in header])
    ragged = next((i for i, row in enumerate(rows, 2) if len(row) != len(header)), None)
    if ragged is not None:
        raise InputError(
            f"{path}, row {ragged}: expected {len(header)} cells, as in the first line"
        )
    if any(len(cell) > _MAX_CELL for row in rows for cell in row):
        raise InputError(f"{path}: a cell with more than {_MAX_CELL} characters")
    if not rows:
        raise InputError(f"{path}: no rows below the column names")
    cells = np.array(rows)
    pose = np.zeros((len(rows), len(joints), 3))
    for joint, channels in enumerate(joints.values()):
        for channel, column in enumerate(channels):
            pose[:, joint, channel] = _to_floats(path, header[column], cells[:, column])
    numbers = [str(i) for i in range(len(rows))]
    videos = _find_column(cells, columns, _VIDEO, [""] * len(rows))
    try:
        frame = np.array([frame_number(c) for c in _find_column(cells, columns, _FRAME, numbers)])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return PoseTable(
        np.array([clip_name(name) for name in videos]),
        frame,
        _to_track_ids(_find_column(cells, columns, _PERSON, ["-1"] * len(rows))),
        pose,
        tuple(joints),
    )


def _find_column(
    cells: np.ndarray, columns: Mapping[str, int], names: Sequence[str], default: list[str]
) -> list[str]:
    """Return the cells of the first column with one of these names, else the default."""
    index = next((columns[name] for name in names if name in columns), None)
    return default if index is None else [str(cell).strip() for cell in cells[:, index]]


def _find_joints(path: Path, header: Sequence[str]) -> dict[str, list[int]]:
    """Return the columns of x, y and, if present, score of each joint, in the order of the file."""
    reserved = {*_VIDEO, *_FRAME, *_PERSON, "box", "bbox"}
    channels: dict[str, dict[str, int]] = {}
    for i, name in enumerate(header):
        match = _JOINT_COLUMN.fullmatch(name)
        if match and not {name.lower(), match[1].lower()} & reserved:
            kind = match[2].lower()
            channels.setdefault(joint_name(match[1]), {})[kind if kind in "xy" else "score"] = i
    joints = {
        joint: [by_kind[kind] for kind in ("x", "y", "score") if kind in by_kind]
        for joint, by_kind in channels.items()
        if {"x", "y"} <= set(by_kind)
    }
    if not joints:
        names = ", ".join(repr(name) for name in header[:4])[:200]
        raise InputError(
            f"{path}: a table with the columns {names}; expected the poses of a video, with "
            "NAME_x, NAME_y and NAME_score for each joint"
        )
    return joints


def joint_name(name: str) -> str:
    """Return a joint name as in our layouts: `LShoulder`, `shoulder_l` -> `left_shoulder`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    parts = [part for part in re.split(r"[^a-z0-9]+", spaced.lower()) if part]
    sides = {"l": "left", "r": "right", "left": "left", "right": "right"}
    for position in (0, -1):
        if len(parts) > 1 and parts[position] in sides:
            parts.insert(0, sides[parts.pop(position)])
            break
    return "_".join(parts)


def _to_floats(path: Path, column: str, cells: np.ndarray) -> np.ndarray:
    try:
        return np.where(cells == "", "nan", cells).astype(np.float64)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: column {column[:60]!r}: {reason}") from None


def _to_track_ids(cells: Sequence[str]) -> np.ndarray:
    """Return numbers unchanged, and names by their alphabetical order."""
    if all(re.fullmatch(r"-?[0-9]{1,15}(\.0)?", cell) for cell in cells):
        return np.array([int(cell.removesuffix(".0")) for cell in cells])
    return np.unique(cells, return_inverse=True)[1]


def clip_paths(root: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Return the file or folder of each clip by its name; a table contains several.

    Raises:
        InputError: If two have the same name.
    """
    if is_table(root):
        return dict.fromkeys(read_video_names(root), root)
    clips: dict[str, Path] = {}
    for file in files:
        clip = file if file == root else root / file.relative_to(root).parts[0]
        name = clip_name(clip.name)
        if clips.setdefault(name, clip) != clip:
            raise InputError(f"{root}: {clips[name].name} and {clip.name} are both clip {name!r}")
    return clips
