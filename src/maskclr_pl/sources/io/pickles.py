"""Pickles from strangers: arrays and plain values are read, nothing in them is run.

A data set of a gigabyte is one pickle, which is read from front to back. Its arrays stay in the
file until they are asked for, whatever the pickle protocol.
"""

import math
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from maskclr_pl.errors import InputError
from maskclr_pl.reading import check_no_device

_SMALL = 1024  # bytes that are not worth a second look into the file
_MOST_AXES = 32
_KEYS = (str, bytes, int, float, complex, type(None), np.generic)


class _Stored:
    """Bytes that stay in the file; in protocols 0 to 2 as a text of characters below 256."""

    __slots__ = ("_file", "_is_text", "_place", "_size")

    def __init__(self, file: BinaryIO, place: tuple[int, int], size: int, is_text: bool):
        self._file, self._place, self._size, self._is_text = file, place, size, is_text

    def __len__(self) -> int:
        return self._size

    def __str__(self) -> str:
        return self.read().decode("latin-1")

    def read(self) -> bytes:
        """The bytes."""
        offset, size = self._place
        with reading_pickle(self._file.name):
            self._file.seek(offset)
            data = self._file.read(size)
            data = data.decode("utf-8").encode("latin-1") if self._is_text else data
            if len(data) < self._size:
                raise EOFError
        return data


