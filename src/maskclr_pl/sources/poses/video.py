"""The poses of one video: joints in pixels, and persons followed through the frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.format_detection import detect_format
from maskclr_pl.sources.options import parse_frame_size
from maskclr_pl.sources.poses.files import read_detections
from maskclr_pl.sources.poses.tables import is_table, read_table
from maskclr_pl.sources.units import CoordinateFormat, fill_frame_size
from maskclr_pl.types import InputError

ESTIMATOR_LAYOUTS = {17: "coco17", 18: "openpose18", 25: "body25", 26: "halpe26"}
"""The layout that pose estimators mean by a number of joints."""
GAP = 30
"""Frames after which a person that was not found is no longer waited for: a second of video."""
REACH = 0.5
"""How far a person may move between two detections, as a part of its own size."""
_FARTHEST = 1e6


@dataclass(frozen=True)
class PoseVideo:
    """The persons that were found in a video, a row for each person in each frame.

    Args:
        frame: (R,) frame number, never decreasing.
        track: (R,) which person of the video it is, from 0.
        keypoint: (R, V, 2) float32 pixels, zeros for a joint that was not found.
        score: (R, V) float32 confidence in [0, 1], 0 for a joint that was not found.
        skeleton: Joint layout.
        frame_size: (height, width) in pixels.
        first: Number of the first frame.
        end: Number of the last frame + 1.
        form: What the numbers of its file mean.
    """

    frame: np.ndarray
    track: np.ndarray
    keypoint: np.ndarray
    score: np.ndarray
    skeleton: Skeleton
    frame_size: tuple[int, int]
    first: int
    end: int
    form: CoordinateFormat = CoordinateFormat("pixels")  # noqa: RUF009  # frozen

    def clip(
        self, start: int | None = None, end: int | None = None, max_persons: int = 4
    ) -> tuple[np.ndarray, np.ndarray]:
        """The frames from `start` up to, not including, `end`; by default all.

        Args:
            start: Number of the first frame, as in the file.
            end: Number of the last frame + 1.
            max_persons: Tracks that are kept, those with the largest summed score.

        Returns:
            keypoint: (M, T, V, 2) float32 pixels, a track a slot, the best first; zeros where a
                person or a joint was not found. M is 0 if nobody was found.
            score: (M, T, V) float32.
        """
        start = self.first if start is None else max(start, self.first)
        end = max(start, self.end if end is None else min(end, self.end))
        rows = slice(*np.searchsorted(self.frame, (start, end)))
        best = self.best_tracks(start, end, max_persons)
        shape = (len(best), end - start, len(self.skeleton))
        keypoint, score = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32)
        row, slot = np.nonzero(self.track[rows][:, None] == best)
        time = self.frame[rows][row] - start
        keypoint[slot, time] = self.keypoint[rows][row]
        score[slot, time] = self.score[rows][row]
        return keypoint, score

    def best_tracks(self, start: int, end: int, max_persons: int) -> np.ndarray:
        """Tracks in the frames [start, end) with the largest summed score, the best first."""
        rows = slice(*np.searchsorted(self.frame, (start, end)))
        tracks, slot = np.unique(self.track[rows], return_inverse=True)
        total = np.bincount(slot, self.score[rows].sum(axis=1), len(tracks))
        return tracks[np.argsort(-total, kind="stable")[:max_persons]]


def read_poses(
    path: str | Path,
    frame_size: Sequence[int] | None = None,
    skeleton: str | Path | None = None,
    video: str | None = None,
    units: str | None = None,
) -> PoseVideo:
    """Read what a pose estimator found in one video.

    A file of OpenPifPaf (JSON lines), AlphaPose (also with PoseFlow), MMPose, COCO keypoints,
    st-gcn or tf-openpose; a folder with a file for each image (OpenPose, OpenPifPaf, MMPose); or a
    CSV table (see `pose_tables`).
    The format is recognised by the content, the order of the images by the last number in their
    names. A joint counts as found if its score is above 0, wherever it is, and its numbers are
    finite; in a file where all scores are 0, if it is not at (0, 0). Scores are cut to [0, 1]: some
    tools give the height of a heat map, which may be above.

    Track numbers of the file are used if every person has one and no frame has one twice;
    otherwise persons are linked by distance, see `link`.

    Args:
        path: File or folder.
        frame_size: (height, width) for files that do not say. Most do not, and it matters little,
            since clips are moved to the person anyway: by default it is the smallest image that
            holds all joints. Coordinates that are fractions of the image do need it.
        skeleton: Name or YAML file of the joint layout; by default that of the estimators with
            this number of joints (`ESTIMATOR_LAYOUTS`), or what the columns of a table say.
        video: Name of the video, in a table of several.
        units: Unit of the coordinates, see `detect_format`; None: the values tell.

    Raises:
        InputError: If it cannot be read, or the joint layout or the image size is not known.
    """
    known = None
    if is_table(path):
        found, known = read_table(path, video)
    else:
        found = read_detections(path)
    named = known if skeleton is None else load_skeleton(skeleton)
    layout = resolve_layout(path, found.pose.shape[1], named)
    keypoint, score = _cleaned(path, found.pose)
    size = found.frame_size or parse_frame_size(frame_size)
    detected = Recording(str(path), 0, keypoint[None], score[None], size)
    form = detect_format([detected], path, units)
    detected = fill_frame_size(form.to_stored(detected))
    assert detected.frame_size is not None
    keypoint, there = detected.keypoint[0], score > 0
    kept = there.any(axis=1)
    frame, keypoint, score = found.frame[kept], keypoint[kept], score[kept]
    identity = found.identity[kept]
    track = identity if _are_tracks(frame, identity) else link(frame, keypoint, score)
    return PoseVideo(
        frame,
        track,
        keypoint.astype(np.float32),
        score.astype(np.float32),
        layout,
        detected.frame_size,
        found.first,
        found.end,
        form,
    )


def _cleaned(path: str | Path, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and scores of (R, V, 3) poses; zeros for what was not found."""
    keypoint, score = pose[..., :2], np.clip(pose[..., 2], 0, 1)
    if not score.any():  # some st-gcn files give no scores
        score = keypoint.any(axis=-1).astype(np.float64)
    there = np.isfinite(pose).all(axis=-1) & (score > 0)
    if not there.any():
        raise InputError(f"{path}: no joint was found in any frame (all scores are 0)")
    farthest = np.abs(keypoint[there]).max()
    if farthest > _FARTHEST:
        raise InputError(f"{path}: coordinates up to {farthest:g}, expected pixels of an image")
    return np.where(there[..., None], keypoint, 0.0), np.where(there, score, 0.0)


