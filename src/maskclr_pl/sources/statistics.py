"""Cheap statistics of the numbers in recordings, before it is known what the numbers mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.visibility import visible_joints

_LOOKED_AT = 8  # persons and frames of a recording: units do not change from frame to frame
_NEIGHBORS = 48  # entries along the first axis that are compared with the next
_AXIS = 8  # more entries than that along the first axis: hardly persons
_NEAR = 0.15  # step of a body from frame to frame, as a part of its size; persons are farther apart


@dataclass(frozen=True)
class Values:
    """The joints found in one recording, or in several.

    Args:
        points: (n, C) coordinates of the joints that were found, finite ones only.
        score: (n,) scores of the joints; None without scores.
        size: (b,) longest side of the box around each body, over x and y.
        size3: (b,) likewise, over all coordinates.
        sized: Whether the size of the image is known.
        turned: Whether the first axis looks like frames rather than persons.
    """

    points: Float[np.ndarray, "n C"]
    score: Float[np.ndarray, " n"] | None
    size: Float[np.ndarray, " b"]
    size3: Float[np.ndarray, " b"]
    sized: bool
    turned: bool

    @property
    def far(self) -> float:
        """How far x and y go: a few wild joints do not count."""
        sides = np.sort(np.abs(self.points[:, :2]), axis=None)
        return float(sides[int(0.99 * (len(sides) - 1))])

    @property
    def negative(self) -> float:
        """Share of x and y below 0."""
        return float((self.points[:, :2] < 0).mean())

    @property
    def body(self) -> float:
        """Size of the median body in x and y."""
        return _middle(self.size)

    @property
    def body3(self) -> float:
        """Size of the median body in all coordinates."""
        return _middle(self.size3)

    @property
    def third(self) -> Float[np.ndarray, " n"]:
        """The third coordinates."""
        return self.points[:, 2]

    def ranges(self) -> str:
        """Smallest and largest coordinates, as text."""
        low, high = self.points.min(0), self.points.max(0)
        return ", ".join(
            f"{axis} {a:.4g} to {b:.4g}" for axis, a, b in zip("xyz", low, high, strict=False)
        )


def measure(recording: Recording) -> Values | None:
    """The values of a recording, of some of its frames; None if no body is in any.

    Whatever is no array of recordings' shape has no values: `check_recording` complains.
    """
    keypoint, score = recording.keypoint, recording.score
    if not is_clip(keypoint):
        return None
    numbers = isinstance(score, np.ndarray) and score.dtype.kind in "fiub"
    if score is None or not numbers or score.shape != keypoint.shape[:3]:
        score = None
    persons, frames = (slice(None, None, -(-side // _LOOKED_AT)) for side in keypoint.shape[:2])
    some = keypoint[persons, frames], None if score is None else score[persons, frames]
    # all, if nobody is in those few
    measured = _measured(*some) or (some[0].size < keypoint.size and _measured(keypoint, score))
    if not measured:
        return None
    return Values(*measured, recording.frame_size is not None, _is_turned(keypoint))


def _measured(
    keypoint: np.ndarray, score: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray] | None:
    """Points, their scores, and the two sizes of bodies; None without a body."""
    points = as_floats(keypoint)
    found = visible_joints(points, score) & np.isfinite(points).all(-1)
    bodies = found.sum(-1) > 1  # a single joint has no size
    if not bodies.any():
        return None
    points, found = points[bodies], found[bodies]
    low = np.where(found[..., None], points, np.inf).min(1)
    high = np.where(found[..., None], points, -np.inf).max(1)
    side = high - low
    if not side.max() > 0:  # all joints at one place say nothing
        return None
    scores = None if score is None else as_floats(score)[bodies][found]
    return points[found], scores, side[:, :2].max(1), side.max(1)


def pooled(values: Sequence[Values]) -> Values:
    """The values of several recordings with equally many coordinates, taken together."""
    scores = [one.score for one in values if one.score is not None]
    return Values(
        np.concatenate([one.points for one in values]),
        np.concatenate(scores) if len(scores) == len(values) else None,
        np.concatenate([one.size for one in values]),
        np.concatenate([one.size3 for one in values]),
        any(one.sized for one in values),
        2 * sum(one.turned for one in values) > len(values),
    )


def _middle(sizes: np.ndarray) -> float:
    """The median, as the size of one of the bodies even if there are two kinds."""
    return float(np.sort(sizes)[(len(sizes) - 1) // 2])


def as_floats(values: np.ndarray) -> np.ndarray:
    """The same numbers as float64; a signaling NaN of a damaged file becomes a quiet one."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def is_clip(keypoint: object) -> bool:
    """Whether keypoints are an array that a recording can have."""
    return (
        isinstance(keypoint, np.ndarray)
        and keypoint.dtype.kind in "fiu"
        and keypoint.ndim == 4
        and keypoint.shape[3] in (2, 3)
        and 0 not in keypoint.shape
    )


def _is_turned(keypoint: np.ndarray) -> bool:
    """Whether the first axis is time: it is long, and its neighbors are nearly at one place.

    Persons stand beside each other, a body in the next frame stands where it was. Clips of few
    frames are never taken for turned ones, whatever is in them.
    """
    first, second = keypoint.shape[:2]
    if first <= _AXIS or first <= second:
        return False
    bodies = as_floats(keypoint[:_NEIGHBORS, ..., :2])  # a third channel may be a score
    found = visible_joints(bodies) & np.isfinite(bodies).all(-1)
    both = found[1:] & found[:-1]
    pairs = both.any(-1)
    if np.count_nonzero(pairs) < _AXIS:
        return False
    step = np.linalg.norm(np.where(both[..., None], bodies[1:] - bodies[:-1], 0), axis=-1)
    mean = step.sum(-1)[pairs] / both.sum(-1)[pairs]
    low = np.where(found[..., None], bodies, np.inf).min(2)
    high = np.where(found[..., None], bodies, -np.inf).max(2)
    size = (high - low).max(-1)[:-1][pairs]
    near = mean < _NEAR * np.maximum(size, 1e-9)
    # copies of one person, as some files pad with, do not move at all
    return bool(near.mean() > 0.8 and mean.max() > 0)
