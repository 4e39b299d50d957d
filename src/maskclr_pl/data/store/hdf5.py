"""HDF5 files from strangers: one place where they are opened for reading.

HDF5 can keep data outside of the file, under any path: a store could show other files of the
machine as names of videos. None of ours does, so whatever leads elsewhere is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from maskclr_pl.reading import check_no_device
from maskclr_pl.types import InputError

_AT_ONCE = 64 << 20  # bytes that the texts of a slice may have, each as long as the file
_LINKS = {
    h5py.h5l.TYPE_SOFT: "a soft link",
    h5py.h5l.TYPE_EXTERNAL: "a link to another file",
}


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open a file whose data is all its own.

    Raises:
        InputError: If something in it is a link, is kept in another file, or is virtual.
        OSError: If it is no HDF5 file, or damaged.
    """
    check_no_device(path)
    with h5py.File(path, "r") as file:
        _check_links(file, path)
        yield file


def _check_links(file: h5py.File, path: str | Path) -> None:
    """Look at every link, and at the storage of every data set, once."""

    def wrong(name: bytes, link: Any) -> str | None:
        """What is wrong with a link; the visit, which cannot pass on an error, ends there."""
        try:
            what = _kind(file, name, link.type)
        except Exception as error:  # of a damaged node
            what = f"damaged ({' '.join(str(error).split())[:100]})"
        return what and f"{ascii(name.decode(errors='replace'))[:80]} is {what}"

    if found := file.id.links.visit(wrong, info=True):
        raise InputError(f"{path}: {found}; expected a file with all its data in it")


def _kind(file: h5py.File, name: bytes, link: int) -> str | None:
    """How a node leads out of the file; None if it does not."""
    if link != h5py.h5l.TYPE_HARD:
        return _LINKS.get(link, "a link of an unknown kind")
    node = h5py.h5o.open(file.id, name)
    if isinstance(node, h5py.h5d.DatasetID):
        how = node.get_create_plist()
        if how.get_layout() == h5py.h5d.VIRTUAL:
            return "a virtual data set, made of other files"
        if how.get_external_count():
            return "kept in another file"
    return None


def read_attribute(file: h5py.File, name: str, default: Any = None) -> Any:
    """A single value or text that a file carries; the default if there is none of this name.

    Raises:
        ValueError: If it is an array, whose texts could be one long text many times.
    """
    if name not in file.attrs:
        return default
    if file.attrs.get_id(name).shape != ():
        raise ValueError(f"the attribute {name} is an array")
    return file.attrs[name]


def read_dataset(
    dataset: h5py.Dataset, kind: str, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """A whole data set, which must not ask for more memory than the file has.

    Args:
        dataset: Of an open file.
        kind: Kinds of values that are expected, as of `np.dtype.kind`; "O" are texts.
        shape: Expected shape; None for any.

    Raises:
        ValueError: If it is another than expected, or larger than the file.
    """
    bytes_of_file = dataset.file.id.get_filesize()
    if dataset.size * dataset.dtype.itemsize > bytes_of_file:
        raise ValueError(f"{dataset.name} is larger than the file")
    if dataset.dtype.kind not in kind or (shape is not None and dataset.shape != shape):
        raise ValueError(f"{dataset.name} is {dataset.shape} {dataset.dtype}")
    return _texts(dataset) if dataset.dtype.kind == "O" else dataset[:]


def _texts(dataset: h5py.Dataset) -> np.ndarray:
    """Texts of any length; a file could name one long text many times."""
    limit = dataset.file.id.get_filesize()
    step, total, parts = max(1, _AT_ONCE // limit), 0, []
    for start in range(0, len(dataset), step):
        parts.append(dataset[start : start + step])
        total += sum(map(len, parts[-1].ravel()))
        if total > limit:
            raise ValueError(f"the texts of {dataset.name} are longer than the file")
    return np.concatenate(parts) if parts else np.zeros(dataset.shape, object)
