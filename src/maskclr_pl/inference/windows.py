"""Videos cut into what a model is asked about: windows of frames, and persons in them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from maskclr_pl.data.dataset import seen_best
from maskclr_pl.data.store.reader import Recording
from maskclr_pl.sources.poses.video import PoseVideo
from maskclr_pl.sources.splitting import Span
from maskclr_pl.visibility import visible_joints


class Window(NamedTuple):
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


def cut_windows(
    poses: PoseVideo | Recording,
    length: int | None,
    stride: int | None,
    per_person: bool,
    persons: int,
) -> Iterator[Window]:
    """The pieces of a video, in the order of time; windows without anybody are left out.

    Args:
        poses: The video.
        length: Frames of a window; None for the whole video. The last window ends with the video.
        stride: Frames from one window to the next; by default half a window.
        per_person: Each person alone, from the first to the last frame of the window in which that
            person is seen; otherwise all together, as a recording of a data set.
        persons: Most persons in a window, those with the largest summed score.
    """
    first, end = frames_of(poses)
    whole = Span(0, "", first, end)
    spans = [whole] if length is None else whole.windows(length, stride or max(1, length // 2))
    for span in spans:
        recording, numbers = _take(poses, span.start, span.end, persons)
        found = visible_joints(recording.keypoint, recording.score)
        visible: np.ndarray = np.any(found, axis=-1)  # (M, T)
        there = np.flatnonzero(np.any(visible, axis=1))
        if len(there) and not per_person:
            seen = float(np.any(visible, axis=0).mean())
            yield Window(recording, span.start, span.end, tuple(numbers[there].tolist()), seen)
        for slot in there if per_person else ():
            frames = np.flatnonzero(visible[slot])
            low, high = int(frames[0]), int(frames[-1]) + 1
            one = _part(recording, slice(slot, slot + 1), slice(low, high))
            start, seen = span.start + low, len(frames) / (high - low)
            yield Window(one, start, span.start + high, (int(numbers[slot]),), seen)


def _take(
    poses: PoseVideo | Recording, start: int, end: int, most: int
) -> tuple[Recording, np.ndarray]:
    """Frames [start, end) as a recording, and the numbers of its persons."""
    if isinstance(poses, PoseVideo):
        keypoint, score = poses.clip(start, end, most)
        recording = Recording("", 0, keypoint, score, poses.frame_size)
        return recording, poses.best_tracks(start, end, most)
    part = _part(poses, slice(None), slice(start, end))
    if len(part.keypoint) <= most:
        return part, np.arange(len(part.keypoint))
    best = seen_best(visible_joints(part.keypoint) if part.score is None else part.score, most)
    return _part(part, best, slice(None)), best


def persons_in(poses: PoseVideo | Recording) -> int:
    """Number of persons that are seen in a video."""
    if isinstance(poses, PoseVideo):
        return len(np.unique(poses.track))
    return int(np.any(visible_joints(poses.keypoint, poses.score), axis=(1, 2)).sum())


def _part(
    recording: Recording, persons: slice | np.ndarray, frames: slice | np.ndarray
) -> Recording:
    score = recording.score
    return Recording(
        recording.name,
        recording.label,
        recording.keypoint[persons, frames],
        None if score is None else score[persons, frames],
        recording.frame_size,
    )


def poses_at(
    poses: PoseVideo | Recording, frames: np.ndarray, persons: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Some frames of some persons of a video.

    Args:
        poses: The video.
        frames: (F,) numbers of frames, ascending.
        persons: (P,) numbers of persons, ascending.

    Returns:
        keypoint: (P, F, V, C); zeros where a joint was not found.
        visible: (P, F, V) bool.
    """
    if isinstance(poses, Recording):
        part = _part(_part(poses, persons, slice(None)), slice(None), frames)
        return part.keypoint, visible_joints(part.keypoint, part.score)
    shape = len(persons), len(frames), len(poses.skeleton)
    keypoint, score = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32)
    places = []
    for known, values in ((frames, poses.frame), (persons, poses.track)):
        place = np.searchsorted(known, values).clip(max=len(known) - 1)
        places.append(np.where(known[place] == values, place, -1))
    time, slot = places
    shown = (time >= 0) & (slot >= 0)
    keypoint[slot[shown], time[shown]] = poses.keypoint[shown]
    score[slot[shown], time[shown]] = poses.score[shown]
    return keypoint, score > 0


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
        found = visible_joints(poses.keypoint, poses.score)
        rows: np.ndarray = np.any(found, axis=-1)
        score = (found if poses.score is None else poses.score)[rows]
    if not score.size:
        return 0.0, None
    missing = float((score <= 0).mean())
    graded = isinstance(poses, PoseVideo) or poses.score is not None
    return missing, float(((score > 0) & (score < below)).mean()) if graded else None
