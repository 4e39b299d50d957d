"""Files and folders of pose estimators: which persons were found in which frame of a video."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskclr_pl.reading import check_no_device, read_json
from maskclr_pl.sources.poses.formats import (
    IMAGE,
    Frames,
    image_size,
    parse_frames,
    parse_pose,
    parse_track_id,
)
from maskclr_pl.types import InputError

MAX_PERSONS = 32
"""Persons that are kept in a frame, those with the highest summed scores."""
LONGEST = 200_000
"""Frames that a video may have: nearly two hours at 30 a second."""
_ENDINGS = re.compile(
    r"(\.(json|predictions|openpifpaf|pifpaf|mp4|avi|mov|mkv|webm|mpe?g))+$", re.IGNORECASE
)
_TAILS = re.compile(r"(_keypoints|\.predictions|\.openpifpaf|\.pifpaf|\.json)+$", re.IGNORECASE)


class Detections(NamedTuple):
    """The persons of one video, sorted by frame."""

    frame: np.ndarray
    """(R,) int64 frame number of each person."""
    pose: np.ndarray
    """(R, V, 3) float64 x, y and score as the file has them; NaN and infinity may occur."""
    identity: np.ndarray
    """(R,) int64 track number that the file gives, -1 for none."""
    first: int
    """Number of the first frame, and `end` that of the last one + 1."""
    end: int
    frame_size: tuple[int, int] | None
    """(height, width) if the file says."""


def read_detections(path: str | Path) -> Detections:
    """Read the poses of one video: a file, or a folder with a file for each image.

    Raises:
        InputError: If there is no such file, its content is none of the known formats, or it holds
            several videos.
    """
    path = Path(path)
    files = _files(path) if path.is_dir() else [path]
    if len(files) > 1:
        frames, size = _images(files), None
    else:
        content = _load(files[0])
        with _named(files[0]):
            frames, size = parse_frames(content), image_size(content)
    with _named(path):
        return _collect(_numbered(frames), size)


def is_single_image(path: Path) -> bool:
    """Whether a .json file is about one image, so that a folder of such files is a video."""
    try:
        found = parse_frames(_load(path))
    except InputError:  # said again, with advice, when the file is read
        return False
    return len(found) == 1


@contextmanager
def _named(path: Path | str) -> Iterator[None]:
    """Complaints with the name of the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def clip_name(clip: str) -> str:
    """Name of a clip from that of a file, a folder or the video."""
    name = clip.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return _ENDINGS.sub("", name)


def frame_number(name: Any) -> int:
    """The number of an image: the last digits of its name.

    Raises:
        InputError: If there are none.
    """
    if isinstance(name, str):
        # an absurd number of digits is cut to one that is refused as absurd
        digits = re.findall("[0-9]+", IMAGE.sub("", _TAILS.sub("", name)))
        number = int(digits[-1][-16:]) if digits else -1
    elif isinstance(name, int | float) and name == name and abs(name) < 2**53:
        number = int(name)
    else:
        number = -1
    if number < 0:
        raise InputError(f"image {str(name)[:60]!r} has no frame number in its name")
    return number


def _files(folder: Path) -> list[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".json")
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    if not paths:
        raise InputError(f"{folder}: no .json files in this folder")
    return paths


def _images(paths: Sequence[Path]) -> Frames:
    """One image a file, under the name of the file."""
    frames: Frames = []
    for path in paths:
        content = _load(path)
        with _named(path):
            found = parse_frames(content)
            if len(found) != 1:
                raise InputError(
                    f"{len(found)} frames in one of {len(paths)} .json files; expected a file for "
                    "each image, or a single file for the video"
                )
        frames.append((path.name, found[0][1]))
    return frames


def _load(path: Path) -> Any:
    """JSON, or JSON lines as a list."""
    check_no_device(path)
    try:
        return read_json(path)
    except InputError:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            found = [json.loads(line) for line in lines if line.strip()]
        except (OSError, ValueError, RecursionError):
            found = []
        if found and all(isinstance(line, dict) for line in found):
            return found
        raise


def _numbered(frames: Frames) -> dict[int, list[Any]]:
    """The persons of each frame by its number; all the numbers are different."""
    if len(frames) == 1 and not isinstance(frames[0][0], int):
        return {0: frames[0][1]}
    numbered: dict[int, list[Any]] = {}
    names: dict[int, Any] = {}
    for name, persons in frames:
        number = frame_number(name)
        if number in names:
            raise InputError(
                f"images {str(names[number])[:60]!r} and {str(name)[:60]!r} have the same frame "
                f"number {number}; expected the images of one video"
            )
        numbered[number], names[number] = persons, name
    return numbered


def _collect(frames: dict[int, list[Any]], size: tuple[int, int] | None) -> Detections:
    numbers: list[int] = []
    poses: list[np.ndarray] = []
    identities: list[int] = []
    for number in sorted(frames):
        for pose, identity in _poses(frames[number], number):
            if poses and len(pose) != len(poses[0]):
                raise InputError(
                    f"{len(poses[0])} joints in frame {numbers[0]}, but {len(pose)} in frame "
                    f"{number}; expected one joint layout"
                )
            numbers.append(number)
            poses.append(pose)
            identities.append(identity)
    if not poses:
        raise InputError(f"no person in any of its {len(frames)} frames")
    first, end = min(frames), max(frames) + 1
    if end - first > LONGEST:
        raise InputError(
            f"frame numbers from {first} to {end - 1}, expected at most {LONGEST} frames; cut the "
            "video, or correct the names of the images"
        )
    return Detections(np.array(numbers), np.stack(poses), np.array(identities), first, end, size)


def _poses(persons: Sequence[Any], frame: int) -> Iterator[tuple[np.ndarray, int]]:
    found = []
    for person in persons:
        try:
            pose = parse_pose(person)
        except InputError as error:
            raise InputError(f"frame {frame}: {error}") from None
        if pose.size:
            found.append((pose, parse_track_id(person)))
    if len(found) > MAX_PERSONS:
        # which of them are best is asked of scores that may be anything
        total = [np.nan_to_num(pose[:, 2]).clip(0, 1).sum() for pose, _ in found]
        best = np.sort(np.argsort(-np.array(total), kind="stable")[:MAX_PERSONS])
        found = [found[i] for i in best]
    yield from found