class _DType:
    """Stands for a dtype: the state of a real one could turn bytes into pointers."""

    def __init__(self, text: str, *_: Any):
        self.dtype = np.dtype(text)
        if self.dtype.kind not in "biufcSU":
            raise pickle.UnpicklingError(f"an array of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class LazyArray:
    """An array in a pickle; `np.asarray` reads it."""

    __slots__ = ("_data", "_dtype", "_fortran", "_shape")

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = (0,)
        self._dtype, self._fortran = np.dtype("i1"), False
        self._data: bytes | bytearray | _Stored = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(shape, dtype, bool(fortran), data)

    def fill(self, shape: Any, dtype: _DType, fortran: bool, data: Any) -> None:
        """Take what the pickle says of the array, if it can be true."""
        if not isinstance(dtype, _DType) or not isinstance(data, bytes | bytearray | _Stored):
            raise pickle.UnpicklingError("an array without a dtype")
        sides = tuple(int(side) for side in shape)
        if len(sides) > _MOST_AXES or min(sides, default=0) < 0:
            raise pickle.UnpicklingError("an array with impossible axes")
        if math.prod(sides) * dtype.dtype.itemsize != len(data):
            raise pickle.UnpicklingError("an array of another size than its data")
        np.broadcast_to(np.empty((), dtype.dtype), sides)  # fails if NumPy cannot count so far
        self._shape, self._dtype, self._fortran, self._data = sides, dtype.dtype, fortran, data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values; a copy that may be written to."""
        data = self._data.read() if isinstance(self._data, _Stored) else self._data
        order: Any = "F" if self._fortran else "C"
        values = np.ndarray(self._shape, self._dtype, bytearray(data), order=order)
        return values if dtype is None else values.astype(dtype)


def _from_buffer(buffer: Any, dtype: _DType, shape: Any, order: str) -> LazyArray:
    """What protocol 5 calls to make an array."""
    array = LazyArray()
    array.fill(shape, dtype, order == "F", buffer)
    return array


def _encode(text: str | _Stored, encoding: str) -> bytes | _Stored:
    """Bytes as pickle protocols 0 to 2 store them."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text if isinstance(text, _Stored) else text.encode("latin-1")


def _check_keys(keys: Iterable[Any]) -> None:
    """Refuse containers: to look for one that is nested a million times ends the process."""
    for key in keys:
        if not isinstance(key, _KEYS):
            raise pickle.UnpicklingError(f"a key of type {type(key).__name__}")


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    """Stands for every kind of dict."""
    pairs = [(key, value) for key, value in pairs]
    _check_keys(key for key, _ in pairs)
    return dict(pairs)


def _set(members: Any = ()) -> set[Any]:
    members = list(members)
    _check_keys(members)
    return set(members)


def _bytearray(data: bytes = b"") -> bytearray:
    """A bytearray of bytes; of a number it would be as large as a stranger likes."""
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("a bytearray of something else than bytes")
    return bytearray(data)


_ALLOWED: dict[tuple[str, str], Any] = {
    # only ever an argument of `_reconstruct`; to call it could turn bytes into pointers
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _dict,
    ("collections", "defaultdict"): lambda *_: {},
    ("builtins", "dict"): _dict,
    ("builtins", "set"): _set,
    ("builtins", "bytearray"): _bytearray,
    # `list`, `int`: factories of a defaultdict
    **{("builtins", t.__name__): t for t in (list, int, float, complex)},
}
for _numpy in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _ALLOWED[_numpy + ".multiarray", "_reconstruct"] = lambda *_: LazyArray()
    _ALLOWED[_numpy + ".multiarray", "scalar"] = lambda dtype, data: np.frombuffer(
        data, dtype.dtype
    )[0]
    _ALLOWED[_numpy + ".numeric", "_frombuffer"] = _from_buffer


class _Guarded:
    """A file that is not asked for more than it has, before so much memory is taken."""

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
    """Leaves arrays in the file, and refuses all but plain values before it is called.

    It is the unpickler in Python: the one in C cannot leave anything in the file.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: BinaryIO):
        self._source = file
        super().__init__(_Guarded(file))

    def find_class(self, module: str, name: str) -> Any:
        """The harmless stand-in for a global."""
        try:
            return _ALLOWED[module.replace("__builtin__", "builtins"), name]  # of Python 2
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def load_build(self) -> None:
        """Only arrays and dtypes have a state; that of a class would change it for good."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], LazyArray | _DType):
            raise pickle.UnpicklingError(f"a state for a {type(self.stack[-1]).__name__}")
        self.stack[-1].__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build

    def load_binbytes(self) -> None:
        self._load_bytes(*struct.unpack("<I", self.read(4)))

    dispatch[pickle.BINBYTES[0]] = load_binbytes

    def load_binbytes8(self) -> None:
        self._load_bytes(*struct.unpack("<Q", self.read(8)))

    dispatch[pickle.BINBYTES8[0]] = load_binbytes8
    dispatch[pickle.BYTEARRAY8[0]] = load_binbytes8

    def _load_bytes(self, size: int) -> None:
        data = self.read(size)
        self.append(data if size < _SMALL else self._stored(size, size, is_text=False))

    def load_binunicode(self) -> None:
        (size,) = struct.unpack("<I", self.read(4))
        text = str(self.read(size), "utf-8", "surrogatepass")
        is_data = size >= _SMALL and len(text.encode("latin-1", "ignore")) == len(text)
        self.append(self._stored(size, len(text), is_text=True) if is_data else text)

    dispatch[pickle.BINUNICODE[0]] = load_binunicode

    def _stored(self, taken: int, size: int, *, is_text: bool) -> _Stored:
        """Stands for the `size` bytes that the `taken` bytes read just now mean."""
        frame = self._unframer.current_frame
        ahead = 0 if frame is None else frame.getbuffer().nbytes - frame.tell()
        place = self._source.tell() - ahead - taken, taken
        return _Stored(self._source, place, size, is_text)


def _with_plain_keys(load: Callable[..., None], keys: slice) -> Callable[..., None]:
    """An opcode, after a look at those keys on the stack."""

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
    _Unpickler.dispatch[_opcode[0]] = _with_plain_keys(_load, _keys)


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

    Arrays are `LazyArray`s, so the file stays open as long as one of them is left.

    Raises:
        InputError: If the file is missing, is not such a pickle, or is cut short.
    """
    check_no_device(path)
    with reading_pickle(path):
        return _Unpickler(open(path, "rb")).load()
