"""pyskl / MMAction2 annotation pickles, read without running any code in them.

Layout: {"split": {name: [clip, ...]}, "annotations": [{"frame_dir", "label", "keypoint", ...}]};
the older layout is the bare list of annotations.
"""

import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.data.store import Recording
from maskclr_pl.data.writing import file_hash
from maskclr_pl.types import InputError

NTU_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as pickle protocols 0 to 2 store them."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin-1")


class _DType:
    """Stands for a dtype: the state of a real one could turn bytes into pointers."""

    def __init__(self, text: str, *_: Any):
        self.dtype = np.dtype(text)
        if self.dtype.kind not in "biufcSU":
            raise pickle.UnpicklingError(f"an array of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose dtype is one of ours."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, order, data = state
        if not isinstance(dtype, _DType):
            raise pickle.UnpicklingError("an array without a dtype")
        super().__setstate__((version, shape, dtype.dtype, order, data))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    # `list`, `dict`: the factories of a defaultdict; `bytearray` etc. hold data only
    **{("builtins", t.__name__): t for t in (list, dict, set, int, float, bytearray, complex)},
}
for _numpy in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _ALLOWED[_numpy + ".multiarray", "_reconstruct"] = lambda *_: _Array((0,), "i1")
    _ALLOWED[_numpy + ".multiarray", "scalar"] = lambda dtype, data: np.frombuffer(
        data, dtype.dtype
    )[0]
    # what protocol 5 calls to make an array from a buffer
    _ALLOWED[_numpy + ".numeric", "_frombuffer"] = lambda buffer, dtype, shape, order: (
        np.frombuffer(buffer, dtype=dtype.dtype).reshape(shape, order=order)
    )


class RestrictedUnpickler(pickle.Unpickler):
    """Loads NumPy arrays and plain containers; anything else is refused before it is called."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The allowed global of that name."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load_pickle(path: str | Path) -> Any:
    """The content of a pickle that holds arrays, numbers, texts and plain containers.

    Raises:
        InputError: If the file is missing, is not such a pickle, or is cut short.
    """
    try:
        with open(path, "rb") as file:
            return RestrictedUnpickler(file).load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        if "it asks for" in str(error):
            raise InputError(
                f"{path}: refused, {error}, and a data file must hold arrays and plain values only"
            ) from None
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a pickle, or a damaged one ({reason})") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(
            f"{path}: not a pickle, or a damaged one ({type(error).__name__})"
        ) from None


class PysklSource:
    """Recordings of a pyskl pickle.

    Args:
        path: The pickle.
        frame_size: (height, width) for annotations without `img_shape`.

    Raises:
        InputError: If the file cannot be read or has another layout.
    """

    def __init__(self, path: str | Path, frame_size: Sequence[int] | None = None):
        self.path = Path(path)
        self.frame_size = frame_size
        content = load_pickle(self.path)
        self.hash = file_hash(self.path)
        if isinstance(content, list):  # MMAction2 0.x: one file per split
            content = {"split": {}, "annotations": content}
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            raise InputError(
                f"{self.path}: expected a dict with `split` and `annotations` (pyskl), "
                f"found {_describe(content)}"
            )
        splits = content.get("split") or {}
        if not isinstance(splits, dict) or not all(
            isinstance(names, list | tuple | set) for names in splits.values()
        ):
            raise InputError(f"{self.path}: `split` is not a dict of lists of clip names")
        self.splits = {str(split): [str(name) for name in names] for split, names in splits.items()}
        self._annotations: list[Any] = content["annotations"]
        if not self.splits:
            names = [self._name(i, item) for i, item in enumerate(self._annotations)]
            self.splits = {"all": names}

    def __len__(self) -> int:
        return len(self._annotations)

    def __iter__(self) -> Iterator[Recording]:
        for index, item in enumerate(self._annotations):
            yield self._recording(index, item)

    def _name(self, index: int, item: Any) -> str:
        if not isinstance(item, dict):
            raise InputError(f"{self.path}: annotation {index} is not a dict but {_describe(item)}")
        name = item.get("frame_dir", item.get("filename"))
        if name is None:
            raise InputError(f"{self.path}: annotation {index} has no `frame_dir`")
        return str(name)

    def _recording(self, index: int, item: Any) -> Recording:
        name = self._name(index, item)
        for key in ("keypoint", "label"):
            if key not in item:
                hint = " (a Kinetics index without its skeletons)" if "frame_inds" in item else ""
                raise InputError(f"{self.path}: clip {name!r} has no `{key}`{hint}")
        try:
            label = int(item["label"])
            if label != item["label"]:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"{self.path}: clip {name!r} has label {item['label']!r}, expected an integer"
            ) from None
        score = item.get("keypoint_score")
        return Recording(
            name,
            label,
            self._array(name, item["keypoint"]),
            None if score is None else self._array(name, score),
            self._size(name, item),
            **_ids(name, item.get("subject")),
        )

    def _array(self, name: str, values: Any) -> np.ndarray:
        try:
            return np.asarray(values)
        except ValueError as error:
            raise InputError(f"{self.path}: clip {name!r} has ragged arrays ({error})") from None

    def _size(self, name: str, item: dict[str, Any]) -> tuple[int, int] | None:
        size = item.get("img_shape")
        size = self.frame_size if size is None else size
        if size is None:
            return None
        try:
            height, width = (int(side) for side in size)
        except (TypeError, ValueError):
            height = width = 0
        if height <= 0 or width <= 0:
            raise InputError(
                f"{self.path}: clip {name!r} has img_shape {size!r}, expected (height, width)"
            )
        return height, width


def _ids(name: str, subject: Any) -> dict[str, int]:
    """Subject, camera and setup from an NTU name, else the subject that the file gives."""
    match = NTU_NAME.search(name)
    if match:
        setup, camera, performer = (int(group) for group in match.groups()[:3])
        return {"subject": performer, "camera": camera, "setup": setup}
    return {"subject": int(subject)} if isinstance(subject, int | np.integer) else {}


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        keys = ", ".join(repr(key) for key in list(content)[:4])
        return f"a dict with {keys or 'nothing'}"
    return f"a value of type {type(content).__name__}"
