"""A store shows nothing but what is in it, and asks for no more memory than it has."""

import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from maskclr_pl.analysis.features import ClipFeatures, read_features, write_features
from maskclr_pl.data import Store
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton, conversion_matrix
from maskclr_pl.types import InputError
from tests.helpers.recipe_tools import kind_of_store


def external_link(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["name"] = file["name"][:]
    del file["name"]
    file["name"] = h5py.ExternalLink(secret.with_suffix(".h5"), "/name")


def soft_link(file: h5py.File, secret: Path) -> None:
    file["splits/more"] = h5py.SoftLink("/label")


def external_storage(file: h5py.File, secret: Path) -> None:
    """As `/etc/passwd` came out as names of videos."""
    clips = len(file["name"])
    del file["name"]
    file.create_dataset("name", (clips,), "S8", external=[(str(secret), 0, 8 * clips)])


def virtual(file: h5py.File, secret: Path) -> None:
    clips = len(file["label"])
    layout = h5py.VirtualLayout((clips,), "i4")
    layout[:] = h5py.VirtualSource(str(secret), "x", (clips,))
    del file["label"]
    file.create_virtual_dataset("label", layout)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kind_of_store(tmp_path_factory.mktemp("store"), "coco17")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_link, "'name' is a link to another file"),
        (soft_link, "'splits/more' is a soft link"),
        (external_storage, "'name' is stored in another file"),
        (virtual, "'label' is a virtual dataset"),
    ],
)
def test_data_of_other_files_is_refused(change, message, store, tmp_path) -> None:
    """The kind: an HDF5 file leads anywhere on the machine, and its reader follows."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"password" * 100)
    path = tmp_path / "s.h5"
    path.write_bytes(store.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file, secret)
    for read in (Store, read_features):
        with pytest.raises(InputError, match=message):
            read(path)


def test_one_text_many_times_is_refused(store, tmp_path) -> None:
    """The kind: a file of a megabyte asks for gigabytes, as names that are all the same text."""
    path = tmp_path / "f.h5"
    names = [f"{i:04d}" for i in range(2000)]
    label = np.zeros(len(names), np.int64)
    write_features(path, ClipFeatures(np.zeros((len(names), 2), np.float32), label, names, {}))
    assert read_features(path).name == names
    with h5py.File(path, "r+") as file:
        del file["name"]
        long = file.create_dataset("name", data=["x" * 60_000] * 2, dtype=h5py.string_dtype())
        place = long.id.get_offset()
    data = bytearray(path.read_bytes())
    entry = bytes(data[place : place + 16])  # length, heap, index
    with h5py.File(path, "r+") as file:
        del file["name"]
        file.create_dataset("name", data=names, dtype=h5py.string_dtype())
        place = file["name"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[place : place + 16 * len(names)] = entry * len(names)
    path.write_bytes(data)
    with pytest.raises(InputError, match="are longer than the file"):
        read_features(path)


def test_an_attribute_is_a_single_value(store, tmp_path) -> None:
    path = tmp_path / "s.h5"
    path.write_bytes(store.read_bytes())
    with h5py.File(path, "r+") as file:
        text = file.attrs["skeleton"]
        del file.attrs["skeleton"]
        file.attrs.create("skeleton", [text] * 9, dtype=h5py.string_dtype())
    with pytest.raises(InputError, match="not a complete store"):
        Store(path)


def test_layouts_without_end_are_refused() -> None:
    """The kind: hours of work for a few lines, joints that are built from joints that are built."""
    joints = tuple(f"j{i}" for i in range(40))
    doubled = {a: ((b, b),) for a, b in itertools.pairwise(joints)}
    endless = Skeleton("endless", joints, (-1,) * 40, doubled)
    with pytest.raises(InputError, match="endless: composed joints are nested too deeply"):
        conversion_matrix(SKELETONS["coco17"], endless)
    many = json.dumps({"name": "many", "joints": list(range(20_000)), "parents": [-1] * 20_000})
    with pytest.raises(InputError, match="20000 joints, expected 1 to 1000"):
        Skeleton.from_dict(json.loads(many))
