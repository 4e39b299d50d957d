"""Stores whose tables do not fit together: refused when they are opened, or read."""

import json

import h5py
import numpy as np
import pytest

from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.inspection.summary import inspect_store, summary_lines
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError

CHAIN = Skeleton("chain", ("root", "left_hand", "right_hand"), (-1, 0, 0))
SHAPES = ((1, 2), (2, 3), (1, 4))
ROWS = 2 + 6 + 4


@pytest.fixture
def path(tmp_path):
    """Pixels, subjects, two splits, and a clip that was left out."""
    clips = []
    for i, shape in enumerate(SHAPES):
        keypoint, score = np.full((*shape, 3, 2), 5, np.float32), np.ones((*shape, 3), np.float16)
        clips.append(Recording(f"c{i}", i % 2, keypoint, score, (480, 640), subject=i))
    splits = {"train": ["c0", "c1", "gone"], "test": ["c2"]}
    options = {"splits": splits, "class_names": ["a", "b"], "on_error": "skip"}
    return write_store(tmp_path / "s.h5", clips, skeleton=CHAIN, **options).path


def replace(path, key, values, **options):
    with h5py.File(path, "r+") as file:
        if key in file.attrs:
            file.attrs[key] = values
            return
        if key in file:
            del file[key]
        file.create_dataset(key, data=values, **options)


