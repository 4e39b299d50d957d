"""NTU RGB+D as the CTR-GCN preprocessing leaves it: `NTU60_CS.npz`, `NTU120_CSet.npz` and others.

`x_train` and `x_test` (clips, frames, 150): two bodies x 25 joints x (x, y, z) in metres relative
to the middle of the spine in the first frame, padded with zero frames; `y_train` and `y_test`
one-hot labels.
"""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.reading import check_archive, check_no_device
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.options import parse_path
from maskclr_pl.types import InputError

_SPLITS = ("train", "test")
_BODIES, _JOINTS = 2, 25
_COLUMNS = _BODIES * _JOINTS * 3
# Far above what was published (63,026 clips, 300 frames, 120 classes): a header that asks for more
# is damaged, and must not ask for memory.
_MOST_CLIPS, _MOST_FRAMES, _MOST_CLASSES = 10**6, 10**5, 10**4
_BLOCK = 4096
# where a joint at the very origin is put, in metres: an exact zero would say that it is not there
_ORIGIN = np.array([1e-6, 0.0, 0.0])


class _Member(NamedTuple):
    """An array in the archive."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    """Bytes before the first value."""


class CtrGcnSource:
    """Recordings of such an archive; they are read one after the other, without unpacking it.

    Padding is cut off and a second body that is absent is dropped. So is one that equals the
    first exactly: the files for NTU 120 repeat a single body.

    The archive has no recording names, so these are `train_000000` and so on, by row.

    Args:
        path: The archive.

    Raises:
        InputError: If it is no such archive, or its labels are neither one-hot nor integers.
    """

    class_names: Sequence[str] | None = None
    units: str | None = None
    notes: Sequence[str] = ()
    skeleton: Skeleton | None = None
    parallel = False  # reading ahead in one pass beats several processes that each start anew

    def __init__(self, path: str | Path):
        self.path = parse_path("input", path)
        check_no_device(self.path)
        with self._damage():
            check_archive(self.path)
            archive = zipfile.ZipFile(self.path)
        with archive, self._damage():
            self._poses, self._labels = {}, {}
            for split in _SPLITS:
                self._poses[split] = self._member(archive, f"x_{split}.npy")
                self._labels[split] = self._read_labels(archive, split)
            # the table of an archive has a checksum of each member, so 10 GB need not be read
            table = [(one.filename, one.file_size, one.CRC) for one in archive.infolist()]
        self.hash = hashlib.sha256(repr(sorted(table)).encode()).hexdigest()
        rows = [(split, row) for split in _SPLITS for row in range(len(self._labels[split]))]
        self._rows = rows
        self.splits = {
            split: [self.name(i) for i, (other, _) in enumerate(rows) if other == split]
            for split in _SPLITS
        }
        self._stream: tuple[str, int, IO[bytes]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        """Split and row of the recording."""
        split, row = self._rows[index]
        return f"{split}_{row:06d}"

    def __getitem__(self, index: int) -> Recording:
        """Read one recording; cheapest in ascending order."""
        split, row = self._rows[index]
        keypoint = _bodies(self._row(split, row))
        if not keypoint.size:
            raise InputError(f"{self.path}: {self.name(index)}: all its values are 0")
        return Recording(self.name(index), int(self._labels[split][row]), keypoint)

    def _row(self, split: str, row: int) -> np.ndarray:
        """(T, 150) values of a row, padding included."""
        member = self._poses[split]
        size = int(np.prod(member.shape[1:])) * member.dtype.itemsize
        with self._damage(member.name):
            if self._stream is None or self._stream[0] != split:
                # a stream of its own file closes it when it is done with
                with zipfile.ZipFile(self.path) as archive:
                    stream = archive.open(member.name)
                stream.seek(member.offset)
                self._stream = split, 0, stream
            _, at, stream = self._stream
            self._stream = None  # a failure leaves no stream at an unknown place
            stream.seek((row - at) * size, 1)
            values = np.frombuffer(_read(stream.read, size), member.dtype)
            self._stream = split, row + 1, stream
        with np.errstate(over="ignore"):  # infinities are refused with those of other sources
            precision = np.float16 if member.dtype.itemsize == 2 else np.float32
            return values.reshape(member.shape[1:]).astype(precision)

    def _member(self, archive: zipfile.ZipFile, name: str) -> _Member:
        """Shape and type of an array, which must fit its size in the archive."""
        names = archive.namelist()
        if name not in names:
            held = ", ".join(ascii(one) for one in names[:6]) or "nothing"
            raise InputError(
                f"{self.path}: no {name} in it, but {held}; expected x_train, y_train, x_test, "
                "y_test"
            )
        with archive.open(name) as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            offset = stream.tell()
        if fortran and len(shape) > 1:
            raise InputError(f"{self.path}: {name} is stored column by column; save it in C order")
        self._check(name, shape, dtype)
        size = archive.getinfo(name).file_size
        if size != offset + int(np.prod(shape)) * dtype.itemsize:
            raise InputError(f"{self.path}: {name} is {shape} {dtype}, but has {size} bytes")
        return _Member(name, shape, dtype, offset)

    def _check(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        if name.startswith("x_"):
            good = len(shape) == 3 and shape[2] == _COLUMNS and dtype.kind == "f"
            good = good and 1 <= shape[1] <= _MOST_FRAMES
            expected = f"(clips, frames, {_COLUMNS}) float16, float32 or float64"
        else:
            good = 1 <= len(shape) <= 2 and dtype.kind in "iufb"
            good = good and all(1 <= side <= _MOST_CLASSES for side in shape[1:])
            expected = "(clips, classes) one-hot, or (clips,) integers"
        if not good or dtype.itemsize > 8 or not 0 <= shape[0] <= _MOST_CLIPS:
            raise InputError(f"{self.path}: {name} is {shape} {dtype}, expected {expected}")

    def _read_labels(self, archive: zipfile.ZipFile, split: str) -> np.ndarray:
        """(clips,) class of each."""
        member = self._member(archive, f"y_{split}.npy")
        clips = self._poses[split].shape[0]
        if member.shape[0] != clips:
            raise InputError(
                f"{self.path}: x_{split} has {clips} clips, but y_{split} has {member.shape[0]}"
            )
        size = int(np.prod(member.shape[1:])) * member.dtype.itemsize
        labels = np.zeros(clips, np.int64)
        with archive.open(member.name) as stream:
            stream.seek(member.offset)
            for begin in range(0, clips, _BLOCK):
                end = min(begin + _BLOCK, clips)
                block = np.frombuffer(_read(stream.read, (end - begin) * size), member.dtype)
                found = _classes(block.reshape(-1, *member.shape[1:]))
                if (found < 0).any():
                    bad = begin + int(np.argmax(found < 0))
                    raise InputError(
                        f"{self.path}: row {bad} of y_{split} is neither one-hot nor an integer "
                        "from 0"
                    )
                labels[begin:end] = found
        return labels

    @contextmanager
    def _damage(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file") from None
        except Exception as error:  # a damaged archive can raise nearly anything
            where = f" at {name}" if name else ""
            text = error.strerror if isinstance(error, OSError) else str(error)
            reason = " ".join((text or type(error).__name__).split())
            raise InputError(
                f"{self.path}: not an .npz archive, or a damaged one{where} ({reason})"
            ) from None


@np.errstate(invalid="ignore")  # not-a-number is refused with that of other sources
def _bodies(clip: np.ndarray) -> np.ndarray:
    """(M, T, 25, 3) bodies that are there, from (T, 150) padded values."""
    filled = np.flatnonzero(clip.any(axis=1))
    length = filled[-1] + 1 if len(filled) else 0
    bodies = clip[:length].reshape(length, _BODIES, _JOINTS, 3).transpose(1, 0, 2, 3)
    keypoint = bodies[bodies.any(axis=(1, 2, 3))]
    if len(keypoint) == _BODIES and np.array_equal(*keypoint):
        keypoint = keypoint[:1]
    keypoint = np.ascontiguousarray(keypoint)
    here = np.any(keypoint, axis=(2, 3))
    keypoint[here[..., None] & ~np.any(keypoint, axis=3)] = _ORIGIN
    return keypoint


def _read(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    if len(data) < size:
        raise EOFError("it is cut short")
    return data


@np.errstate(invalid="ignore")
def _classes(block: np.ndarray) -> np.ndarray:
    """Class of each row, -1 where it is not one."""
    if block.ndim == 1:
        good = (block >= 0) & (block < _MOST_CLASSES) & (block == np.floor(block))
        return np.where(good, block.astype(np.int64), -1)
    one_hot = ((block == 0) | (block == 1)).all(axis=1) & (np.count_nonzero(block, axis=1) == 1)
    return np.where(one_hot, block.argmax(axis=1), -1)
