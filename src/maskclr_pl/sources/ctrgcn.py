"""NTU RGB+D as the CTR-GCN preprocessing writes it: `NTU60_CS.npz`, `NTU120_CSet.npz` and others.

`x_train` and `x_test` (clips, frames, 150): two bodies x 25 joints x (x, y, z) in meters relative
to the middle of the spine in the first frame, padded with zero frames; `y_train` and `y_test`
one-hot labels.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
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
# Far above what was published (63,026 clips, 300 frames, 120 classes): a damaged header must not
# cause huge allocations.
_MAX_CLIPS, _MAX_FRAMES, _MAX_CLASSES = 10**6, 10**5, 10**4
# replaces a joint exactly at the origin, in meters: exact zeros mean a missing joint
_ORIGIN = np.array([1e-6, 0.0, 0.0])


class _Member(NamedTuple):
    """An array in the archive."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    """Bytes before the first value."""

    @property
    def row_bytes(self) -> int:
        """Size of one clip."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize


class CtrGcnSource:
    """Recordings of such an archive, read one after the other without unpacking it.

    Padding is cut off and an absent second body is dropped, as is one that equals the first
    exactly: the files for NTU RGB+D 120 repeat a single body. The archive has no recording names,
    so these are `train_000000` and so on, by row.

    Args:
        path: The archive.

    Raises:
        InputError: If it is not such an archive, or its labels are neither one-hot nor integers.
    """

    class_names: Sequence[str] | None = None
    units: str | None = None
    notes: Sequence[str] = ()
    skeleton: Skeleton | None = None
    parallel = False  # one pass over the archive is faster than several processes that each restart

    def __init__(self, path: str | Path):
        self.path = parse_path("input", path)
        check_no_device(self.path)
        self._poses: dict[str, _Member] = {}
        self._labels: dict[str, np.ndarray] = {}
        with self._damage_as_input_error():
            check_archive(self.path)
            with zipfile.ZipFile(self.path) as archive:
                for split in _SPLITS:
                    self._poses[split] = self._find_member(archive, f"x_{split}.npy")
                    self._labels[split] = self._read_labels(archive, split)
                # the directory has a checksum of each member, so 10 GB need not be read
                table = [(info.filename, info.file_size, info.CRC) for info in archive.infolist()]
        self.hash = hashlib.sha256(repr(sorted(table)).encode()).hexdigest()
        self._rows = [(split, row) for split in _SPLITS for row in range(len(self._labels[split]))]
        self.splits = {
            split: [f"{split}_{row:06d}" for row in range(len(self._labels[split]))]
            for split in _SPLITS
        }
        self._stream: tuple[str, int, IO[bytes]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        """Return the split and row of a recording."""
        split, row = self._rows[index]
        return f"{split}_{row:06d}"

    def __getitem__(self, index: int) -> Recording:
        """Read one recording; fastest in ascending order."""
        split, row = self._rows[index]
        keypoint = _bodies(self._read_row(split, row))
        if not keypoint.size:
            raise InputError(f"{self.path}: {self.name(index)}: all its values are 0")
        return Recording(self.name(index), int(self._labels[split][row]), keypoint)

    def _read_row(self, split: str, row: int) -> np.ndarray:
        """Return the (T, 150) values of a row, including padding."""
        member = self._poses[split]
        with self._damage_as_input_error(member.name):
            if self._stream is None or self._stream[0] != split:
                with zipfile.ZipFile(self.path) as archive:
                    stream = archive.open(member.name)  # keeps the file open until it is closed
                stream.seek(member.offset)
                self._stream = split, 0, stream
            _, position, stream = self._stream
            self._stream = None  # after a failure the position would be unknown
            stream.seek((row - position) * member.row_bytes, 1)
            data = stream.read(member.row_bytes)
            if len(data) < member.row_bytes:
                raise EOFError("it is cut short")
            values = np.frombuffer(data, member.dtype)
            self._stream = split, row + 1, stream
        with np.errstate(over="ignore"):  # infinities are refused when a store is written
            precision = np.float16 if member.dtype.itemsize == 2 else np.float32
            return values.reshape(member.shape[1:]).astype(precision)

    def _find_member(self, archive: zipfile.ZipFile, name: str) -> _Member:
        """Return shape and type of an array, which must fit its size in the archive."""
        names = archive.namelist()
        if name not in names:
            content = ", ".join(map(ascii, names[:6])) or "nothing"
            raise InputError(
                f"{self.path}: contains {content}, but not {name}; expected x_train, y_train, "
                "x_test, y_test"
            )
        with archive.open(name) as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            member = _Member(name, shape, dtype, stream.tell())
        if fortran and len(shape) > 1:
            raise InputError(f"{self.path}: {name} is stored column by column; save it in C order")
        self._check_member(member)
        size = archive.getinfo(name).file_size
        if size != member.offset + shape[0] * member.row_bytes:
            raise InputError(f"{self.path}: {name} is {shape} {dtype}, but has {size} bytes")
        return member

    def _check_member(self, member: _Member) -> None:
        name, shape, dtype, _ = member
        if name.startswith("x_"):
            valid = len(shape) == 3 and shape[2] == _COLUMNS and dtype.kind == "f"
            valid = valid and 1 <= shape[1] <= _MAX_FRAMES
            expected = f"(clips, frames, {_COLUMNS}) float16, float32 or float64"
        else:
            valid = 1 <= len(shape) <= 2 and dtype.kind in "iufb"
            valid = valid and all(1 <= side <= _MAX_CLASSES for side in shape[1:])
            expected = "(clips, classes) one-hot, or (clips,) integers"
        if not valid or dtype.itemsize > 8 or not 0 <= shape[0] <= _MAX_CLIPS:
            raise InputError(f"{self.path}: {name} is {shape} {dtype}, expected {expected}")

    def _read_labels(self, archive: zipfile.ZipFile, split: str) -> np.ndarray:
        """Return the class of each clip, (clips,)."""
        member = self._find_member(archive, f"y_{split}.npy")
        clips = self._poses[split].shape[0]
        if member.shape[0] != clips:
            raise InputError(
                f"{self.path}: x_{split} has {clips} clips, but y_{split} has {member.shape[0]}"
            )
        with archive.open(member.name) as stream:
            labels = _classes(npy.read_array(stream, allow_pickle=False))
        if (labels < 0).any():
            raise InputError(
                f"{self.path}: row {int(np.argmax(labels < 0))} of y_{split} is neither one-hot "
                "nor an integer from 0"
            )
        return labels

    @contextmanager
    def _damage_as_input_error(self, member: str = "") -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file") from None
        except Exception as error:  # a damaged archive can raise nearly anything
            place = f" at {member}" if member else ""
            text = error.strerror if isinstance(error, OSError) else str(error)
            reason = " ".join((text or type(error).__name__).split())
            raise InputError(
                f"{self.path}: not an .npz archive, or a damaged one{place} ({reason})"
            ) from None


@np.errstate(invalid="ignore")  # NaN is refused when a store is written
def _bodies(clip: np.ndarray) -> np.ndarray:
    """Return the (M, T, 25, 3) bodies in (T, 150) padded values."""
    frames = np.flatnonzero(clip.any(axis=1))
    length = frames[-1] + 1 if len(frames) else 0
    bodies = clip[:length].reshape(length, _BODIES, _JOINTS, 3).transpose(1, 0, 2, 3)
    keypoint = bodies[bodies.any(axis=(1, 2, 3))]
    if len(keypoint) == _BODIES and np.array_equal(*keypoint):
        keypoint = keypoint[:1]
    keypoint = np.ascontiguousarray(keypoint)
    present = np.any(keypoint, axis=(2, 3))
    keypoint[present[..., None] & ~np.any(keypoint, axis=3)] = _ORIGIN
    return keypoint


@np.errstate(invalid="ignore")
def _classes(labels: np.ndarray) -> np.ndarray:
    """Return the class of each row, -1 where it is invalid."""
    if labels.ndim == 1:
        valid = (labels >= 0) & (labels < _MAX_CLASSES) & (labels == np.floor(labels))
        return np.where(valid, labels.astype(np.int64), -1)
    one_hot = ((labels == 0) | (labels == 1)).all(axis=1) & (np.count_nonzero(labels, axis=1) == 1)
    return np.where(one_hot, labels.argmax(axis=1), -1)
