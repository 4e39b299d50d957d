"""One pass over the rows of a store, in blocks, so that memory does not grow with its size."""

from collections.abc import Iterator
from typing import NamedTuple

import h5py
import numpy as np
from jaxtyping import Float, Int

from maskclr_pl.data.store.checks import is_size_swapped, outside_image
from maskclr_pl.data.store.hdf5 import open_hdf5
from maskclr_pl.data.store.reader import Store
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.visibility import visible_joints

_VALUES = 1 << 20  # coordinates in a block: it stays in the cache, and NumPy's overhead is small
_BEYOND = 1.25  # image sides: estimators guess joints so far outside, from boxes with a margin
_HEADS = ("head", "nose", "neck", "spine_shoulder", "shoulder_center")


def measure_store(store: Store) -> dict[str, np.ndarray]:
    """Read all rows once; memory stays below about 100 MB, unless a single clip is larger.

    Returns:
        The fields of `Inspection` that have a value per clip, and `bodies` (n,), the number of
        bodies; with a row per block `low` and `high` (blocks, C), `score_low` and `score_high`
        (blocks,), infinite if there are none, and `missing` (blocks, V), the number of bodies in
        which a joint is not visible.
    """
    # coordinates near the largest float, or not finite, are counted, not warned of
    with open_hdf5(store.path) as file, np.errstate(over="ignore", invalid="ignore"):
        parts = [_measure(block, store.skeleton) for block in _blocks(store, file)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def joint_extent(store: Store) -> tuple[np.ndarray, np.ndarray, float]:
    """Where the joints of a store of pixels are in their images.

    Returns:
        low: (2,) smallest x and y of the joints found; infinite if there are none.
        high: (2,) largest.
        beyond: Share of these joints far beyond the right or the lower side of their image.
    """
    low, high, count, beyond = np.full(2, np.inf), np.full(2, -np.inf), 0, 0
    with open_hdf5(store.path) as file, np.errstate(over="ignore", invalid="ignore"):
        for block in _blocks(store, file):
            points = np.moveaxis(block.points, 0, -1)
            visible = visible_joints(points, block.score) & np.isfinite(points).all(-1)
            assert block.frame_size is not None
            far = (points > _BEYOND * block.frame_size[block.clip][:, ::-1]).any(-1)
            count, beyond = count + visible.sum(), beyond + (far & visible).sum()
            inside = points[visible]
            if len(inside):
                low, high = np.minimum(low, inside.min(0)), np.maximum(high, inside.max(0))
    return low, high, float(beyond / max(1, count))


class _Block(NamedTuple):
    """Neighbouring clips; R rows, k clips. Planes of rows, because they vectorise."""

    points: Float[np.ndarray, "C V R"]
    score: Float[np.ndarray, "V R"] | None
    frames: Int[np.ndarray, " k"]
    persons: Int[np.ndarray, " k"]
    frame_size: Int[np.ndarray, "k 2"] | None

    @property
    def first(self) -> np.ndarray:
        """First row of each clip."""
        return _offsets(self.frames * self.persons)

    @property
    def clip(self) -> np.ndarray:
        """Clip of each row."""
        return np.repeat(np.arange(len(self.frames)), self.frames * self.persons)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], lengths.cumsum()[:-1]])


