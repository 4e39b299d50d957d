"""Tables of poses: a CSV file with a row for each person in each frame, of one video or several.

A joint has the columns `NAME_x`, `NAME_y` and, if there are scores, `NAME_score` (or `_s`, `_c`,
`_conf`, `_confidence`, `_likelihood`, `_visibility`). `frame` is the number of the frame or the
name of its image; without it every row is the next frame. `video` and `person` are there if there
are several. Other columns, such as labels, are ignored.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskclr_pl.reading import check_no_device
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.sources.poses.files import (
    LONGEST,
    MAX_PERSONS,
    Detections,
    clip_name,
    frame_number,
)
from maskclr_pl.types import InputError

_NUMBER = re.compile(
    r"(.+?)[_. ]?(x|y|s|c|score|conf|confidence|likelihood|visibility)", re.IGNORECASE
)
_LONGEST_CELL = 500  # characters; a table of texts is as wide as its widest
_VIDEO = ("video", "clip", "file", "filename")
_FRAME = ("frame", "frame_id", "frame_index", "image", "image_id")
_PERSON = ("person", "person_id", "track", "track_id", "id")


class Table(NamedTuple):
    """The rows of a file, in its order."""

    video: np.ndarray
    """(R,) name of the video; "" if there is no such column."""
    frame: np.ndarray
    """(R,) int64."""
    person: np.ndarray
    """(R,) int64 track number, -1 for none."""
    pose: np.ndarray
    """(R, V, 3) x, y, score; NaN for an empty cell, score 0 where there are no scores."""
    joints: tuple[str, ...]
    """Names of the joints as our layouts have them."""


def is_table(path: str | Path) -> bool:
    """Whether a file is to be read as a table."""
    return Path(path).suffix.lower() in (".csv", ".tsv")


def read_video_names(path: str | Path) -> list[str]:
    """Names of the videos that a table holds, in its order; [""] if it has no such column."""
    return list(dict.fromkeys(_table(path).video.tolist()))


def read_table(path: str | Path, video: str | None = None) -> tuple[Detections, Skeleton | None]:
    """The persons of one video of a table.

    Args:
        path: CSV file.
        video: Name of the video, where there are several.

    Returns:
        What was found, and the layout: the joints of a named layout that the table has, in its
        order; None if they are of none.

    Raises:
        InputError: If it is no such table, or does not hold that video.
    """
    table = _table(path)
    names = read_video_names(path)
    if video is None and len(names) > 1:
        raise InputError(f"{path}: {len(names)} videos in one table, expected one")
    if video is not None and video not in names:
        raise InputError(f"{path}: no video {video[:60]!r} in its table")
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
    if end - first > LONGEST:
        raise InputError(f"{path}: frames from {first} to {end - 1}, expected at most {LONGEST}")
    pose, person = table.pose[rows], table.person[rows]
    return Detections(frame, pose, person, first, end, None), _layout(table.joints)


def _layout(joints: tuple[str, ...]) -> Skeleton | None:
    """The part of a named layout that has these joints; each hangs on the nearest one left."""
    for name, whole in SKELETONS.items():
        if not set(joints) <= set(whole.joints):
            continue
        parents = []
        for joint in joints:
            node = whole.parents[whole.joints.index(joint)]
            while node >= 0 and whole.joints[node] not in joints:
                node = whole.parents[node]
            parents.append(joints.index(whole.joints[node]) if node >= 0 else -1)
        return Skeleton(
            name if joints == whole.joints else f"{len(joints)} joints of {name}",
            joints,
            tuple(parents),
        )
    return None


def _table(path: str | Path) -> Table:
    path = Path(path)
    check_no_device(path)
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return _parsed(path, changed)


@lru_cache(maxsize=1)  # the videos of a table are read one after the other
def _parsed(path: Path, changed: int) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.lstrip().partition("\n")[0].count)
        header, *rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as CSV UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (csv.Error, ValueError) as error:
        raise InputError(f"{path}: not a table of poses ({error})") from None
    columns = {name.strip().lower(): i for i, name in enumerate(header)}
    joints = _joints(path, [name.strip() for name in header])
    ragged = next((i for i, row in enumerate(rows, 2) if len(row) != len(header)), None)
    if ragged is not None:
        raise InputError(f"{path}, row {ragged}: not the {len(header)} cells of the first line")
    if any(len(cell) > _LONGEST_CELL for row in rows for cell in row):
        raise InputError(f"{path}: a cell with more than {_LONGEST_CELL} characters")
    if not rows:
        raise InputError(f"{path}: no rows under the names of its columns")
    cells = np.array(rows)
    pose = np.zeros((len(rows), len(joints), 3))
    for joint, numbers in enumerate(joints.values()):
        for channel, column in enumerate(numbers):
            pose[:, joint, channel] = _floats(path, header[column], cells[:, column])
    return Table(
        np.array([clip_name(name) for name in _column(cells, columns, _VIDEO, "")]),
        _frames(path, _column(cells, columns, _FRAME, None)),
        _persons(path, _column(cells, columns, _PERSON, "-1")),
        pose,
        tuple(joints),
    )


def _column(
    cells: np.ndarray, columns: Mapping[str, int], names: Sequence[str], default: str | None
) -> list[str]:
    """The cells of the column with one of these names; without one, the default or row numbers."""
    found = next((columns[name] for name in names if name in columns), None)
    if found is not None:
        return [str(cell).strip() for cell in cells[:, found]]
    return [str(i) if default is None else default for i in range(len(cells))]


def _joints(path: Path, header: Sequence[str]) -> dict[str, list[int]]:
    """Joint -> its columns of x, y and, if there is one, score; in the order of the file."""
    known = {*_VIDEO, *_FRAME, *_PERSON, "box", "bbox"}
    found: dict[str, dict[str, int]] = {}
    for i, name in enumerate(header):
        match = _NUMBER.fullmatch(name)
        if match and not {name.lower(), match[1].lower()} & known:
            kind = match[2].lower()
            found.setdefault(joint_name(match[1]), {})[kind if kind in "xy" else "score"] = i
    joints = {
        joint: [numbers[key] for key in ("x", "y", "score") if key in numbers]
        for joint, numbers in found.items()
        if {"x", "y"} <= set(numbers)
    }
    if not joints:
        shown = ", ".join(repr(name) for name in header[:4])[:200]
        raise InputError(
            f"{path}: a table with the columns {shown}; expected the poses of a video, with "
            "NAME_x, NAME_y and NAME_score for each joint"
        )
    return joints


def joint_name(name: str) -> str:
    """The name of a joint as our layouts have it: `LShoulder`, `shoulder_l` -> `left_shoulder`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    sides = {"l": "left", "r": "right", "left": "left", "right": "right"}
    for place in (0, -1):
        if len(words) > 1 and words[place] in sides:
            words.insert(0, sides[words.pop(place)])
            break
    return "_".join(words)


