import pickle
import random
import struct
import sys
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings

from maskclr_pl.data import write_store
from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources.convert import convert
from maskclr_pl.sources.io.pickles import load_pickle
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.types import InputError

DATA = Path(__file__).parents[3] / "shared" / "data"


def annotation(name="clip", label=0, *, persons=1, frames=3, seed=0, **values):
    rng = np.random.default_rng(seed)
    return {
        "frame_dir": name,
        "label": label,
        "total_frames": frames,
        "img_shape": (480, 640),
        "original_shape": (480, 640),
        "keypoint": rng.uniform(0, 480, (persons, frames, 17, 2)).astype(np.float16),
        "keypoint_score": rng.uniform(0, 1, (persons, frames, 17)).astype(np.float16),
        **values,
    }


def content(*annotations):
    names = [item["frame_dir"] for item in annotations]
    return {"split": {"train": names[:1], "test": names[1:]}, "annotations": list(annotations)}


def saved(tmp_path, values, protocol=4):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(values, protocol))
    return path


def assert_same(source, annotations):
    recordings = list(source)
    assert len(source) == len(recordings) == len(annotations)
    for result, item in zip(recordings, annotations, strict=True):
        assert result.name == item["frame_dir"]
        assert result.label == item["label"]
        assert result.keypoint.dtype == item["keypoint"].dtype
        assert np.array_equal(result.keypoint, item["keypoint"])
        assert np.array_equal(result.score, item["keypoint_score"])
        assert result.frame_size == tuple(item["img_shape"])


# --- files that can be read -----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read(tmp_path, protocol):
    items = [annotation("a", 3), annotation("b", np.int64(1), persons=2, seed=1)]
    source = PysklSource(saved(tmp_path, content(*items), protocol))
    assert source.splits == {"train": ["a"], "test": ["b"]}
    assert_same(source, items)


def renamed(data, protocol):
    """The pickle as the other generation of NumPy writes it."""
    ours, other = ("numpy._core", "numpy.core")
    if f"{ours}.multiarray".encode() not in data:
        ours, other = other, ours
    if protocol < 4:  # a line of text
        return data.replace(f"c{ours}.".encode(), f"c{other}.".encode())
    for module in ("multiarray", "numeric"):  # length, then the text, all in one frame
        texts = [f"{name}.{module}".encode() for name in (ours, other)]
        old, new = (b"\x8c" + bytes([len(text)]) + text for text in texts)
        assert data[2:3] == b"\x95"
        (length,) = struct.unpack("<Q", data[3:11])
        length += data.count(old) * (len(new) - len(old))
        data = (data[:3] + struct.pack("<Q", length) + data[11:]).replace(old, new)
    return data


@pytest.mark.parametrize("protocol", range(6))
def test_both_generations_of_numpy_are_read(tmp_path, protocol):
    items = [annotation("a", np.int64(3))]
    path = saved(tmp_path, content(*items), protocol)
    other = renamed(path.read_bytes(), protocol)
    assert other != path.read_bytes()
    path.write_bytes(other)
    assert_same(PysklSource(path), items)


def test_old_list_layout_has_no_split(tmp_path):
    items = [annotation("a"), annotation("b", 1)]
    source = PysklSource(saved(tmp_path, items))
    assert source.splits == {}
    assert_same(source, items)


def test_files_of_old_layout_become_splits(tmp_path):
    train, test = [annotation("a"), annotation("b", 1)], [annotation("c")]
    for name, items in (("gym_train", train), ("gym_val", test)):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(items))
    source = PysklSource([tmp_path / "gym_train.pkl", tmp_path / "gym_val.pkl"])
    assert source.splits == {"gym_train": ["a", "b"], "gym_val": ["c"]}
    assert_same(source, train + test)


def test_filename_instead_of_frame_dir(tmp_path):
    item = annotation("x")
    item["filename"] = item.pop("frame_dir")
    source = PysklSource(saved(tmp_path, {"split": {}, "annotations": [item]}))
    assert [one.name for one in source] == ["x"]
    assert source.name(0) == "x"


def test_ntu_names_give_ids(tmp_path):
    items = [annotation("S032C003P106R002A120"), annotation("walk", subject=7), annotation("run")]
    result = [(one.setup, one.camera, one.subject) for one in PysklSource(saved(tmp_path, items))]
    assert result == [(32, 3, 106), (-1, -1, 7), (-1, -1, -1)]


@pytest.mark.parametrize("how", ["absent", "none"])
def test_without_img_shape_the_frame_size_must_be_given(tmp_path, how):
    item = annotation()
    item.pop("img_shape")
    if how == "none":
        item["img_shape"] = None
    path = saved(tmp_path, content(item))
    skeleton = SKELETONS["coco17"]
    with pytest.raises(InputError, match=r"clip 'clip'.*pass frame_size=\[HEIGHT,WIDTH\]"):
        convert(PysklSource(path), tmp_path / "s.h5", skeleton=skeleton, splits={})
    assert next(iter(PysklSource(path, frame_size=(90, 160)))).frame_size == (90, 160)


