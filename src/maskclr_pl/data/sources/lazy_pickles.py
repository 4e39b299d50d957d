"""Large pickles: the arrays stay in the file until they are asked for.

A data set of a gigabyte is one pickle, which is read from front to back; its arrays are then found
again by their place in the file.
"""

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from maskclr_pl.data.sources.pickles import _DType, allowed, reading_pickle

_SMALL = 1024  # bytes of an array that is not worth a second look into the file


class LazyArray:
    """An array in a file; `np.asarray` reads it."""

    __slots__ = ("_dtype", "_fortran", "_shape", "_source", "_where")

    def __init__(self, source: "_LazyUnpickler"):
        self._source = source
        self._shape: tuple[int, ...] = (0,)
        self._dtype, self._fortran = np.dtype("i1"), False
        self._where: bytes | bytearray | tuple[int, int] = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("an array without a dtype")
        self.fill(shape, dtype.dtype, bool(fortran), data)

    def fill(self, shape: Any, dtype: np.dtype, fortran: bool, data: bytes | bytearray) -> None:
        """Take the shape, and remember where the values are."""
        self._shape, self._dtype, self._fortran = tuple(int(n) for n in shape), dtype, fortran
        count = 1
        for n in self._shape:
            count *= n
        if min(self._shape, default=0) < 0 or count * dtype.itemsize != len(data):
            raise pickle.UnpicklingError("an array of another size than its data")
        self._where = data
        if len(data) >= _SMALL:
            self._where = self._source.place_of(data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values; a copy that may be written to."""
        data = self._where
        if isinstance(data, tuple):
            data = self._source.read_again(*data)
        flat = np.frombuffer(bytearray(data), self._dtype)
        values = flat.reshape(self._shape, order="F" if self._fortran else "C")
        return values if dtype is None else values.astype(dtype)


class _Tracked:
    """A file that knows where in it the last piece that was read stands."""

    def __init__(self, file: BinaryIO):
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.start, self.piece = 0, b""

    def read(self, size: int) -> bytes:
        self.start = self._file.tell()
        if size > self._size - self.start:  # before so much memory is asked for
            raise EOFError
        self.piece = self._file.read(size)
        return self.piece

    def readline(self) -> bytes:
        return self._file.readline()


_PythonUnpickler: Any = pickle._Unpickler  # not in the type stubs


class _LazyUnpickler(_PythonUnpickler):
    """Makes a LazyArray of each array.

    This is the unpickler in Python: the one in C keeps all that it has read until the end, since a
    pickle may refer to it again. To the bytes of an array nothing refers but the array.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: BinaryIO):
        self._source, self._tracked = file, _Tracked(file)
        super().__init__(self._tracked)

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda *_: LazyArray(self)
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return self._from_buffer
        return allowed(module, name)

    def _from_buffer(self, buffer: Any, dtype: _DType, shape: Any, order: str) -> LazyArray:
        array = LazyArray(self)
        array.fill(shape, dtype.dtype, order == "F", buffer)
        return array

    def load_memoize(self) -> None:
        self.memo[len(self.memo)] = None if _is_data(self.stack[-1]) else self.stack[-1]

    dispatch[pickle.MEMOIZE[0]] = load_memoize

    def load_binput(self) -> None:
        self.memo[self.read(1)[0]] = None if _is_data(self.stack[-1]) else self.stack[-1]

    dispatch[pickle.BINPUT[0]] = load_binput

    def load_long_binput(self) -> None:
        (index,) = struct.unpack("<I", self.read(4))
        self.memo[index] = None if _is_data(self.stack[-1]) else self.stack[-1]

    dispatch[pickle.LONG_BINPUT[0]] = load_long_binput

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def place_of(self, data: bytes | bytearray) -> bytes | bytearray | tuple[int, int]:
        """Where these bytes are in the file; the bytes themselves if that cannot be said."""
        offset = self._tracked.piece.find(data)
        return data if offset < 0 else (self._tracked.start + offset, len(data))

    def read_again(self, offset: int, size: int) -> bytes:
        """These bytes of the file."""
        self._source.seek(offset)
        return self._source.read(size)


def _is_data(value: Any) -> bool:
    if isinstance(value, tuple) and len(value) == 5:  # the state of an array
        value = value[4]
    return isinstance(value, bytes | bytearray) and len(value) >= _SMALL


def load_lazily(path: str | Path) -> Any:
    """As `load_pickle`, but the arrays are `LazyArray`s; the file stays open.

    Raises:
        InputError: If the file is missing, is not such a pickle, or is cut short.
    """
    with reading_pickle(path):
        return _LazyUnpickler(open(path, "rb")).load()  # the arrays need it open