def resolve_layout(path: str | Path, joints: int, skeleton: Skeleton | None) -> Skeleton:
    """The layout of poses with this number of joints; that of pose estimators if none is given.

    Raises:
        InputError: If no estimator has so many, or the given layout has another number.
    """
    if skeleton is None and joints not in ESTIMATOR_LAYOUTS:
        known = ", ".join(f"{count} ({name})" for count, name in ESTIMATOR_LAYOUTS.items())
        raise InputError(
            f"{path}: {joints} joints, not one of {known}; type skeleton=NAME, or a YAML file with "
            "joints and edges"
        )
    layout = skeleton or load_skeleton(ESTIMATOR_LAYOUTS[joints])
    if len(layout) != joints:
        raise InputError(
            f"{path}: {joints} joints, but skeleton {layout.name} has {len(layout)}; type the "
            "skeleton=... of this pose estimator"
        )
    return layout


def _are_tracks(frame: np.ndarray, identity: np.ndarray) -> bool:
    """Whether the numbers can be tracks: AlphaPose without tracker numbers everybody 0."""
    pairs = np.stack([frame, identity])
    return bool(identity.min() >= 0) and np.unique(pairs, axis=1).shape[1] == len(frame)


def link(
    frame: np.ndarray,
    keypoint: np.ndarray,
    score: np.ndarray,
    gap: int = GAP,
    reach: float = REACH,
) -> np.ndarray:
    """Follow persons through the frames by distance.

    In each frame the nearest pair of a known person and a new detection is linked, then the next
    nearest, and so on; what is left over starts a new track. The distance is the mean over the
    joints found in both, in units of the larger of the two persons (the longer side of the box of
    the joints found, at least a pixel).

    Args:
        frame: (R,) frame numbers, never decreasing.
        keypoint: (R, V, 2) pixels.
        score: (R, V) confidence; joints with 0 do not count.
        gap: Frames after which a track ends that found no successor.
        reach: Largest distance of a link.

    Returns:
        (R,) track numbers from 0, in the order of appearance.
    """
    track = np.full(len(frame), -1)
    there = score > 0
    low = np.where(there[..., None], keypoint, np.inf).min(axis=1)
    high = np.where(there[..., None], keypoint, -np.inf).max(axis=1)
    size = np.maximum((high - low).max(axis=1), 1.0)
    tails = np.empty(0, dtype=np.int64)  # newest row of each track
    tracks = 0
    for rows in np.split(np.arange(len(frame)), np.flatnonzero(np.diff(frame)) + 1):
        tails = tails[frame[rows[0]] - frame[tails] <= gap]
        both = there[tails][:, None] & there[rows][None]
        step = keypoint[tails][:, None] - keypoint[rows][None]
        total = (np.hypot(step[..., 0], step[..., 1]) * both).sum(axis=-1)
        count = both.sum(axis=-1)
        scale = np.maximum(size[tails][:, None], size[rows][None])
        cost = np.where(count > 0, total / np.maximum(count, 1) / scale, np.inf)
        for tail, row in _nearest(cost, reach):
            track[rows[row]] = track[tails[tail]]
            tails[tail] = -1
        new = rows[track[rows] < 0]
        track[new] = tracks + np.arange(len(new))
        tracks += len(new)
        tails = np.concatenate([tails[tails >= 0], rows])
    return track


def _nearest(cost: np.ndarray, reach: float) -> Iterator[tuple[int, int]]:
    """(row, column) of the smallest costs, no row or column twice."""
    while cost.size and cost.min() <= reach:
        row, column = np.unravel_index(int(cost.argmin()), cost.shape)
        yield int(row), int(column)
        cost[row], cost[:, column] = np.inf, np.inf