def test_3d_needs_neither_size_nor_score(tmp_path):
    item = {"frame_dir": "a", "label": 0, "keypoint": np.ones((1, 2, 25, 3), np.float16)}
    [result] = PysklSource(saved(tmp_path, [item]))
    assert result.score is None
    assert result.frame_size is None
    assert result.keypoint.shape == (1, 2, 25, 3)


def test_invalid_subject_is_unknown(tmp_path):
    items = [annotation("a", subject=one) for one in (HUGE, -5, 2**31, "x", None, 1.5)]
    assert [one.subject for one in PysklSource(saved(tmp_path, items))] == [-1] * 6


# --- files that are wrong -------------------------------------------------------------------------

HUGE = 10**5000  # Python refuses to write it out


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def doubled(times):
    """Build a list that doubles at each level: huge, but small in a pickle."""
    value = [1.0, 2.0]
    for _ in range(times):
        value = [value, value]
    return value


WRONG = {
    "a number": (7, "type int"),
    "another dict": ({"x": 1}, r"found a dict with 'x'"),
    "annotations of a dict": ({"annotations": {}}, r"expected a pyskl dict with `split`"),
    "split of a list": ({"split": ["a"], "annotations": []}, "`split` is not a dict"),
    "split of a text": ({"split": {"a": "b"}, "annotations": []}, "`split` is not a dict"),
    "no annotation": ([3], "annotation 0 is a value of type int, expected a dict"),
    "no name": ([{"label": 0}], "annotation 0 has no `frame_dir`"),
    "no label": ([{"frame_dir": "a", "keypoint": np.ones((1, 1, 1, 2))}], "'a' has no `label`"),
    "kinetics": ([{"frame_dir": "a", "frame_inds": [1]}], "'a' has no `keypoint`.*Kinetics"),
    "label text": ([annotation("a", "jump")], "'a' has label 'jump', expected an integer"),
    "label inf": ([annotation("a", float("inf"))], "'a' has label inf"),
    "label half": ([annotation("a", 1.5)], "'a' has label 1.5"),
    "size": ([annotation("a", img_shape=(480,))], "'a' has img_shape"),
    "size 0": ([annotation("a", img_shape=(0, 640))], "'a' has img_shape"),
    "size text": ([annotation("a", img_shape="big")], "'a' has img_shape"),
    "size inf": ([annotation("a", img_shape=(float("inf"), 640))], "'a' has img_shape"),
    "size huge": ([annotation("a", img_shape=(HUGE, 640))], "'a' has img_shape"),
    "label huge": ([annotation("a", HUGE)], "'a' has label a huge number, expected an integer"),
    "label deep": ([annotation("a", nested(5000))], r"'a' has label \[\[.*\.\.\..*, expected"),
    "label array": ([annotation("a", np.eye(9))], r"'a' has label .*array.*, expected"),
    "name of a list": ([annotation(["a"])], "annotation 0 has no `frame_dir` .the clip name"),
    "name huge": ([annotation(HUGE)], "annotation 0 has no `frame_dir` .the clip name"),
    "name deep": ([annotation(nested(5000))], "annotation 0 has no `frame_dir` .the clip name"),
    "split of arrays": ({"split": {"a": [np.ones(3)]}, "annotations": []}, "`split` is not"),
    "split of None": ({"split": {None: ["a"]}, "annotations": []}, "`split` is not"),
    "keys": ({HUGE: 1, "b": 2}, r"found a dict with a huge number, 'b'"),
    "deep": ([annotation("a", keypoint=nested(5000))], "'a' has ragged arrays"),
    "float of a huge one": ([annotation("a", keypoint=[0.5, HUGE])], "'a'"),
    "too many": ([annotation("a", keypoint=doubled(40))], "'a' has lists of more than 10000000"),
    "ragged": ([annotation("a", keypoint=[[[1, 2]], [[1]]])], "'a'"),
    "texts": ([annotation("a", keypoint="none")], "'a'.*numbers"),
    "ragged score": ([annotation("a", keypoint_score=[[1], [1, 2]])], "'a'"),
    "text score": ([annotation("a", keypoint_score=np.full((1, 3, 17), "x"))], "'a'.*score"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_malformed_content_is_refused_in_one_line(tmp_path, mistake):
    values, message = WRONG[mistake]
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(100_000)  # of the pickler
        path = saved(tmp_path, values)
    finally:
        sys.setrecursionlimit(limit)
    with pytest.raises(InputError, match=message) as caught:
        convert(PysklSource(path), tmp_path / "s.h5", skeleton=SKELETONS["coco17"], splits={})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.pkl: no such file"):
        PysklSource(tmp_path / "gone.pkl")
    with pytest.raises(InputError, match="cannot be read"):
        PysklSource(tmp_path)


VALID = pickle.dumps(content(annotation("a", frames=1), annotation("b", np.int64(1), frames=1)), 4)


def outcome(data, folder):
    """Return 'loaded' or 'refused'; other exceptions are raised."""
    path = folder / "data.pkl"
    path.write_bytes(data)
    try:
        source = PysklSource(path)
        convert(source, folder / "s.h5", skeleton=SKELETONS["coco17"], splits=source.splits)
    except InputError as error:
        return "refused" if "\n" not in str(error) else "refused in several lines"
    return "loaded"


def test_truncated_pickle_is_refused(tmp_path):
    assert outcome(VALID, tmp_path) == "loaded"
    for size in {*range(0, len(VALID), 37), len(VALID) - 1}:
        assert outcome(VALID[:size], tmp_path) == "refused"


def test_random_bytes_are_refused(tmp_path):
    rng = random.Random(0)
    for size in (0, 1, 10, 1000):
        assert outcome(rng.randbytes(size), tmp_path) == "refused"
    with pytest.raises(InputError, match=r"data\.pkl: not a pickle"):
        load_pickle(tmp_path / "data.pkl")


positions = st.integers(0, len(VALID) - 1)
edits = st.lists(st.tuples(positions, st.integers(0, 255)), min_size=1, max_size=4)


@settings(max_examples=300)
@given(edits)
@example([(0, ord("P"))])  # a persistent object
@example([(VALID.index(b"label") + 5, ord("G"))])
def test_damaged_bytes_are_refused_or_loaded(tmp_path_factory, edits):
    data = bytearray(VALID)
    for position, value in edits:
        data[position] = value
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    assert outcome(bytes(data), folder) in ("refused", "loaded")


# --- real files -----------------------------------------------------------------------------------

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")
REAL = sorted(DATA.glob("*/*.meta.yaml"), key=lambda path: path.name)


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("meta_path", REAL, ids=[path.name.split(".")[0] for path in REAL])
def test_real_files_are_read_completely(tmp_path, meta_path):
    path = meta_path.with_name(meta_path.name.replace(".meta.yaml", ".pkl"))
    meta = yaml.safe_load(meta_path.read_text())
    source = PysklSource(path)
    if isinstance(meta["joints"], str):  # described in words
        skeleton = SKELETONS["ntu25"]
    else:
        skeleton = load_skeleton(meta_path)
        assert skeleton.joints == tuple(meta["joints"])
    store = convert(
        source,
        tmp_path / "s.h5",
        skeleton=skeleton,
        splits=source.splits,
        class_names=[str(one) for one in meta["class_names"]],
    )
    assert len(store) == meta["clips"]
    assert Counter(store.label.tolist()) == meta["per_class"]
    assert {split: len(rows) for split, rows in store.splits.items()} == meta["split_sizes"]
    frames = store.frames
    assert (frames.min(), frames.max(), frames.sum()) == tuple(
        meta["frames"][key] for key in ("min", "max", "total")
    )
    with path.open("rb") as file:  # trusted: the same file that the meta data describes
        raw = pickle.load(file)
    for index, item in enumerate(raw["annotations"]):
        result = store.recording(index)
        assert (result.name, result.label) == (item["frame_dir"], item["label"])
        assert str(result.keypoint.dtype) == meta["dtype"]
        assert np.array_equal(result.keypoint, item["keypoint"])
        if meta["dims"] == 2:
            assert np.array_equal(result.score, item["keypoint_score"])
            assert result.frame_size == tuple(item["img_shape"])
    for split, names in raw["split"].items():
        assert [store.name(int(row)) for row in store.rows(split)] == list(names)


@needs_data
def test_clip_without_visible_joint_has_no_person(tmp_path):
    folder = DATA / "penn_action"
    source = PysklSource(folder / "penn_action.pkl")
    unseen = [one for one in source if not (one.score > 0).any()]
    assert len(unseen) == 1  # according to the metadata
    seen = next(iter(source))
    skeleton = load_skeleton(folder / "penn_action.meta.yaml")
    store = write_store(tmp_path / "s.h5", [*unseen, seen], skeleton=skeleton, splits={})
    dataset = ClipDataset(store, np.arange(2), frames=16, persons=2, train=False)
    assert np.abs(unseen[0].keypoint).sum() > 0  # positions are given, but nothing was seen
    assert not dataset[0]["present"].any()
    assert not dataset[0]["clip"].any()
    assert list(dataset[1]["present"]) == [True, False]