DAMAGE = {
    "a recording longer than it is": ("frames", [2, 3, 5]),
    "no frame": ("frames", [2, 3, 0]),
    "less than no frame": ("frames", [2, -3, 4]),
    "frames that overflow": ("frames", np.array([2**63 - 1, 3, 4])),
    "frames below zero if they had a sign": ("frames", np.array([2, 3, 2**64 - 4], np.uint64)),
    "broken numbers": ("frames", [2.0, 3.0, 4.0]),
    "a clip less": ("frames", [2, 3]),
    "a table": ("frames", [[2], [3], [4]]),
    "no persons": ("persons", [1, 2, 0]),
    "overlapping recordings": ("start", [0, 1, 8]),
    "a start behind the end": ("start", [0, 2, 80]),
    "a start before the first row": ("start", [-1, 2, 8]),
    "a class that has no name": ("label", [0, 1, 2]),
    "a class below 0": ("label", [0, 1, -1]),
    "labels that are numbers with a fraction": ("label", [0, 1, np.nan]),
    "labels that are complex": ("label", np.zeros(3, complex)),
    "names that are numbers": ("name", [1, 2, 3]),
    "names in a table": ("name", np.array([[b"a"], [b"b"], [b"c"]])),
    "a name less": ("name", np.array([b"a", b"b"])),
    "no clips": ("name", np.array([], "S1")),
    "an image size without width": ("frame_size", [480, 640, 480]),
    "an image without height": ("frame_size", [[480, 640], [0, 640], [480, 640]]),
    "subjects of two clips": ("subject", [0, 1]),
    "subjects that are texts": ("subject", [b"a", b"b", b"c"]),
    "a digest of another kind": ("digest", np.zeros(3)),
    "a split of a clip that is not there": ("splits/train", [0, 3]),
    "a split of a clip before the first": ("splits/train", [0, -1]),
    "a split of names": ("splits/train", np.array([b"c0", b"c1"])),
    "joints of another layout": ("keypoint", np.ones((ROWS, 4, 2), np.float32)),
    "another dimension": ("keypoint", np.ones((ROWS, 3, 3), np.float32)),
    "one dimension": ("keypoint", np.ones(ROWS * 6, np.float32)),
    "poses that are complex": ("keypoint", np.ones((ROWS, 3, 2), complex)),
    "scores for other rows": ("score", np.ones((ROWS - 1, 3), np.float16)),
    "scores of another layout": ("score", np.ones((ROWS, 4), np.float16)),
    "unknown coordinates": ("coordinates", "feet"),
    "metres with pixels": ("coordinates", "metres"),
    "no JSON": ("skeleton", "{"),
    "another JSON": ("skeleton", "[1, 2]"),
    "deep JSON": ("skeleton", "[" * 60_000),
    "parents that are texts": ("skeleton", json.dumps(CHAIN.to_dict()).replace("-1", '"x"')),
    "class names that are no list": ("class_names", "7"),
    "no UTF-8": ("class_names", b"\xff\xfe"),
    "a version that is no number": ("format_version", "one"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_tables_that_do_not_fit_are_refused_when_the_store_is_opened(path, damage):
    replace(path, *DAMAGE[damage])
    with pytest.raises(InputError, match=r"s\.h5: not a complete store; create one with"):
        Store(path)


@pytest.mark.parametrize("key", ["frames", "name", "splits/train", "digest"])
@pytest.mark.parametrize("size", [2**33, 2**60])
def test_a_table_larger_than_the_file_asks_for_no_memory(path, key, size):
    replace(path, key, None, shape=(size,), dtype="i8", chunks=(4,))
    with pytest.raises(InputError, match=r"s\.h5: not a complete store"):
        Store(path)


def test_rows_that_are_not_in_the_file_are_noticed(path):
    """Their number fits to the tables, so only the size of the file tells."""
    with h5py.File(path, "r+") as file:
        del file["score"], file["keypoint"]
        file.create_dataset("keypoint", (2**40, 3, 2), "f4", chunks=(4, 3, 2))
        for key, values in (("frames", [2, 3, 2**40 - 8]), ("start", [0, 2, 8])):
            del file[key]
            file[key] = np.array(values)
    with pytest.raises(InputError, match=r"s\.h5"):
        Store(path)


@pytest.mark.parametrize("link", [h5py.SoftLink("/nowhere"), h5py.ExternalLink("x.h5", "/x")])
def test_links_that_lead_nowhere(path, link):
    with h5py.File(path, "r+") as file:
        del file["frames"]
        file["frames"] = link
    with pytest.raises(InputError, match=r"s\.h5: 'frames' is a (soft link|link to another file)"):
        Store(path)


@pytest.mark.parametrize(
    "values", [np.arange(4), np.array([[b"a", b"b"]]), np.zeros((2, 3)), [["a"]], "text"]
)
def test_a_damaged_list_of_what_was_left_out(path, values):
    replace(path, "skipped", values)
    store = Store(path)
    with pytest.raises(InputError, match=r"s\.h5: not a complete store"):
        store.skipped()


def test_texts_that_are_no_utf_8_are_shown_as_far_as_they_can_be(path):
    replace(path, "name", np.array([b"\xff\xfe", b"c1", b"c\xc3"]))
    replace(path, "skipped", np.array([[b"g\xff", b"w\xfe"]], object), dtype=h5py.string_dtype())
    replace(path, "class_names", json.dumps(["\ud800", "b"]))
    store = Store(path)
    assert [store.name(i) for i in range(3)] == ["\ufffd\ufffd", "c1", "c\ufffd"]
    assert store.skipped() == [("g\ufffd", "w\ufffd")]
    assert store.class_names == ["?", "b"]
    "\n".join(summary_lines(inspect_store(store), full=True)).encode()  # what a report does


@pytest.mark.parametrize("kind", ["i1", "u2", ">i4", "u8"])
def test_tables_of_another_width_count_the_same(path, kind):
    keys = ("frames", "persons", "start", "label", "subject", "splits/train")
    with h5py.File(path) as file:
        tables = {key: file[key][:] for key in keys}
    for key, values in tables.items():
        replace(path, key, values.astype(kind))
    store = Store(path)
    assert [store.recording(i).keypoint.shape[:2] for i in range(3)] == list(SHAPES)
    assert inspect_store(store).empty.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b.h5"])
def test_impossible_names(name):
    with pytest.raises(InputError, match="no such file"):
        Store(name)
