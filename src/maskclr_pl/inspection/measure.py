"""One pass over the rows of a store, in blocks, so that memory does not grow with its size."""

from collections.abc import Iterator
from typing import NamedTuple

import h5py
import numpy as np
from jaxtyping import Bool, Float, Int

from maskclr_pl.data.store.checks import is_size_swapped, outside_image
from maskclr_pl.data.store.hdf5 import open_hdf5
from maskclr_pl.data.store.reader import Store
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.visibility import visible_joints

_VALUES = 1 << 20  # coordinates in a block: it stays in the cache, and NumPy's overhead is small
_BEYOND = 1.25  # image sides: estimators guess joints so far outside, from boxes with a margin
_HEADS = ("head", "nose", "neck", "spine_shoulder", "shoulder_center")


def measure_store(store: Store) -> dict[str, np.ndarray]:
    """Read all rows once; memory stays below about 100 MB unless a single clip is larger.

    Returns:
        The fields of `Inspection` that have a value per clip, and `bodies` (n,), the number of
        bodies; with a row per block `low` and `high` (blocks, C), `score_low` and `score_high`
        (blocks,), infinite if there are none, and `missing` (blocks, V), the number of bodies in
        which a joint is not visible.
    """
    # coordinates near the largest float, or not finite, are counted and need no warning
    with open_hdf5(store.path) as file, np.errstate(over="ignore", invalid="ignore"):
        results = [_measure(block, store.skeleton) for block in _blocks(store, file)]
    return {key: np.concatenate([result[key] for result in results]) for key in results[0]}


def joint_extent(store: Store) -> tuple[np.ndarray, np.ndarray, float]:
    """Return where the visible joints of a store of pixels are in their images.

    Returns:
        low: (2,) smallest x and y; infinite if no joint is visible.
        high: (2,) largest x and y.
        beyond: Share of these joints far beyond the right or the lower side of their image.
    """
    low, high, count, beyond = np.full(2, np.inf), np.full(2, -np.inf), 0, 0
    with open_hdf5(store.path) as file, np.errstate(over="ignore", invalid="ignore"):
        for block in _blocks(store, file):
            assert block.frame_size is not None
            visible = block.visible() & np.isfinite(block.points).all(0)  # (V, R)
            size = block.frame_size[block.clip].T[::-1, None]  # (width and height, 1, R)
            far = (block.points > _BEYOND * size).any(0)
            count, beyond = count + visible.sum(), beyond + (far & visible).sum()
            points = block.points[:, visible]
            low = np.minimum(low, points.min(1, initial=np.inf))
            high = np.maximum(high, points.max(1, initial=-np.inf))
    return low, high, float(beyond / max(1, count))


class _Block(NamedTuple):
    """k neighboring clips with R rows, stored as planes of rows because those vectorize.

    A row is one person in one frame; the frames of a person are neighbors.
    """

    points: Float[np.ndarray, "C V R"]
    score: Float[np.ndarray, "V R"] | None
    frames: Int[np.ndarray, " k"]
    persons: Int[np.ndarray, " k"]
    frame_size: Int[np.ndarray, "k 2"] | None

    @property
    def first(self) -> Int[np.ndarray, " k"]:
        """First row of each clip."""
        return _offsets(self.frames * self.persons)

    @property
    def clip(self) -> Int[np.ndarray, " R"]:
        """Clip of each row."""
        return np.repeat(np.arange(len(self.frames)), self.frames * self.persons)

    def visible(self) -> Bool[np.ndarray, "V R"]:
        """Return which joints are visible, finite or not."""
        return visible_joints(np.moveaxis(self.points, 0, -1), self.score)

    def sum(self, rows: np.ndarray) -> Int[np.ndarray, " k"]:
        """Sum over the rows of each clip."""
        return np.add.reduceat(rows, self.first, dtype=np.int64)

    def mean(self, rows: np.ndarray, valid: np.ndarray) -> Float[np.ndarray, " k"]:
        """Average over the valid rows of each clip; NaN if there are none."""
        total = np.add.reduceat(np.where(valid, rows, 0), self.first, dtype=np.float64)
        count = self.sum(valid)
        return total / np.where(count, count, np.nan)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], lengths.cumsum()[:-1]])


