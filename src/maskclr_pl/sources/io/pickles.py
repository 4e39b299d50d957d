"""Restricted unpickling of data files: arrays and plain values are read, nothing is executed.

All arrays are held in memory; pyskl's file for NTU RGB+D 120 needs about 3 GB.
"""

import math
import pickle
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from maskclr_pl.errors import InputError
from maskclr_pl.reading import check_no_device

_KEY_TYPES = (str, bytes, int, float, complex, type(None))


class _DType:
    """Stand-in for a dtype: the state of a real one could turn bytes into pointers."""

    def __init__(self, text: str, *_: Any):
        self.dtype = np.dtype(text)
        if self.dtype.kind not in "biufcSU":
            raise pickle.UnpicklingError(f"an array of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose state is checked before it is set."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array without a dtype or without data")
        if not dtype.dtype.itemsize or min(shape, default=0) < 0:
            raise pickle.UnpicklingError("an array with an impossible shape")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise pickle.UnpicklingError("an array whose size differs from its data")
        checked: Any = (1, tuple(shape), dtype.dtype, bool(fortran), data)
        super().__setstate__(checked)


def _reconstruct(*_: Any) -> _Array:
    """Create an empty array, as in NumPy: the pickle sets its state next."""
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """Create an array from its data (pickle protocol 5)."""
    array = _reconstruct()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: _DType, data: bytes) -> Any:
    return np.frombuffer(data, dtype.dtype)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """Restore bytes, which pickle protocols 0 to 2 store as text."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin-1")


def _check_keys(keys: Iterable[Any]) -> None:
    """Refuse containers as keys: hashing a deeply nested tuple would crash the process."""
    for key in keys:
        if not isinstance(key, _KEY_TYPES):
            raise pickle.UnpicklingError(f"a key of type {type(key).__name__}")


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    pairs = [(key, value) for key, value in pairs]
    _check_keys(key for key, _ in pairs)
    return dict(pairs)


def _set(members: Any = ()) -> set[Any]:
    members = list(members)
    _check_keys(members)
    return set(members)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): None,  # only an argument of `_reconstruct`, never called
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _dict,
    ("collections", "defaultdict"): lambda *_: {},
    ("builtins", "dict"): _dict,
    ("builtins", "set"): _set,
    ("builtins", "bytes"): lambda: b"",  # how protocols 0 to 2 write empty bytes
    # `list` and `int` are factories of a defaultdict
    **{("builtins", t.__name__): t for t in (list, int, float, complex)},
}
for _numpy in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _ALLOWED[_numpy + ".multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[_numpy + ".multiarray", "scalar"] = _scalar
    _ALLOWED[_numpy + ".numeric", "_frombuffer"] = _from_buffer


class _BoundedFile:
    """A file that refuses to read more than it holds before memory is allocated for it."""

    def __init__(self, file: BinaryIO):
        self._file, self.readline = file, file.readline
        self._size = file.seek(0, 2)
        file.seek(0)

    def read(self, size: int) -> bytes:
        if size > self._size - self._file.tell():
            raise EOFError
        return self._file.read(size)


_PythonUnpickler: Any = pickle._Unpickler  # not in the type stubs


class _Unpickler(_PythonUnpickler):
    """The unpickler written in Python, restricted to arrays and plain values.

    The one in C checks neither dictionary keys nor the sizes of its memo and of bytearrays, so a
    small damaged file could crash it or fill the memory.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_PythonUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """Return the harmless substitute of a global, or refuse it."""
        try:
            return _ALLOWED[module.replace("__builtin__", "builtins"), name]  # Python 2
        except KeyError:
            raise pickle.UnpicklingError(f"it contains {module}.{name}") from None

    def load_build(self) -> None:
        """Set a state: only arrays and dtypes may have one, since that of a class would persist."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _DType):
            raise pickle.UnpicklingError(f"a state for a {type(self.stack[-1]).__name__}")
        self.stack[-1].__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        """Read a bytearray as bytes, without allocating its size in advance."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _with_checked_keys(load: Callable[..., None], keys: slice) -> Callable[..., None]:
    """Wrap an opcode so that it checks these keys on the stack first."""

    def checked(self: _Unpickler) -> None:
        _check_keys(self.stack[keys])
        load(self)

    return checked


for _opcode, _keys in (
    (pickle.SETITEM, slice(-2, -1)),
    (pickle.SETITEMS, slice(0, None, 2)),
    (pickle.DICT, slice(0, None, 2)),
    (pickle.ADDITEMS, slice(None)),
    (pickle.FROZENSET, slice(None)),
):
    _load = _Unpickler.dispatch[_opcode[0]]
    _Unpickler.dispatch[_opcode[0]] = _with_checked_keys(_load, _keys)


def load_pickle(path: str | Path) -> Any:
    """Read a pickle of arrays, numbers, strings and plain containers.

    Every kind of dict becomes a plain one; NumPy scalars become Python numbers, bytearrays bytes.

    Raises:
        InputError: If the file is missing, contains anything else, or is damaged.
    """
    check_no_device(path)
    try:
        with open(path, "rb") as file:
            return _Unpickler(_BoundedFile(file)).load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            reason = " ".join(str(error).split())
        if "it contains" in reason:
            raise InputError(
                f"{path}: refused, {reason}; a data file may contain only arrays and plain values"
            ) from None
        raise InputError(f"{path}: not a pickle, or a damaged one ({reason})") from None
