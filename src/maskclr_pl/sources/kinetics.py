"""Kinetics-400 as pyskl and MMAction2 publish it: an index with the skeletons in separate files.

The index is a pyskl pickle whose annotations have, instead of keypoints, the frame number and the
box score of each of the N skeletons of a clip. The skeletons, (N, 17, 3) per clip, are in a folder:
either many clips to a pickle (pyskl's kpfiles, which the index names as `raw_file`), or
`<frame_dir>.pkl` for each clip (MMAction2).
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.sources.io.files import files_under, listing_hash
from maskclr_pl.sources.io.pickles import load_pickle
from maskclr_pl.sources.options import check_number, parse_path
from maskclr_pl.sources.pyskl import PysklSource, to_array, to_recording
from maskclr_pl.types import InputError


class KineticsSource(PysklSource):
    """Recordings of the Kinetics-400 index (`k400_hrnet.pkl`, `k400_2d.pkl`) and its skeletons.

    Only persons with a sufficient box score are read; the released loader does so only where it
    also drops clips by their `valid_ratio`. Scores are compared in double precision, which
    reproduces the published counts of frames (`valid`); half precision would admit a few more.

    Args:
        path: The index.
        skeletons: Folder of the skeletons, in either layout; clips are ordered by file, so that
            each file is loaded once.
        box_threshold: Lowest detector score of a person, from 0.5 to 0.9 (published: 0.5).
        max_persons: Persons kept in a frame, those with the highest summed joint scores (10).
        valid_ratio: Clips in which a smaller share of the frames has a person are left out, with a
            note, and so are clips without any person.
        frame_size: (height, width) in pixels for annotations without `img_shape`.

    Raises:
        InputError: If the index is not readable, the skeletons are missing, or an option is out of
            range.
    """

    def __init__(
        self,
        path: str | Path,
        skeletons: str | Path | None = None,
        box_threshold: float = 0.5,
        max_persons: int = 10,
        valid_ratio: float = 0.0,
        frame_size: Sequence[int] | None = None,
    ):
        # no box of the index has a lower score than 0.5
        check_number("source.box_threshold", box_threshold, 0.5, 0.9)
        check_number("source.max_persons", max_persons, 1)
        check_number("source.valid_ratio", valid_ratio, 0.0, 1.0)
        self.path = parse_path("input", path)
        super().__init__(path, frame_size)
        self.box_threshold, self.max_persons = box_threshold, max_persons
        if not any("frame_inds" in item for item in self._annotations):
            raise InputError(
                f"{self.path}: not a Kinetics index, no annotation has `frame_inds`; use "
                "source=pyskl for a pickle with keypoints"
            )
        if skeletons is None:
            raise InputError(
                f"{self.path}: the index has no skeletons; unpack k400_kpfiles_2d.zip of OpenMMLab "
                "Kinetics400-skeleton, or the kpfiles of pyskl, and pass source.skeletons=FOLDER"
            )
        self.skeletons = parse_path("source.skeletons", skeletons)
        if not os.path.isdir(self.skeletons):
            raise InputError(f"{self.skeletons}: no such folder (source.skeletons)")
        paths = files_under(self.skeletons, ".pkl")
        self.hash = hashlib.sha256(f"{self.hash} {listing_hash(paths)}".encode()).hexdigest()
        self._drop_sparse_clips(valid_ratio)
        self._sort_by_file(paths)
        self._loaded: tuple[Path | None, Any] = None, None

    def _drop_sparse_clips(self, valid_ratio: float) -> None:
        valid = [self._has_enough_frames(i, valid_ratio) for i in range(len(self))]
        dropped = {name for name, is_valid in zip(self._names, valid, strict=True) if not is_valid}
        if dropped:
            self.notes = [
                f"{len(dropped)} of {len(self)} clips are left out: too few frames with a box "
                f"score of {self.box_threshold:g} or more"
            ]
        self._reorder([i for i, is_valid in enumerate(valid) if is_valid])
        self.splits = {
            split: [name for name in names if name not in dropped]
            for split, names in self.splits.items()
        }

    def _has_enough_frames(self, index: int, valid_ratio: float) -> bool:
        """Check the share of frames with a person; malformed clips pass until they are read."""
        try:
            frame, valid = self._read_boxes(index)
            total = float(self._annotations[index]["total_frames"]) if valid_ratio > 0 else 1.0
        except (InputError, KeyError, TypeError, ValueError, OverflowError):
            return True
        return bool(valid.any()) and len(np.unique(frame[valid])) >= valid_ratio * total

    def _sort_by_file(self, paths: Sequence[Path]) -> None:
        """Find the skeleton file of each clip and bring the clips of a file together."""
        paths_by_name = defaultdict(list)
        for path in paths:
            paths_by_name[path.name].append(path)
        files = [
            _find_file(paths_by_name, name, item)
            for name, item in zip(self._names, self._annotations, strict=True)
        ]
        if self._names and not any(files):
            raise InputError(
                f"{self.skeletons}: none of its {len(paths)} .pkl files belongs to a clip of "
                f"{self.path}; expected e.g. {self._names[0]}.pkl, or the `raw_file`s of the index"
            )
        order = sorted(range(len(files)), key=lambda i: (str(files[i] or ""), i))
        self._reorder(order)
        self._files = [files[i] for i in order]

    def _reorder(self, order: Sequence[int]) -> None:
        self._annotations = [self._annotations[i] for i in order]
        self._names = [self._names[i] for i in order]
        self._file_of = [self._file_of[i] for i in order]

    def __getitem__(self, index: int) -> Recording:
        """Read one clip; person slots are not tracks, see `decompress_poses`."""
        frame, valid = self._read_boxes(index)
        keypoint = self._read_skeletons(index, len(frame))
        if not valid.any():
            raise InputError(
                f"{self.path}: clip {self._names[index]!r} has no box with a score of "
                f"{self.box_threshold:g} or more"
            )
        poses, score = decompress_poses(keypoint[valid], frame[valid], self.max_persons)
        item = {**self._annotations[index], "keypoint": poses, "keypoint_score": score}
        return to_recording(self.path, self._names[index], item, self.frame_size)

    def _read_boxes(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the frame number and whether the box score suffices, both (N,), per skeleton."""
        name, item = self._names[index], self._annotations[index]
        columns = []
        for key, kinds in (("frame_inds", "iu"), ("box_score", "f")):
            column = to_array(self.path, name, item.get(key))
            if column.ndim != 1 or column.dtype.kind not in kinds:
                raise InputError(
                    f"{self.path}: clip {name!r}: `{key}` is not a list of one number per skeleton"
                )
            columns.append(column)
        frame, box_score = columns
        if len(frame) != len(box_score):
            raise InputError(
                f"{self.path}: clip {name!r} has {len(frame)} frame_inds, but {len(box_score)} "
                "box scores"
            )
        # in half precision the thresholds 0.8 and 0.9 would be rounded down
        return frame, box_score.astype(np.float64) >= self.box_threshold

    def _read_skeletons(self, index: int, count: int) -> np.ndarray:
        """Return the (N, V, 3) skeletons of a clip: x, y in pixels, and score."""
        name, path = self._names[index], self._files[index]
        if path is None:
            raw = self._annotations[index].get("raw_file")
            alternative = f" or {raw!r}" if isinstance(raw, str) else ""
            raise InputError(
                f"{self.skeletons}: no skeletons of clip {name!r}; expected {name}.pkl{alternative}"
            )
        content = self._load(path)
        entry = content.get(name, content) if isinstance(content, dict) else None
        if not isinstance(entry, dict) or "keypoint" not in entry:
            raise InputError(f"{path}: no skeletons of clip {name!r} in this file")
        keypoint = to_array(path, name, entry["keypoint"])
        if keypoint.dtype.kind not in "fiu" or keypoint.ndim != 3 or keypoint.shape[2] != 3:
            raise InputError(
                f"{path}: clip {name!r} has keypoints of shape {keypoint.shape} and type "
                f"{keypoint.dtype}, expected numbers (skeletons, joints, 3)"
            )
        if len(keypoint) != count:
            raise InputError(
                f"{path}: clip {name!r} has {len(keypoint)} skeletons, but {count} in the index"
            )
        with np.errstate(over="ignore"):  # infinities are refused when a store is written
            return keypoint if keypoint.dtype == np.float16 else keypoint.astype(np.float32)

    def _load(self, path: Path) -> Any:
        """Read a file, or raise its error again; the last one is cached."""
        if self._loaded[0] != path:
            self._loaded = None, None  # never two files in memory
            try:
                self._loaded = path, load_pickle(path)
            except InputError as error:
                self._loaded = path, error
        if isinstance(self._loaded[1], InputError):
            raise self._loaded[1]
        return self._loaded[1]


