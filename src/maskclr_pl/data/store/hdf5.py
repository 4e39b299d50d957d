"""Reading of untrusted HDF5 files.

HDF5 can refer to data in other files, so that a crafted store could expose any file of the machine
as clip names. Stores never do, so every reference out of the file is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from maskclr_pl.reading import check_no_device
from maskclr_pl.types import InputError

_SLICE_BYTES = 64 << 20  # upper bound of a slice of strings, each at most as long as the file
_LINKS = {
    h5py.h5l.TYPE_SOFT: "a soft link",
    h5py.h5l.TYPE_EXTERNAL: "a link to another file",
}


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open a self-contained HDF5 file for reading.

    Raises:
        InputError: If it contains links, external storage, or virtual datasets.
        OSError: If it is damaged or not an HDF5 file.
    """
    check_no_device(path)
    with h5py.File(path, "r") as file:
        _check_links(file, path)
        yield file


def _check_links(file: h5py.File, path: str | Path) -> None:
    """Check every link, and the storage of every dataset."""

    def describe(name: bytes, link: Any) -> str | None:
        """Describe a forbidden node, which ends the visit; exceptions would not propagate."""
        try:
            problem = _forbidden(file, name, link.type)
        except Exception as error:  # of a damaged node
            problem = f"damaged ({' '.join(str(error).split())[:100]})"
        return problem and f"{ascii(name.decode(errors='replace'))[:80]} is {problem}"

    if problem := file.id.links.visit(describe, info=True):
        raise InputError(f"{path}: {problem}; expected a self-contained file")


def _forbidden(file: h5py.File, name: bytes, link: int) -> str | None:
    """Describe how a node refers to data outside the file; None if it does not."""
    if link != h5py.h5l.TYPE_HARD:
        return _LINKS.get(link, "a link of an unknown kind")
    node = h5py.h5o.open(file.id, name)
    if isinstance(node, h5py.h5d.DatasetID):
        properties = node.get_create_plist()
        if properties.get_layout() == h5py.h5d.VIRTUAL:
            return "a virtual dataset"
        if properties.get_external_count():
            return "stored in another file"
    return None


def read_attribute(file: h5py.File, name: str, default: Any = None) -> Any:
    """Read a scalar attribute; return the default if it does not exist.

    Raises:
        ValueError: If it is an array, which could repeat one long string many times.
    """
    if name not in file.attrs:
        return default
    if file.attrs.get_id(name).shape != ():
        raise ValueError(f"the attribute {name} is an array")
    return file.attrs[name]


def read_dataset(
    dataset: h5py.Dataset, kind: str, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Read a dataset; raise ValueError if shape or dtype is unexpected.

    Args:
        dataset: Dataset of an open file.
        kind: Accepted kinds of values, as in `np.dtype.kind`; "O" are strings.
        shape: Expected shape; None for any.

    Raises:
        ValueError: If shape or dtype is unexpected, or it would need more memory than the file.
    """
    if dataset.size * dataset.dtype.itemsize > dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} is larger than the file")
    if dataset.dtype.kind not in kind or (shape is not None and dataset.shape != shape):
        raise ValueError(f"{dataset.name} is {dataset.shape} {dataset.dtype}")
    return _strings(dataset) if dataset.dtype.kind == "O" else dataset[:]


def _strings(dataset: h5py.Dataset) -> np.ndarray:
    """Read strings; a crafted file could refer to one long string many times."""
    limit = dataset.file.id.get_filesize()
    step, total, parts = max(1, _SLICE_BYTES // limit), 0, []
    for start in range(0, len(dataset), step):
        parts.append(dataset[start : start + step])
        total += sum(map(len, parts[-1].ravel()))
        if total > limit:
            raise ValueError(f"the strings of {dataset.name} are longer than the file")
    return np.concatenate(parts) if parts else np.zeros(dataset.shape, object)
