"""pyskl / MMAction2 annotation pickles.

Layout: {"split": {name: [clip, ...]}, "annotations": [{"frame_dir", "label", "keypoint", ...}]};
the older layout is the bare list of annotations.
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
from maskclr_pl.sources.io.pickles import LazyArray, load_pickle
from maskclr_pl.sources.ntu import protocols as ntu
from maskclr_pl.sources.options import parse_frame_size, parse_path
from maskclr_pl.types import InputError

_MOST_VALUES = 10**7  # of a recording that is written as lists; a long one has 10**5
_LARGEST = 2**31 - 1  # of a number that means something; a pickle may hold one of a million digits


class PysklSource:
    """Recordings of pyskl pickles.

    Args:
        path: The pickle, or several of the older layout, one a split: the splits are then named
            like the files.
        frame_size: (height, width) for annotations without `img_shape`.

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
        given = path if isinstance(path, list | tuple) else [path]
        paths = [parse_path("input", one) for one in given]
        if not paths:
            raise InputError("input=[]: expected a file, or several")
        self.frame_size = parse_frame_size(frame_size)
        self.splits: dict[str, list[str]] = {}
        self._names: list[str] = []
        self._annotations: list[Any] = []
        self._file_of: list[Path] = []
        for one in paths:
            splits, annotations = _content(one)
            names = [_name(one, i, item) for i, item in enumerate(annotations)]
            if not splits and len(paths) > 1:
                splits = {one.stem: names}
            for split, members in splits.items():
                self.splits.setdefault(split, []).extend(members)
            self._names += names
            self._annotations += annotations
            self._file_of += [one] * len(names)
        hashes = [file_hash(one) for one in paths]
        self.hash = (
            hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        )

    def __len__(self) -> int:
        return len(self._annotations)

    def name(self, index: int) -> str:
        """The clip's `frame_dir`."""
        return self._names[index]

    def __getitem__(self, index: int) -> Recording:
        """The annotation as a recording."""
        return to_recording(
            self._file_of[index], self._names[index], self._annotations[index], self.frame_size
        )


def _content(path: Path) -> tuple[dict[str, list[str]], list[Any]]:
    """Splits and annotations of a file."""
    content = load_pickle(path)
    if isinstance(content, list):  # MMAction2 0.x: one file per split
        content = {"split": {}, "annotations": content}
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise InputError(
            f"{path}: expected a dict with `split` and `annotations` (pyskl), "
            f"found {_describe(content)}"
        )
    splits = content.get("split") or {}
    if not isinstance(splits, dict) or not all(
        isinstance(names, list | tuple | set) and all(map(_is_name, [split, *names]))
        for split, names in splits.items()
    ):
        raise InputError(f"{path}: `split` is not a dict of lists of clip names")
    named = {str(split): [str(name) for name in names] for split, names in splits.items()}
    return named, content["annotations"]


def _name(path: Path, index: int, item: Any) -> str:
    if not isinstance(item, dict):
        raise InputError(f"{path}: annotation {index} is not a dict but {_describe(item)}")
    name = item.get("frame_dir", item.get("filename"))
    if not _is_name(name):
        raise InputError(f"{path}: annotation {index} has no `frame_dir`, the name of its clip")
    return str(name)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**63)


def to_recording(
    path: Path, name: str, item: dict[str, Any], frame_size: Sequence[int] | None
) -> Recording:
    """An annotation as a recording.

    Raises:
        InputError: If it has no keypoints or label, or they are of another kind.
    """
    item = {k: np.asarray(v) if isinstance(v, LazyArray) else v for k, v in item.items()}
    for key in ("keypoint", "label"):
        if key not in item:
            hint = ""
            if "frame_inds" in item:
                hint = " (a Kinetics index without its skeletons: type source=kinetics)"
            raise InputError(f"{path}: clip {name!r} has no `{key}`{hint}")
    try:
        label = int(item["label"])
        if label != item["label"] or abs(label) > _LARGEST:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{path}: clip {name!r} has label {_shown(item['label'])}, expected an integer"
        ) from None
    score, size = item.get("keypoint_score"), item.get("img_shape")
    return Recording(
        name,
        label,
        to_array(path, name, item["keypoint"]),
        None if score is None else to_array(path, name, score),
        _size(path, name, frame_size if size is None else size),
        **(ntu.ids(name) or _subject(item.get("subject"))),
    )


def _subject(given: Any) -> dict[str, int]:
    known = isinstance(given, int | np.integer) and 0 <= given <= _LARGEST
    return {"subject": int(given)} if known else {}


def to_array(path: Path, name: str, values: Any) -> np.ndarray:
    """A value of an annotation as an array."""
    if isinstance(values, list | tuple) and not _is_countable(values):
        raise InputError(f"{path}: clip {name!r} has lists of more than {_MOST_VALUES} values")
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: clip {name!r} has ragged arrays ({error})") from None


def _is_countable(values: Sequence[Any]) -> bool:
    """Whether lists in lists have a sensible number of values.

    A small pickle can hold a list that twice holds a list that twice holds ...
    """
    level, count = [values], 0
    for _ in range(32):  # NumPy refuses deeper ones
        count += sum(map(len, level))
        if count > _MOST_VALUES:
            return False
        level = [inner for outer in level for inner in outer if isinstance(inner, list | tuple)]
    return True


def _size(path: Path, name: str, size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        height, width = (int(side) for side in size)
    except (TypeError, ValueError, OverflowError):
        height = width = 0
    if not (0 < height <= _LARGEST and 0 < width <= _LARGEST):
        raise InputError(
            f"{path}: clip {name!r} has img_shape {_shown(size)}, expected (height, width)"
        )
    return height, width


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        keys = ", ".join(_shown(key) for key in list(content)[:4])
        return f"a dict with {keys or 'nothing'}"
    return f"a value of type {type(content).__name__}"


def _shown(value: Any) -> str:
    """A value as far as a line can show it: it may be nested deeply, or have a million digits."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a huge number"