def _floats(path: Path, name: str, cells: np.ndarray) -> np.ndarray:
    try:
        return np.where(cells == "", "nan", cells).astype(np.float64)
    except ValueError as error:
        raise InputError(f"{path}: column {name[:60]!r}: {' '.join(str(error).split())}") from None


def _frames(path: Path, cells: Sequence[str]) -> np.ndarray:
    try:
        return np.array([frame_number(cell) for cell in cells])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _persons(path: Path, cells: Sequence[str]) -> np.ndarray:
    """Numbers of persons as they are; names in the order of the alphabet."""
    if all(re.fullmatch(r"-?[0-9]{1,15}(\.0)?", cell) for cell in cells):
        return np.array([int(cell.removesuffix(".0")) for cell in cells])
    return np.unique(cells, return_inverse=True)[1]


def clip_paths(root: Path, files: Sequence[Path]) -> dict[str, Path]:
    """The file or folder of each clip by its name without endings; a table has several.

    Raises:
        InputError: If two have the same name.
    """
    if is_table(root):
        return dict.fromkeys(read_video_names(root), root)
    clips: dict[str, Path] = {}
    for file in files:
        clip = file if file == root else root / file.relative_to(root).parts[0]
        other = clips.setdefault(clip_name(clip.name), clip)
        if other != clip:
            raise InputError(
                f"{root}: {other.name} and {clip.name} are both clip {clip_name(clip.name)!r}"
            )
    return clips
