"""The poses of one video: joints in pixels, and persons tracked through the frames."""

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
"""Joint layout of pose estimators by number of joints."""
GAP = 30
"""Frames after which a lost track ends: a second of video."""
REACH = 0.5
"""Largest movement of a person between two detections, as a share of its size."""
_MAX_COORDINATE = 1e6


@dataclass(frozen=True)
class PoseVideo:
    """The persons in a video, a row for each person in each frame.

    Args:
        frame: (R,) frame number, never decreasing.
        track: (R,) track number of the person.
        keypoint: (R, V, 2) float32 pixels, zeros for a missing joint.
        score: (R, V) float32 confidence in [0, 1], 0 for a missing joint.
        skeleton: Joint layout.
        frame_size: (height, width) in pixels.
        first: Number of the first frame.
        end: Number of the last frame + 1.
        form: Coordinate format of its file.
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
        """Return the frames [start, end), by default all, as arrays.

        Args:
            start: Number of the first frame, as in the file.
            end: Number of the last frame + 1.
            max_persons: Tracks that are kept, those with the largest summed score.

        Returns:
            keypoint: (M, T, V, 2) float32 pixels, one track per slot, the best first; zeros for
                missing persons and joints. M is 0 without any person.
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
        """Return the tracks in [start, end) with the largest summed score, the best first."""
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
    """Read the output of a pose estimator for one video.

    Supported are files of OpenPifPaf (JSON lines), AlphaPose (also with PoseFlow), MMPose, COCO
    keypoints, st-gcn and tf-openpose; folders with a file for each image (OpenPose, OpenPifPaf,
    MMPose); and CSV tables (see `poses.tables`). The format is recognized by the content, the order
    of the images by the last number in their names. A joint is visible if its score is above 0 and
    its numbers are finite; in a file where all scores are 0, if it is not at (0, 0). Scores are
    clipped to [0, 1]: some tools write heat map maxima, which may be above.

    Track ids of the file are used if every person has one and no frame has one twice; otherwise
    persons are linked by distance, see `link`.

    Args:
        path: File or folder.
        frame_size: (height, width) for files without it, as most are. By default the smallest image
            that holds all joints, which is enough since clips are normalized to the person; only
            coordinates that are fractions of the image require it.
        skeleton: Name or YAML file of the joint layout; by default that of the table, or that of
            pose estimators with this number of joints (`ESTIMATOR_LAYOUTS`).
        video: Name of the video, in a table of several.
        units: Unit of the coordinates, see `detect_format`; None to detect it.

    Raises:
        InputError: If it cannot be read, or the joint layout or a required image size is unknown.
    """
    layout = None
    if is_table(path):
        detections, layout = read_table(path, video)
    else:
        detections = read_detections(path)
    layout = layout if skeleton is None else load_skeleton(skeleton)
    layout = resolve_layout(path, detections.pose.shape[1], layout)
    keypoint, score = _clean(path, detections.pose)
    size = detections.frame_size or parse_frame_size(frame_size)
    recording = Recording(str(path), 0, keypoint[None], score[None], size)
    form = detect_format([recording], path, units)
    recording = fill_frame_size(form.to_stored(recording))
    assert recording.frame_size is not None
    rows = (score > 0).any(axis=1)
    frame, identity = detections.frame[rows], detections.identity[rows]
    keypoint, score = recording.keypoint[0][rows], score[rows]
    track = identity if _are_tracks(frame, identity) else link(frame, keypoint, score)
    return PoseVideo(
        frame,
        track,
        keypoint.astype(np.float32),
        score.astype(np.float32),
        layout,
        recording.frame_size,
        detections.first,
        detections.end,
        form,
    )