def _blocks(store: Store, file: h5py.File) -> Iterator[_Block]:
    rows = store.frames.astype(np.int64) * store.persons
    end = store.start + rows
    most = max(1, _VALUES // int(np.prod(file["keypoint"].shape[1:])))
    begin = 0
    while begin < len(store):
        stop = max(begin + 1, int(np.searchsorted(end, store.start[begin] + most, side="right")))
        clips, cut = slice(begin, stop), slice(int(store.start[begin]), int(end[stop - 1]))
        points = file["keypoint"][cut]
        yield _Block(
            np.ascontiguousarray(points.T, np.result_type(points.dtype, np.float32)),
            np.ascontiguousarray(file["score"][cut].T, np.float32) if "score" in file else None,
            store.frames[clips].astype(np.int64),
            store.persons[clips].astype(np.int64),
            None if store.frame_size is None else store.frame_size[clips],
        )
        begin = stop


def _measure(block: _Block, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """Everything about the clips of a block, and totals of the block."""
    finite = np.isfinite(block.points).all(0)
    if block.score is None:
        scores = np.array([np.inf, -np.inf])
    else:
        number = np.isfinite(block.score)
        finite &= number
        scores = np.array(
            [
                block.score.min(where=number, initial=np.inf),
                block.score.max(where=number, initial=-np.inf),
            ]
        )
    visible = visible_joints(np.moveaxis(block.points, 0, -1), block.score) & finite
    body = visible.any(0)
    bodies = _sum(block, body)
    return {
        "visible": _sum(block, visible.sum(0)),
        "not_finite": _sum(block, (~finite).sum(0)),
        "frozen": (_sum(block, _moves(block)) == 0) & (block.frames > 1) & (bodies > 0),
        "drop": _drop(block, visible, skeleton),
        **_extent(block, visible, body),
        **_image(block, visible),
        **_presence(block, body),
        "score_low": scores[:1],
        "score_high": scores[1:],
        "missing": (body.sum() - visible.sum(1))[None],
        "bodies": bodies,
    }


def _sum(block: _Block, rows: np.ndarray) -> Int[np.ndarray, " k"]:
    """Sum over the rows of each clip."""
    return np.add.reduceat(rows, block.first, dtype=np.int64)


def _mean(block: _Block, rows: np.ndarray, there: np.ndarray) -> Float[np.ndarray, " k"]:
    """Mean over those rows of each clip that are `there`, NaN if none is."""
    total = np.add.reduceat(np.where(there, rows, 0), block.first, dtype=np.float64)
    number = _sum(block, there)
    return total / np.where(number, number, np.nan)


def _extent(block: _Block, visible: np.ndarray, body: np.ndarray) -> dict[str, np.ndarray]:
    """Range of the coordinates, and how large the bodies are."""
    low = np.where(visible, block.points, np.inf).min(1)
    high = np.where(visible, block.points, -np.inf).max(1)
    side = (np.where(body, high, 0) - np.where(body, low, 0)).max(0)
    return {"size": _mean(block, side, body), "low": low.min(1)[None], "high": high.max(1)[None]}


def _drop(block: _Block, visible: np.ndarray, skeleton: Skeleton) -> Float[np.ndarray, " k"]:
    """Mean y of the feet minus y of the head, over bodies that show both."""
    head = [skeleton.joints.index(name) for name in _HEADS if name in skeleton.joints][:1]
    feet = [i for i, name in enumerate(skeleton.joints) if name.endswith(("ankle", "foot"))]
    if not head or not feet:
        return np.full(len(block.frames), np.nan)
    y = np.where(visible, block.points[1], 0)
    number = visible[feet].sum(0)
    there = visible[head[0]] & (number > 0)
    return _mean(block, y[feet].sum(0) / np.maximum(number, 1) - y[head[0]], there)


def _moves(block: _Block) -> np.ndarray:
    """(R,) Whether the row is unlike the row before, which is the frame before of that person."""
    moves = np.zeros(block.points.shape[2], dtype=bool)
    moves[1:] = (block.points[..., 1:] != block.points[..., :-1]).any((0, 1))
    moves[_offsets(np.repeat(block.frames, block.persons))] = False
    return moves


def _presence(block: _Block, body: np.ndarray) -> dict[str, np.ndarray]:
    """Persons that are seen, frames without any, and how often persons come back."""
    clip, first = block.clip, block.first
    first_frame, first_person = _offsets(block.frames), _offsets(block.persons)
    at = np.arange(len(clip)) - first[clip]
    occupied = np.zeros(block.frames.sum(), dtype=bool)
    occupied[(first_frame[clip] + at % block.frames[clip])[body]] = True
    starts = body.copy()  # of the stretches of frames in which a person is there
    starts[1:] &= ~body[:-1] | (at[1:] % block.frames[clip[1:]] == 0)
    person = first_person[clip] + at // block.frames[clip]
    stretches = np.bincount(person[starts], minlength=int(block.persons.sum()))
    return {
        "persons": np.add.reduceat(stretches > 0, first_person, dtype=np.int64),
        "empty": block.frames - np.add.reduceat(occupied, first_frame, dtype=np.int64),
        "returns": np.add.reduceat(np.maximum(stretches - 1, 0), first_person),
    }


def _image(block: _Block, visible: np.ndarray) -> dict[str, np.ndarray]:
    """Joints outside the image, as it is and with height and width exchanged."""
    if block.frame_size is None:
        none = np.zeros(len(block.frames), dtype=np.int64)
        return {"outside": none, "swapped": none.astype(bool)}
    size = block.frame_size[block.clip].T
    height, width = size
    x, y = block.points

    outside, exchanged = (
        _sum(block, (visible & outside_image(x, y, *sides)).sum(0))
        for sides in ((height, width), (width, height))
    )
    swapped = is_size_swapped(_sum(block, visible.sum(0)), outside, exchanged)
    return {"outside": outside, "swapped": swapped}
