"""Videos cut into what a model is asked about: windows of frames, and persons in them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from maskclr_pl.data.poses import PoseVideo
from maskclr_pl.data.sources.dividing import Span
from maskclr_pl.data.store import Recording


class Piece(NamedTuple):
    """Frames [start, end) of a video, with the persons that are asked about together."""

    recording: Recording
    start: int
    end: int
    persons: tuple[int, ...]
    """Their numbers in the video, one for each person of the recording."""
    seen: float
    """Share of the frames in which one of them is seen."""


def frames_of(poses: PoseVideo | Recording) -> tuple[int, int]:
    """The first frame of a video and the last one + 1; arrays count from 0."""
    if isinstance(poses, PoseVideo):
        return poses.first, poses.end
    return 0, poses.keypoint.shape[1]


def pieces(
    poses: PoseVideo | Recording,
    length: int | None,
    stride: int | None,
    per_person: bool,
    max_persons: int,
) -> Iterator[Piece]:
    """The pieces of a video, in the order of time; windows without anybody are left out.

    Args:
        poses: The video.
        length: Frames of a window; None for the whole video. The last window ends with the video.
        stride: Frames from one window to the next; by default half a window.
        per_person: Each person by itself, from the first to the last frame of the window in which
            that person is seen; otherwise all together, as a recording of a data set.
        max_persons: Persons in a window, those with the largest summed score. Arrays that are
            asked about as a whole keep all (clips take those seen best).
    """
    first, end = frames_of(poses)
    whole = Span(0, "", first, end)
    spans = [whole] if length is None else whole.windows(length, stride or max(1, length // 2))
    for span in spans:
        recording, persons = _take(poses, span.start, span.end, per_person, max_persons)
        visible: np.ndarray = _visible(recording).any(-1)  # (M, T)
        if not per_person and visible.any():
            there = visible.any(1)
            numbers = tuple(int(p) for p, seen in zip(persons, there, strict=True) if seen)
            yield Piece(recording, span.start, span.end, numbers, float(visible.any(0).mean()))
        for slot in np.flatnonzero(visible.any(1)) if per_person else ():
            frames = np.flatnonzero(visible[slot])
            low, high = int(frames[0]), int(frames[-1]) + 1
            one = _part(recording, slice(slot, slot + 1), slice(low, high))
            start, seen = span.start + low, len(frames) / (high - low)
            yield Piece(one, start, span.start + high, (int(persons[slot]),), seen)


def _take(
    poses: PoseVideo | Recording, start: int, end: int, per_person: bool, most: int
) -> tuple[Recording, np.ndarray]:
    """Frames [start, end) as a recording, and the numbers of its persons."""
    if isinstance(poses, PoseVideo):
        keypoint, score = poses.clip(start, end, most)
        recording = Recording("", 0, keypoint, score, poses.frame_size)
        return recording, poses.best_tracks(start, end, most)
    part = _part(poses, slice(None), slice(start, end))
    persons = np.arange(len(poses.keypoint))
    if not per_person or len(persons) <= most:
        return part, persons
    total = (_visible(part) if part.score is None else part.score).sum((1, 2), dtype=np.float64)
    best = np.argsort(-total, kind="stable")[:most]
    return _part(part, best, slice(None)), persons[best]


def _part(recording: Recording, persons: slice | np.ndarray, frames: slice) -> Recording:
    score = recording.score
    return Recording(
        recording.name,
        recording.label,
        recording.keypoint[persons, frames],
        None if score is None else score[persons, frames],
        recording.frame_size,
    )


def _visible(recording: Recording) -> np.ndarray:
    """(M, T, V) bool: which joints were found."""
    found: np.ndarray = (
        (recording.keypoint != 0).any(-1) if recording.score is None else recording.score > 0
    )
    return found


def found_share(poses: PoseVideo | Recording, below: float) -> tuple[float, float | None]:
    """How well the joints of the persons were found, over the frames in which each is seen.

    Args:
        poses: A video.
        below: Scores above 0 that are lower count as low.

    Returns:
        The share that was not found, and the share with a low score; None without scores.
    """
    if isinstance(poses, PoseVideo):
        score = poses.score  # a row is a person who is seen
    else:
        found = _visible(poses)
        rows: np.ndarray = found.any(-1)
        score = (found if poses.score is None else poses.score)[rows]
    if not score.size:
        return 0.0, None
    missing = float((score <= 0).mean())
    graded = isinstance(poses, PoseVideo) or poses.score is not None
    return missing, float(((score > 0) & (score < below)).mean()) if graded else None
