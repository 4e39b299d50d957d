"""Files and folders of pose estimators: the persons detected in each frame of a video."""

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
    coco_image_size,
    parse_frames,
    parse_pose,
    parse_track_id,
)
from maskclr_pl.types import InputError

MAX_PERSONS = 32
"""Persons kept in a frame, those with the highest summed scores."""
MAX_FRAMES = 200_000
"""Most frames of a video: nearly two hours at 30 per second."""
_EXTENSIONS = re.compile(
    r"(\.(json|predictions|openpifpaf|pifpaf|mp4|avi|mov|mkv|webm|mpe?g))+$", re.IGNORECASE
)
_SUFFIXES = re.compile(r"(_keypoints|\.predictions|\.openpifpaf|\.pifpaf|\.json)+$", re.IGNORECASE)


class Detections(NamedTuple):
    """The persons detected in one video, sorted by frame."""

    frame: np.ndarray
    """(R,) int64 frame number of each person."""
    pose: np.ndarray
    """(R, V, 3) float64 x, y and score from the file; may contain NaN and infinity."""
    identity: np.ndarray
    """(R,) int64 track id from the file, -1 for none."""
    first: int
    """Number of the first frame."""
    end: int
    """Number of the last frame + 1."""
    frame_size: tuple[int, int] | None
    """(height, width) in pixels if the file contains it."""


def read_detections(path: str | Path) -> Detections:
    """Read the poses of one video: a file, or a folder with a file for each image.

    Raises:
        InputError: If the path is missing, has no known format, or contains several videos.
    """
    path = Path(path)
    files = _json_files(path) if path.is_dir() else [path]
    if len(files) > 1:
        frames, size = _read_images(files), None
    else:
        content = _load(files[0])
        with _file_in_errors(files[0]):
            frames, size = parse_frames(content), coco_image_size(content)
    with _file_in_errors(path):
        return _collect(_by_number(frames), size)


def is_single_image(path: Path) -> bool:
    """Check if a .json file describes one image, so that a folder of such files is a video."""
    try:
        return len(parse_frames(_load(path))) == 1
    except InputError:  # raised again, with advice, when the file is read
        return False


@contextmanager
def _file_in_errors(path: Path) -> Iterator[None]:
    """Prefix errors with the name of the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def clip_name(path: str) -> str:
    """Return the name of a clip: that of a file, folder or video without its extensions."""
    name = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return _EXTENSIONS.sub("", name)


def frame_number(name: Any) -> int:
    """Return the number of an image: the last digits of its name.

    Raises:
        InputError: If there are none.
    """
    number = -1
    if isinstance(name, str):
        digits = re.findall("[0-9]+", IMAGE.sub("", _SUFFIXES.sub("", name)))
        # longer numbers are cut, and refused later as too many frames
        number = int(digits[-1][-16:]) if digits else -1
    elif isinstance(name, int | float) and name == name and abs(name) < 2**53:
        number = int(name)
    if number < 0:
        raise InputError(f"image {str(name)[:60]!r} has no frame number in its name")
    return number


def _json_files(folder: Path) -> list[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".json")
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    if not paths:
        raise InputError(f"{folder}: no .json files in this folder")
    return paths


def _read_images(paths: Sequence[Path]) -> Frames:
    """Read one image per file, named after the file."""
    frames: Frames = []
    for path in paths:
        content = _load(path)
        with _file_in_errors(path):
            images = parse_frames(content)
            if len(images) != 1:
                raise InputError(
                    f"{len(images)} frames in one of {len(paths)} .json files; expected a file for "
                    "each image, or a single file for the video"
                )
        frames.append((path.name, images[0][1]))
    return frames


def _load(path: Path) -> Any:
    """Read JSON, or JSON lines as a list."""
    check_no_device(path)
    try:
        return read_json(path)
    except InputError:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            items = [json.loads(line) for line in lines if line.strip()]
        except (OSError, ValueError, RecursionError):
            items = []
        if items and all(isinstance(item, dict) for item in items):
            return items
        raise


def _by_number(frames: Frames) -> dict[int, list[Any]]:
    """Return the persons of each frame by its number, which must be unique."""
    if len(frames) == 1 and not isinstance(frames[0][0], int):
        return {0: frames[0][1]}
    persons_of: dict[int, list[Any]] = {}
    names: dict[int, Any] = {}
    for name, persons in frames:
        number = frame_number(name)
        if number in names:
            raise InputError(
                f"images {str(names[number])[:60]!r} and {str(name)[:60]!r} have the same frame "
                f"number {number}; expected the images of one video"
            )
        persons_of[number], names[number] = persons, name
    return persons_of


def _collect(frames: dict[int, list[Any]], size: tuple[int, int] | None) -> Detections:
    numbers: list[int] = []
    poses: list[np.ndarray] = []
    identities: list[int] = []
    for number in sorted(frames):
        for pose, identity in _best_poses(frames[number], number):
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
    if end - first > MAX_FRAMES:
        raise InputError(
            f"frame numbers from {first} to {end - 1}, expected at most {MAX_FRAMES} frames; cut "
            "the video, or correct the names of the images"
        )
    return Detections(np.array(numbers), np.stack(poses), np.array(identities), first, end, size)


def _best_poses(persons: Sequence[Any], frame: int) -> list[tuple[np.ndarray, int]]:
    """Return pose and track id of at most `MAX_PERSONS` persons, in the order of the file."""
    with_joints = []
    for person in persons:
        try:
            pose = parse_pose(person)
        except InputError as error:
            raise InputError(f"frame {frame}: {error}") from None
        if pose.size:
            with_joints.append((pose, parse_track_id(person)))
    if len(with_joints) <= MAX_PERSONS:
        return with_joints
    # scores may be NaN or arbitrarily large
    total = [np.nan_to_num(pose[:, 2]).clip(0, 1).sum() for pose, _ in with_joints]
    best = np.sort(np.argsort(-np.array(total), kind="stable")[:MAX_PERSONS])
    return [with_joints[i] for i in best]
