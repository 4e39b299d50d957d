"""Statistics of the coordinates in recordings, from which their format is detected."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.visibility import visible_joints

_SAMPLED = 8  # persons and frames of a recording: units do not change from frame to frame
_COMPARED = 48  # entries along the first axis that are compared with the next
_MAX_PERSONS = 8  # a longer first axis is hardly one of persons
_MAX_STEP = 0.15  # of a body between frames, as a share of its size; persons are farther apart


@dataclass(frozen=True)
class CoordinateStats:
    """Statistics of the visible joints in one recording, or in several.

    Args:
        points: (n, C) finite coordinates of the visible joints.
        score: (n,) scores of the joints; None without scores.
        size_2d: (b,) longest side of the box around each body, over x and y.
        size_3d: (b,) likewise, over all coordinates.
        has_frame_size: The image size is known.
        frames_first: The first axis looks like frames rather than persons.
    """

    points: Float[np.ndarray, "n C"]
    score: Float[np.ndarray, " n"] | None
    size_2d: Float[np.ndarray, " b"]
    size_3d: Float[np.ndarray, " b"]
    has_frame_size: bool
    frames_first: bool

    @property
    def extent(self) -> float:
        """Return the 99th percentile of |x| and |y|, which ignores a few outliers."""
        sides = np.sort(np.abs(self.points[:, :2]), axis=None)
        return float(sides[int(0.99 * (len(sides) - 1))])

    @property
    def negative_share(self) -> float:
        """Return the share of x and y below 0."""
        return float((self.points[:, :2] < 0).mean())

    @property
    def body_2d(self) -> float:
        """Return the size of the median body in x and y."""
        return _lower_median(self.size_2d)

    @property
    def body_3d(self) -> float:
        """Return the size of the median body in all coordinates."""
        return _lower_median(self.size_3d)

    @property
    def third(self) -> Float[np.ndarray, " n"]:
        """Return the third coordinates."""
        return self.points[:, 2]

    def ranges(self) -> str:
        """Return the smallest and largest coordinates as text."""
        low, high = self.points.min(0), self.points.max(0)
        return ", ".join(
            f"{axis} {a:.4g} to {b:.4g}" for axis, a, b in zip("xyz", low, high, strict=False)
        )


def measure(recording: Recording) -> CoordinateStats | None:
    """Compute the statistics of some frames of a recording.

    None if no body is visible, or the arrays are malformed, which `check_recording` reports.
    """
    keypoint, score = recording.keypoint, recording.score
    if not is_clip(keypoint):
        return None
    numeric = isinstance(score, np.ndarray) and score.dtype.kind in "fiub"
    if score is None or not numeric or score.shape != keypoint.shape[:3]:
        score = None
    persons, frames = (slice(None, None, -(-side // _SAMPLED)) for side in keypoint.shape[:2])
    sample = keypoint[persons, frames]
    result = _measure_bodies(sample, None if score is None else score[persons, frames])
    if result is None and sample.size < keypoint.size:  # nobody in the sampled frames
        result = _measure_bodies(keypoint, score)
    if result is None:
        return None
    points, scores, sides = result
    return CoordinateStats(
        points,
        scores,
        sides[:, :2].max(1),
        sides.max(1),
        recording.frame_size is not None,
        _has_frames_first(keypoint),
    )


def _measure_bodies(
    keypoint: np.ndarray, score: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray] | None:
    """Return visible points (n, C), their scores (n,) and the sides of all bodies (b, C)."""
    points = as_floats(keypoint)
    visible = visible_joints(points, score) & np.isfinite(points).all(-1)
    bodies = visible.sum(-1) > 1  # a single joint has no size
    if not bodies.any():
        return None
    points, visible = points[bodies], visible[bodies]
    sides = _box_sides(points, visible)
    if not sides.max() > 0:  # all joints coincide
        return None
    scores = None if score is None else as_floats(score)[bodies][visible]
    return points[visible], scores, sides


def _box_sides(points: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return the sides (..., C) of the box around the visible joints of (..., V, C) bodies."""
    low = np.where(visible[..., None], points, np.inf).min(-2)
    high = np.where(visible[..., None], points, -np.inf).max(-2)
    return high - low


def pool(stats: Sequence[CoordinateStats]) -> CoordinateStats:
    """Combine the statistics of recordings with equally many coordinates."""
    scores = [item.score for item in stats if item.score is not None]
    return CoordinateStats(
        np.concatenate([item.points for item in stats]),
        np.concatenate(scores) if len(scores) == len(stats) else None,
        np.concatenate([item.size_2d for item in stats]),
        np.concatenate([item.size_3d for item in stats]),
        any(item.has_frame_size for item in stats),
        2 * sum(item.frames_first for item in stats) > len(stats),
    )


def _lower_median(sizes: np.ndarray) -> float:
    """Return the median as the size of an actual body, not a mean of two."""
    return float(np.sort(sizes)[(len(sizes) - 1) // 2])


def as_floats(values: np.ndarray) -> np.ndarray:
    """Convert to float64; a signaling NaN of a damaged file becomes a quiet one."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def is_clip(keypoint: object) -> bool:
    """Check for a non-empty numeric array (M, T, V, 2 or 3)."""
    return (
        isinstance(keypoint, np.ndarray)
        and keypoint.dtype.kind in "fiu"
        and keypoint.ndim == 4
        and keypoint.shape[3] in (2, 3)
        and 0 not in keypoint.shape
    )


def _has_frames_first(keypoint: np.ndarray) -> bool:
    """Check if the first axis is time: it is long, and neighbors nearly coincide.

    Persons stand beside each other; a body hardly moves from one frame to the next. Clips of few
    frames are never assumed to have frames first.
    """
    first, second = keypoint.shape[:2]
    if first <= _MAX_PERSONS or first <= second:
        return False
    bodies = as_floats(keypoint[:_COMPARED, ..., :2])  # a third channel may be a score
    visible = visible_joints(bodies) & np.isfinite(bodies).all(-1)
    both = visible[1:] & visible[:-1]
    pairs = both.any(-1)
    if np.count_nonzero(pairs) < _MAX_PERSONS:
        return False
    step = np.linalg.norm(np.where(both[..., None], bodies[1:] - bodies[:-1], 0), axis=-1)
    mean = step.sum(-1)[pairs] / both.sum(-1)[pairs]
    size = _box_sides(bodies, visible).max(-1)[:-1][pairs]
    near = mean < _MAX_STEP * np.maximum(size, 1e-9)
    # copies of one person, as some files pad with, do not move at all
    return bool(near.mean() > 0.8 and mean.max() > 0)