def _find_file(
    paths_by_name: dict[str, list[Path]], name: str, item: dict[str, Any]
) -> Path | None:
    """Return the file of a clip: `<name>.pkl`, else the one most similar to its `raw_file`."""
    if paths := paths_by_name.get(f"{name}.pkl"):
        return paths[0]
    raw_file = item.get("raw_file")
    raw = Path(raw_file if isinstance(raw_file, str) else "")

    def common_tail(path: Path) -> int:
        ends = zip(reversed(path.parts), reversed(raw.parts), strict=False)
        return len(list(takewhile(lambda pair: pair[0] == pair[1], ends)))

    return max(paths_by_name.get(raw.name, []), key=common_tail, default=None)


def decompress_poses(
    keypoint: np.ndarray, frame: np.ndarray, max_persons: int
) -> tuple[np.ndarray, np.ndarray]:
    """Arrange skeletons with frame numbers as an array (pyskl's DecompressPose).

    Frames without a skeleton are dropped. Slot k of a frame is its k-th skeleton in the order of
    the file (by falling box score), so slots are not tracks. If a frame has more than
    `max_persons`, every frame is sorted by summed joint score first.

    Args:
        keypoint: (N, V, 3) x, y and score, in any order of frames.
        frame: (N,) frame number of each.
        max_persons: Most persons kept in a frame.

    Returns:
        keypoint: (M, T, V, 2), M the largest number of persons in a frame, T the number of frames
            that have any; zeros where a frame has fewer persons.
        score: (M, T, V).
    """
    _, time, count = np.unique(frame, return_inverse=True, return_counts=True)
    if count.max() > max_persons:
        with np.errstate(all="ignore"):  # NaN ranks last, and is refused later
            rank = -keypoint[..., 2].sum(axis=1, dtype=np.float32)
        order = np.lexsort((rank, time))
    else:
        order = np.argsort(time, kind="stable")
    slot = np.arange(len(order)) - np.repeat(count.cumsum() - count, count)
    order, slot = order[slot < max_persons], slot[slot < max_persons]
    shape = (min(int(count.max()), max_persons), len(count), *keypoint.shape[1:])
    poses = np.zeros(shape, keypoint.dtype)
    poses[slot, time[order]] = keypoint[order]  # (M, T, V, 3)
    return poses[..., :2], poses[..., 2]