def _blocks(store: Store, file: h5py.File) -> Iterator[_Block]:
    end = store.start + store.frames.astype(np.int64) * store.persons
    max_rows = max(1, _VALUES // int(np.prod(file["keypoint"].shape[1:])))
    begin = 0
    while begin < len(store):
        last = np.searchsorted(end, store.start[begin] + max_rows, side="right")
        stop = max(begin + 1, int(last))
        clips, rows = slice(begin, stop), slice(int(store.start[begin]), int(end[stop - 1]))
        points = file["keypoint"][rows]
        yield _Block(
            np.ascontiguousarray(points.T, np.result_type(points.dtype, np.float32)),
            np.ascontiguousarray(file["score"][rows].T, np.float32) if "score" in file else None,
            store.frames[clips].astype(np.int64),
            store.persons[clips].astype(np.int64),
            None if store.frame_size is None else store.frame_size[clips],
        )
        begin = stop


def _measure(block: _Block, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """Measure the clips of a block, and the block as a whole."""
    finite = np.isfinite(block.points).all(0)
    scores = np.zeros(0) if block.score is None else block.score[np.isfinite(block.score)]
    if block.score is not None:
        finite &= np.isfinite(block.score)
    visible = block.visible() & finite
    body = visible.any(0)
    bodies = block.sum(body)
    return {
        "visible": block.sum(visible.sum(0)),
        "not_finite": block.sum((~finite).sum(0)),
        "frozen": (block.sum(_moves(block)) == 0) & (block.frames > 1) & (bodies > 0),
        "drop": _drop(block, visible, skeleton),
        **_extent(block, visible, body),
        **_image(block, visible),
        **_presence(block, body),
        "score_low": scores.min(initial=np.inf, keepdims=True),
        "score_high": scores.max(initial=-np.inf, keepdims=True),
        "missing": (body.sum() - visible.sum(1))[None],
        "bodies": bodies,
    }


def _extent(block: _Block, visible: np.ndarray, body: np.ndarray) -> dict[str, np.ndarray]:
    """Measure the range of the coordinates and the size of the bodies."""
    low = np.where(visible, block.points, np.inf).min(1)  # (C, R)
    high = np.where(visible, block.points, -np.inf).max(1)
    side = (np.where(body, high, 0) - np.where(body, low, 0)).max(0)
    size = block.mean(side, body)
    return {"size": size, "low": low.min(1)[None], "high": high.max(1)[None]}


def _drop(block: _Block, visible: np.ndarray, skeleton: Skeleton) -> Float[np.ndarray, " k"]:
    """Average y of the feet minus y of the head over the bodies in which both are visible."""
    head = next((skeleton.joints.index(name) for name in _HEADS if name in skeleton.joints), None)
    feet = [i for i, name in enumerate(skeleton.joints) if name.endswith(("ankle", "foot"))]
    if head is None or not feet:
        return np.full(len(block.frames), np.nan)
    y = np.where(visible, block.points[1], 0)
    count = visible[feet].sum(0)
    drop = y[feet].sum(0) / np.maximum(count, 1) - y[head]
    return block.mean(drop, visible[head] & (count > 0))


def _moves(block: _Block) -> Bool[np.ndarray, " R"]:
    """Return which rows differ from the frame before of the same person."""
    moves = np.zeros(block.points.shape[2], dtype=bool)
    moves[1:] = (block.points[..., 1:] != block.points[..., :-1]).any((0, 1))
    moves[_offsets(np.repeat(block.frames, block.persons))] = False
    return moves


def _presence(block: _Block, body: np.ndarray) -> dict[str, np.ndarray]:
    """Count visible persons, frames without any, and how often persons come back."""
    clip = block.clip
    first_frame, first_person = _offsets(block.frames), _offsets(block.persons)
    row = np.arange(len(clip)) - block.first[clip]  # in the clip
    person, frame = np.divmod(row, block.frames[clip])
    occupied = np.zeros(block.frames.sum(), dtype=bool)
    occupied[(first_frame[clip] + frame)[body]] = True
    starts = body.copy()  # first frames of the stretches in which a person is visible
    starts[1:] &= ~body[:-1] | (frame[1:] == 0)
    person += first_person[clip]
    stretches = np.bincount(person[starts], minlength=int(block.persons.sum()))
    return {
        "persons": np.add.reduceat(stretches > 0, first_person, dtype=np.int64),
        "empty": block.frames - np.add.reduceat(occupied, first_frame, dtype=np.int64),
        "returns": np.add.reduceat(np.maximum(stretches - 1, 0), first_person),
    }


def _image(block: _Block, visible: np.ndarray) -> dict[str, np.ndarray]:
    """Count joints outside of the image, as it is and with height and width swapped."""
    if block.frame_size is None:
        zeros = np.zeros(len(block.frames), dtype=np.int64)
        return {"outside": zeros, "swapped": zeros.astype(bool)}
    height, width = block.frame_size[block.clip].T
    x, y = block.points
    outside = block.sum((visible & outside_image(x, y, height, width)).sum(0))
    outside_swapped = block.sum((visible & outside_image(x, y, width, height)).sum(0))
    swapped = is_size_swapped(block.sum(visible.sum(0)), outside, outside_swapped)
    return {"outside": outside, "swapped": swapped}
