"""Pickles from strangers: arrays and plain values are read, nothing in them is run."""

import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.types import InputError


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


def allowed(module: str, name: str) -> Callable[..., Any]:
    """The harmless stand-in for a global; an UnpicklingError for any other."""
    try:
        return _ALLOWED[module, name]
    except KeyError:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


class RestrictedUnpickler(pickle.Unpickler):
    """Loads NumPy arrays and plain containers; anything else is refused before it is called."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The allowed global of that name."""
        return allowed(module, name)


@contextmanager
def reading_pickle(path: str | Path) -> Iterator[None]:
    """Whatever goes wrong while a pickle is read becomes an InputError that names the file."""
    try:
        yield
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


def load_pickle(path: str | Path) -> Any:
    """The content of a pickle that holds arrays, numbers, texts and plain containers.

    Raises:
        InputError: If the file is missing, is not such a pickle, or is cut short.
    """
    with reading_pickle(path), open(path, "rb") as file:
        return RestrictedUnpickler(file).load()
