"""Videos of poses: their persons, and the windows of frames that are classified."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from maskclr_pl.data.dataset import most_visible
from maskclr_pl.data.store.reader import Recording
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.poses.video import PoseVideo
from maskclr_pl.sources.splitting import Span
from maskclr_pl.visibility import visible_joints


class Window(NamedTuple):
    """Frames [start, end) of a video, with the persons that are classified jointly."""

    recording: Recording
    start: int
    end: int
    persons: tuple[int, ...]
    """Numbers in the video, one for each person of the recording."""
    visible: float
    """Share of the frames in which at least one of the persons is visible."""


@dataclass(frozen=True)
class Video(ABC):
    """The poses of one video.

    Args:
        name: Name of the video.
        skeleton: Joint layout.
        notes: Conversions of the coordinates, see `CoordinateFormat.notes`.
    """

    name: str
    skeleton: Skeleton
    notes: Sequence[str]

    @property
    @abstractmethod
    def span(self) -> tuple[int, int]:
        """Numbers of the first frame and of the last frame + 1."""

    @property
    @abstractmethod
    def num_persons(self) -> int:
        """Number of persons that are visible in at least one frame."""

    @abstractmethod
    def crop(self, start: int, end: int, max_persons: int) -> tuple[Recording, np.ndarray]:
        """Frames [start, end) of the persons with the largest summed score, and their numbers."""

    @abstractmethod
    def poses_at(
        self, frames: Int[np.ndarray, " F"], persons: Int[np.ndarray, " P"]
    ) -> tuple[Float[np.ndarray, "P F V C"], Bool[np.ndarray, "P F V"]]:
        """Coordinates and visibility at ascending numbers of frames and persons."""

    @abstractmethod
    def scores(self) -> tuple[Float[np.ndarray, "R V"], bool]:
        """Scores of each person in each frame where it is visible; False if the file has none.

        Without scores in the file, they are 1 for a visible joint and 0 otherwise.
        """

    def validate(self, check: Callable[[Recording, Skeleton], Recording]) -> "Video":
        """Apply a check to the whole recording, before it is cut into windows."""
        return self

    def missing_and_low(self, threshold: float) -> tuple[float, float | None]:
        """Share of missing joints, and share with a score in (0, threshold); None without scores.

        Counted over the frames in which each person is visible.
        """
        score, graded = self.scores()
        if not score.size:
            return 0.0, None
        low = float(((score > 0) & (score < threshold)).mean()) if graded else None
        return float((score <= 0).mean()), low

    def windows(
        self, length: int | None, stride: int | None, per_person: bool, max_persons: int
    ) -> Iterator[Window]:
        """Windows in order of time; windows without a visible person are left out.

        Args:
            length: Frames of a window; None for the whole video. The last window ends with the
                video.
            stride: Frames from one window to the next; half a window by default.
            per_person: One window per person, from the first to the last frame in which that
                person is visible; otherwise all persons jointly, as in a data set.
            max_persons: Persons kept in each window, by summed score.
        """
        whole = Span(0, "", *self.span)
        spans = [whole] if length is None else whole.windows(length, stride or max(1, length // 2))
        for span in spans:
            recording, numbers = self.crop(span.start, span.end, max_persons)
            visible: np.ndarray = np.any(  # (M, T)
                visible_joints(recording.keypoint, recording.score), axis=-1
            )
            present = np.flatnonzero(np.any(visible, axis=1))
            if not per_person and len(present):
                share = float(np.any(visible, axis=0).mean())
                persons = tuple(numbers[present].tolist())
                yield Window(recording, span.start, span.end, persons, share)
            for person in present if per_person else ():
                frames = np.flatnonzero(visible[person])
                low, high = int(frames[0]), int(frames[-1]) + 1
                alone = _select(recording, slice(person, person + 1), slice(low, high))
                start, end = span.start + low, span.start + high
                share = len(frames) / (high - low)
                yield Window(alone, start, end, (int(numbers[person]),), share)


@dataclass(frozen=True)
class TrackedVideo(Video):
    """Detections of a pose estimator, linked to persons.

    Args:
        poses: Detections in pixels, a row for each person in each frame.
    """

    poses: PoseVideo

    @property
    def span(self) -> tuple[int, int]:
        """See `Video`; frames are numbered as in the file."""
        return self.poses.first, self.poses.end

    @property
    def num_persons(self) -> int:
        """See `Video`."""
        return len(np.unique(self.poses.track))

    def crop(self, start: int, end: int, max_persons: int) -> tuple[Recording, np.ndarray]:
        """See `Video`; persons in descending order of score."""
        keypoint, score = self.poses.clip(start, end, max_persons)
        recording = Recording("", 0, keypoint, score, self.poses.frame_size)
        return recording, self.poses.best_tracks(start, end, max_persons)

    def poses_at(self, frames: np.ndarray, persons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Video`."""
        shape = len(persons), len(frames), len(self.skeleton)
        keypoint, score = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32)
        time, person = _places(frames, self.poses.frame), _places(persons, self.poses.track)
        rows = (time >= 0) & (person >= 0)
        keypoint[person[rows], time[rows]] = self.poses.keypoint[rows]
        score[person[rows], time[rows]] = self.poses.score[rows]
        return keypoint, score > 0

    def scores(self) -> tuple[np.ndarray, bool]:
        """See `Video`."""
        return self.poses.score, True


@dataclass(frozen=True)
class ArrayVideo(Video):
    """A recording as an array, whose frames count from 0.

    Args:
        recording: (M, T, V, 2) pixels or (M, T, V, 3) meters.
    """

    recording: Recording

    def validate(self, check: Callable[[Recording, Skeleton], Recording]) -> Video:
        """See `Video`."""
        return replace(self, recording=check(self.recording, self.skeleton))

    @property
    def span(self) -> tuple[int, int]:
        """See `Video`."""
        return 0, self.recording.keypoint.shape[1]

    @property
    def num_persons(self) -> int:
        """See `Video`."""
        return int(np.any(self._visible(), axis=(1, 2)).sum())

    def crop(self, start: int, end: int, max_persons: int) -> tuple[Recording, np.ndarray]:
        """See `Video`; persons in the order of the array."""
        frames = _select(self.recording, slice(None), slice(start, end))
        if len(frames.keypoint) <= max_persons:
            return frames, np.arange(len(frames.keypoint))
        score = visible_joints(frames.keypoint) if frames.score is None else frames.score
        best = most_visible(score, max_persons)
        return _select(frames, best, slice(None)), best

    def poses_at(self, frames: np.ndarray, persons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Video`."""
        part = _select(_select(self.recording, persons, slice(None)), slice(None), frames)
        return part.keypoint, visible_joints(part.keypoint, part.score)

    def scores(self) -> tuple[np.ndarray, bool]:
        """See `Video`."""
        visible, score = self._visible(), self.recording.score
        rows: np.ndarray = np.any(visible, axis=-1)  # (M, T)
        return (visible if score is None else score)[rows], score is not None

    def _visible(self) -> np.ndarray:
        return visible_joints(self.recording.keypoint, self.recording.score)


def _select(
    recording: Recording, persons: slice | np.ndarray, frames: slice | np.ndarray
) -> Recording:
    score = recording.score
    return replace(
        recording,
        keypoint=recording.keypoint[persons, frames],
        score=None if score is None else score[persons, frames],
    )


def _places(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Positions of values in ascending numbers; -1 for a value that is not among them."""
    place = np.searchsorted(numbers, values).clip(max=len(numbers) - 1)
    return np.where(numbers[place] == values, place, -1)