def _clean(path: str | Path, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates and scores of (R, V, 3) poses, zeros for missing joints."""
    keypoint, score = pose[..., :2], np.clip(pose[..., 2], 0, 1)
    if not score.any():  # some st-gcn files have no scores
        score = keypoint.any(axis=-1).astype(np.float64)
    visible = np.isfinite(pose).all(axis=-1) & (score > 0)
    if not visible.any():
        raise InputError(f"{path}: no visible joint in any frame (all scores are 0)")
    largest = np.abs(keypoint[visible]).max()
    if largest > _MAX_COORDINATE:
        raise InputError(f"{path}: coordinates up to {largest:g}, expected pixels of an image")
    return np.where(visible[..., None], keypoint, 0.0), np.where(visible, score, 0.0)


def resolve_layout(path: str | Path, joints: int, skeleton: Skeleton | None) -> Skeleton:
    """Return the layout of poses with this number of joints, by default that of pose estimators.

    Raises:
        InputError: If no estimator has so many, or the given layout has another number.
    """
    if skeleton is None and joints not in ESTIMATOR_LAYOUTS:
        known = ", ".join(f"{count} ({name})" for count, name in ESTIMATOR_LAYOUTS.items())
        raise InputError(
            f"{path}: {joints} joints, expected {known}; pass skeleton=NAME, or a YAML file with "
            "joints and edges"
        )
    layout = skeleton or load_skeleton(ESTIMATOR_LAYOUTS[joints])
    if len(layout) != joints:
        raise InputError(
            f"{path}: {joints} joints, but skeleton {layout.name} has {len(layout)}; pass the "
            "skeleton= of this pose estimator"
        )
    return layout


def _are_tracks(frame: np.ndarray, identity: np.ndarray) -> bool:
    """Check that ids are unique in each frame: AlphaPose without tracker writes 0 for all."""
    pairs = np.stack([frame, identity])
    return bool(identity.min() >= 0) and np.unique(pairs, axis=1).shape[1] == len(frame)


def link(
    frame: np.ndarray,
    keypoint: np.ndarray,
    score: np.ndarray,
    gap: int = GAP,
    reach: float = REACH,
) -> np.ndarray:
    """Track persons through the frames by distance.

    In each frame the nearest pair of a track and a new detection is linked, then the next nearest,
    and so on; each remaining detection starts a track. The distance is the mean over the joints
    visible in both, in units of the larger of the two persons (the longer side of the box around
    its visible joints, at least a pixel).

    Args:
        frame: (R,) frame numbers, never decreasing.
        keypoint: (R, V, 2) pixels.
        score: (R, V) confidence; joints with 0 are ignored.
        gap: Frames after which a track without a detection ends.
        reach: Largest distance of a link.

    Returns:
        (R,) track numbers from 0, in the order of appearance.
    """
    track = np.full(len(frame), -1)
    visible = score > 0
    low = np.where(visible[..., None], keypoint, np.inf).min(axis=1)
    high = np.where(visible[..., None], keypoint, -np.inf).max(axis=1)
    size = np.maximum((high - low).max(axis=1), 1.0)
    tails = np.empty(0, dtype=np.int64)  # newest row of each track
    tracks = 0
    for rows in np.split(np.arange(len(frame)), np.flatnonzero(np.diff(frame)) + 1):
        tails = tails[frame[rows[0]] - frame[tails] <= gap]
        both = visible[tails][:, None] & visible[rows][None]  # (tails, rows, V)
        step = keypoint[tails][:, None] - keypoint[rows][None]
        total = (np.hypot(step[..., 0], step[..., 1]) * both).sum(axis=-1)
        count = both.sum(axis=-1)
        scale = np.maximum(size[tails][:, None], size[rows][None])
        cost = np.where(count > 0, total / np.maximum(count, 1) / scale, np.inf)
        for tail, row in _nearest_pairs(cost, reach):
            track[rows[row]] = track[tails[tail]]
            tails[tail] = -1
        new = rows[track[rows] < 0]
        track[new] = tracks + np.arange(len(new))
        tracks += len(new)
        tails = np.concatenate([tails[tails >= 0], rows])
    return track


def _nearest_pairs(cost: np.ndarray, reach: float) -> Iterator[tuple[int, int]]:
    """Yield (row, column) of the smallest costs, each row and column once; `cost` is modified."""
    while cost.size and cost.min() <= reach:
        row, column = np.unravel_index(int(cost.argmin()), cost.shape)
        yield int(row), int(column)
        cost[row], cost[:, column] = np.inf, np.inf
