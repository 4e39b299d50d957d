"""pyskl / MMAction2 annotation pickles.

Layout: {"split": {name: [clip, ...]}, "annotations": [{"frame_dir", "label", "keypoint", ...}]};
the older layout is the bare list of annotations. The arrays are held in memory: the file for NTU
RGB+D 120 needs about 3 GB.
"""

import hashlib
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.io.files import file_hash
from maskclr_pl.sources.io.pickles import load_pickle
from maskclr_pl.sources.ntu import protocols as ntu
from maskclr_pl.sources.options import parse_frame_size, parse_path
from maskclr_pl.types import InputError

_MAX_VALUES = 10**7  # of a recording written as nested lists; a long one has 10**5
_MAX_NUMBER = 2**31 - 1  # a pickle may hold an integer of a million digits


class PysklSource:
    """Recordings of pyskl pickles.

    Args:
        path: The pickle, or several of the older layout, one per split: the splits are then named
            after the files.
        frame_size: (height, width) in pixels for annotations without `img_shape`.

    Raises:
        InputError: If a file cannot be read or has another layout.
    """

    skeleton: Skeleton | None = None
    parallel = False  # a pickle is one stream
    class_names: Sequence[str] | None = None
    units: str | None = None
    notes: Sequence[str] = ()

    def __init__(
        self, path: str | Path | Sequence[str | Path], frame_size: Sequence[int] | None = None
    ):
        paths = [
            parse_path("input", file)
            for file in (path if isinstance(path, list | tuple) else [path])
        ]
        if not paths:
            raise InputError("input=[]: expected one or more files")
        self.frame_size = parse_frame_size(frame_size)
        self.splits: dict[str, list[str]] = {}
        self._names: list[str] = []
        self._annotations: list[Any] = []
        self._file_of: list[Path] = []
        for file in paths:
            splits, annotations = _read_annotations(file)
            names = [_clip_name(file, i, item) for i, item in enumerate(annotations)]
            if not splits and len(paths) > 1:
                splits = {file.stem: names}
            for split, members in splits.items():
                self.splits.setdefault(split, []).extend(members)
            self._names += names
            self._annotations += annotations
            self._file_of += [file] * len(names)
        hashes = [file_hash(file) for file in paths]
        self.hash = (
            hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        )

    def __len__(self) -> int:
        return len(self._annotations)

    def name(self, index: int) -> str:
        """Return the `frame_dir` of a clip."""
        return self._names[index]

    def __getitem__(self, index: int) -> Recording:
        """Read one annotation."""
        return to_recording(
            self._file_of[index], self._names[index], self._annotations[index], self.frame_size
        )


def _read_annotations(path: Path) -> tuple[dict[str, list[str]], list[Any]]:
    """Return the splits (name -> clip names) and the annotations of a file."""
    content = load_pickle(path)
    if isinstance(content, list):  # MMAction2 0.x: one file per split
        content = {"split": {}, "annotations": content}
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise InputError(
            f"{path}: found {_describe(content)}, expected a pyskl dict with `split` and "
            "`annotations`"
        )
    splits = content.get("split") or {}
    if not isinstance(splits, dict) or not all(
        isinstance(names, list | tuple | set) and all(map(_is_name, [split, *names]))
        for split, names in splits.items()
    ):
        raise InputError(f"{path}: `split` is not a dict of lists of clip names")
    names_by_split = {str(split): [str(name) for name in names] for split, names in splits.items()}
    return names_by_split, content["annotations"]


def _clip_name(path: Path, index: int, item: Any) -> str:
    if not isinstance(item, dict):
        raise InputError(f"{path}: annotation {index} is {_describe(item)}, expected a dict")
    name = item.get("frame_dir", item.get("filename"))
    if not _is_name(name):
        raise InputError(f"{path}: annotation {index} has no `frame_dir` (the clip name)")
    return str(name)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**63)


def to_recording(
    path: Path, name: str, item: dict[str, Any], frame_size: Sequence[int] | None
) -> Recording:
    """Convert an annotation to a recording.

    Raises:
        InputError: If keypoints or label are missing or malformed.
    """
    for key in ("keypoint", "label"):
        if key not in item:
            hint = " (an index of Kinetics: use source=kinetics)" if "frame_inds" in item else ""
            raise InputError(f"{path}: clip {name!r} has no `{key}`{hint}")
    try:
        label = int(item["label"])
        if label != item["label"] or abs(label) > _MAX_NUMBER:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{path}: clip {name!r} has label {_shorten(item['label'])}, expected an integer"
        ) from None
    score, size, subject = (item.get(key) for key in ("keypoint_score", "img_shape", "subject"))
    ids = ntu.sample_ids(name)
    if not ids and isinstance(subject, int) and 0 <= subject <= _MAX_NUMBER:
        ids = {"subject": int(subject)}
    return Recording(
        name,
        label,
        to_array(path, name, item["keypoint"]),
        None if score is None else to_array(path, name, score),
        _frame_size(path, name, frame_size if size is None else size),
        **ids,
    )


def to_array(path: Path, name: str, values: Any) -> np.ndarray:
    """Convert a value of an annotation to an array.

    Raises:
        InputError: If it is ragged or has too many values.
    """
    if isinstance(values, list | tuple) and not _is_bounded(values):
        raise InputError(f"{path}: clip {name!r} has lists of more than {_MAX_VALUES} values")
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: clip {name!r} has ragged arrays ({error})") from None


def _is_bounded(values: Sequence[Any]) -> bool:
    """Check the total size of nested lists, which may be shared and so be huge in a small file."""
    level, count = [values], 0
    for _ in range(32):  # NumPy refuses deeper ones
        count += sum(map(len, level))
        if count > _MAX_VALUES:
            return False
        level = [inner for outer in level for inner in outer if isinstance(inner, list | tuple)]
    return True


def _frame_size(path: Path, name: str, size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        height, width = (int(side) for side in size)
    except (TypeError, ValueError, OverflowError):
        height = width = 0
    if not (0 < height <= _MAX_NUMBER and 0 < width <= _MAX_NUMBER):
        raise InputError(
            f"{path}: clip {name!r} has img_shape {_shorten(size)}, expected (height, width)"
        )
    return height, width


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        keys = ", ".join(_shorten(key) for key in list(content)[:4])
        return f"a dict with {keys or 'nothing'}"
    return f"a value of type {type(content).__name__}"


def _shorten(value: Any) -> str:
    """Represent a value, which may be nested deeply or have a million digits, in one line."""
    try:
        return reprlib.repr(np.asarray(value) if isinstance(value, np.ndarray) else value)
    except ValueError:
        return "a huge number"
