import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import h5py
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.data.store.reader import FORMAT_VERSION
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.types import InputError

CHAIN = Skeleton("chain", ("root", "left_hand", "right_hand"), (-1, 0, 0))


def recording(name="a", label=0, *, persons=1, frames=4, joints=3, channels=2, seed=0, **values):
    rng = np.random.default_rng(seed)
    keypoint = rng.uniform(1, 100, (persons, frames, joints, channels)).astype(np.float32)
    score = rng.integers(1, 8, keypoint.shape[:3]).astype(np.float16) / 8
    defaults = {"score": score, "frame_size": (480, 640)}
    if channels == 3:
        defaults = {"score": None, "frame_size": None}
    return Recording(name, label, **{"keypoint": keypoint, **defaults, **values})


def write(path, recordings, splits=None, skeleton=CHAIN, **options):
    return write_store(path, recordings, skeleton=skeleton, splits=splits or {}, **options)


def assert_same(found, expected):
    for field in fields(Recording):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, field.name
            assert np.array_equal(a, b), field.name
        else:
            assert a == b, field.name


@contextmanager
def refusal_allowed(named):
    """An InputError is as good as doing it right, if it names what it refuses."""
    try:
        yield
    except InputError as error:
        if named not in str(error):
            raise


# --- round trip -----------------------------------------------------------------------------------


@st.composite
def data_sets(draw):
    channels, scored = draw(st.sampled_from((2, 3))), draw(st.booleans())
    width = draw(st.sampled_from((16, 32)))
    farthest = 65504 if width == 16 else 1e6
    places = st.floats(-farthest, farthest, width=width)
    ids = st.integers(-1, 200)
    recordings = []
    texts = st.text("aé_-/ S0", min_size=1)
    for name in draw(st.lists(texts, min_size=1, max_size=4, unique=True)):
        shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), len(CHAIN))
        keypoint = draw(hnp.arrays(f"f{width // 8}", (*shape, channels), elements=places))
        positive = st.floats(0, 2, width=16)
        score = draw(hnp.arrays(np.float16, shape, elements=positive)) if scored else None
        size = (draw(st.integers(1, 4000)), draw(st.integers(1, 4000))) if channels == 2 else None
        label, *numbers = draw(st.integers(0, 9)), draw(ids), draw(ids), draw(ids)
        recordings.append(Recording(name, label, keypoint, score, size, *numbers))
    names = [one.name for one in recordings]
    splits = {
        split: draw(st.lists(st.sampled_from(names), unique=True))
        for split in draw(st.sets(st.sampled_from(("train", "test", "xsub_val"))))
    }
    return recordings, splits


@settings(max_examples=40)
@given(data_sets())
def test_recordings_come_back_exactly(data):
    recordings, splits = data
    with tempfile.TemporaryDirectory() as folder:
        store = write(Path(folder) / "s.h5", iter(recordings), splits, source_hash="abc")
        assert len(store) == len(recordings)
        for index, expected in enumerate(recordings):
            assert_same(store.recording(index), expected)
            assert store.name(index) == expected.name
        assert store.splits.keys() == splits.keys()
        for split, names in splits.items():
            assert [store.name(int(row)) for row in store.rows(split)] == names
        assert store.skeleton == CHAIN
        assert store.source_hash == "abc"
        assert store.coordinates == ("metres" if recordings[0].frame_size is None else "pixels")
        assert store.class_names == [str(i) for i in range(max(store.label) + 1)]


@pytest.mark.parametrize("name", SKELETONS)
def test_the_file_describes_its_skeleton(tmp_path, name):
    skeleton = SKELETONS[name]
    one = recording(joints=len(skeleton))
    assert write(tmp_path / "s.h5", [one], skeleton=skeleton).skeleton == skeleton


def test_big_endian_and_strided_arrays_keep_their_values(tmp_path):
    keypoint = np.arange(48, dtype=">f4").reshape(2, 3, 4, 2).transpose(0, 2, 1, 3)
    store = write(tmp_path / "s.h5", [recording(keypoint=keypoint, score=None)])
    assert np.array_equal(store.recording(0).keypoint, keypoint)


def test_a_later_clip_of_higher_precision_is_not_rounded(tmp_path):
    clips = [
        recording("whole", keypoint=np.ones((1, 2, 3, 2), np.int32), score=None),
        recording("broken", keypoint=np.full((1, 2, 3, 2), 1.7, np.float32), score=None),
    ]
    with refusal_allowed("broken"):
        store = write(tmp_path / "s.h5", clips)
        assert np.allclose(store.recording(1).keypoint, 1.7)


def test_rows_are_uncompressed_person_after_person(tmp_path):
    clips = [recording("a", persons=2, frames=3), recording("b", persons=1, frames=2, seed=1)]
    store = write(tmp_path / "s.h5", clips)
    with h5py.File(store.path) as file:
        assert file["keypoint"].shape == (8, 3, 2)
        assert file["keypoint"].chunks is None
        assert file["keypoint"].compression is None
        assert np.array_equal(file["keypoint"][3:6], clips[0].keypoint[1])
        assert list(file["start"]) == [0, 6]
        assert file.attrs["format_version"] == FORMAT_VERSION


# --- opening --------------------------------------------------------------------------------------


def test_opening_reads_metadata_only(tmp_path, monkeypatch):
    path = write(tmp_path / "s.h5", [recording()]).path
    touched = []
    read = h5py.Dataset.__getitem__

    def spy(self, *args, **kwargs):
        touched.append(self.name)
        return read(self, *args, **kwargs)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    monkeypatch.setattr(np, "memmap", lambda *_, **__: pytest.fail("mapped at opening"))
    store = Store(path)
    assert "/label" in touched
    assert not {"/keypoint", "/score"} & set(touched)
    assert store.frames[0] == 4


def test_a_pickled_store_is_small_and_works(tmp_path):
    clips = [recording(str(i), frames=500, seed=i) for i in range(4)]
    store = write(tmp_path / "s.h5", clips)
    store.recording(0)  # maps the rows
    sent = pickle.dumps(store)
    assert len(sent) < store.path.stat().st_size / 5
    received = pickle.loads(sent)
    for index, expected in enumerate(clips):
        assert_same(received.recording(index), expected)


def _read_in_child(store, index, path):
    np.save(path, store.recording(index).keypoint)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("mapped", [False, True])
def test_a_store_works_after_fork(tmp_path, mapped):
    clips = [recording(str(i), seed=i) for i in range(3)]
    store = write(tmp_path / "s.h5", clips)
    if mapped:
        store.recording(0)
    child = multiprocessing.get_context("fork").Process(
        target=_read_in_child, args=(store, 2, tmp_path / "child.npy")
    )
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert np.array_equal(np.load(tmp_path / "child.npy"), clips[2].keypoint)
    assert_same(store.recording(1), clips[1])


def test_an_unknown_split_lists_those_there_are(tmp_path):
    store = write(tmp_path / "s.h5", [recording()], {"xsub_train": ["a"], "xsub_val": []})
    with pytest.raises(InputError, match=r"no split 'train'.*xsub_train, xsub_val"):
        store.rows("train")


def test_a_newer_format_is_refused(tmp_path):
    path = write(tmp_path / "s.h5", [recording()]).path
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = FORMAT_VERSION + 1
    with pytest.raises(InputError, match=f"format {FORMAT_VERSION + 1}.*update maskclr_pl"):
        Store(path)


def test_a_truncated_file_is_refused_at_any_length(tmp_path):
    path = write(tmp_path / "s.h5", [recording(frames=200)], {"all": ["a"]}).path
    content = path.read_bytes()
    for size in (0, 1, 7, 100, 2048, len(content) // 2, len(content) - 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"s\.h5: .*(run prepare again|create one with)"):
            Store(path)


def test_an_hdf5_file_that_is_no_store(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["keypoint"] = np.zeros((3, 2))
    with pytest.raises(InputError, match="not a store"):
        Store(tmp_path / "other.h5")


@pytest.mark.parametrize("lost", ["keypoint", "label", "start", "name", "frames", "persons"])
def test_a_store_without_one_of_its_arrays_is_refused(tmp_path, lost):
    path = write(tmp_path / "s.h5", [recording()]).path
    with h5py.File(path, "a") as file:
        del file[lost]
    with pytest.raises(InputError, match=r"s\.h5: not a complete store"):
        Store(path)


@pytest.mark.parametrize("lost", ["skeleton", "class_names", "coordinates"])
def test_a_store_without_one_of_its_attributes_is_refused(tmp_path, lost):
    path = write(tmp_path / "s.h5", [recording()]).path
    with h5py.File(path, "a") as file:
        del file.attrs[lost]
    with pytest.raises(InputError, match=r"s\.h5: not a complete store"):
        Store(path)


def test_a_store_without_recordings_is_refused(tmp_path):
    path = write(tmp_path / "s.h5", [recording()]).path
    with h5py.File(path, "a") as file:
        for key in ("start", "frames", "persons", "label", "name"):
            values = file[key][:0]
            del file[key]
            file[key] = values
    with pytest.raises(InputError, match=r"s\.h5"):
        Store(path)


def test_a_store_that_was_compressed_afterwards_is_refused(tmp_path):
    path = write(tmp_path / "s.h5", [recording()]).path
    with h5py.File(path, "a") as file:
        values = file["keypoint"][:]
        del file["keypoint"]
        file.create_dataset("keypoint", data=values, compression="gzip")
    with pytest.raises(InputError, match=r"s\.h5"):
        Store(path)


@pytest.mark.parametrize("content", [b"", b"no store at all", pickle.dumps({"split": {}})])
def test_a_file_that_is_not_hdf5(tmp_path, content):
    (tmp_path / "s.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"s\.h5: not a complete store.*maskclr_pl\.prepare"):
        Store(tmp_path / "s.h5")


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(InputError, match=r"s\.h5: no such file; create it with.*prepare"):
        Store(tmp_path / "s.h5")


# --- recordings that cannot be stored -------------------------------------------------------------


def broken(array, index, value):
    array = array.copy()
    array[index] = value
    return array


GOOD = recording("good", label=1, persons=2)
UNUSABLE = {
    "nan": (
        [replace(GOOD, keypoint=broken(GOOD.keypoint, (1, 2, 1, 0), np.nan))],
        {},
        r"clip 'good'.*person 1, frame 2, joint left_hand",
    ),
    "inf": (
        [replace(GOOD, keypoint=broken(GOOD.keypoint, (0, 3, 2, 1), -np.inf))],
        {},
        r"clip 'good'.*person 0, frame 3, joint right_hand",
    ),
    "nan in 3D": (
        [recording("w", channels=3, keypoint=np.full((1, 1, 3, 3), np.nan, np.float16))],
        {},
        r"clip 'w': 9 coordinates.*person 0, frame 0, joint root",
    ),
    "nan score": (
        [replace(GOOD, score=broken(GOOD.score, (1, 0, 2), np.nan))],
        {},
        r"clip 'good'.*score.*person 1, frame 0, joint right_hand",
    ),
    "joints": ([recording("w", joints=5)], {}, r"clip 'w'.*5 joints.*chain has 3.*skeleton="),
    "three axes": (
        [replace(GOOD, keypoint=GOOD.keypoint[0])],
        {},
        r"clip 'good'.*shape \(4, 3, 2\), expected \(persons, frames, joints",
    ),
    "four channels": ([recording("w", channels=4)], {}, r"clip 'w'.*\(1, 4, 3, 4\)"),
    "no frame": ([recording("w", frames=0)], {}, r"clip 'w'.*empty"),
    "no person": ([recording("w", persons=0)], {}, r"clip 'w'.*empty"),
    "texts": ([recording("w", keypoint=np.full((1, 2, 3, 2), "x"))], {}, r"clip 'w'.*numbers"),
    "score shape": ([replace(GOOD, score=GOOD.score[:, :1])], {}, r"clip 'good'.*scores.*shape"),
    "score of objects": (
        [replace(GOOD, score=GOOD.score.astype(object))],
        {},
        r"clip 'good'.*score",
    ),
    "image size": ([replace(GOOD, frame_size=None)], {}, r"clip 'good'.*frame_size="),
    "negative label": ([recording("w", label=-1)], {}, r"clip 'w'.*label is -1"),
    "wild label": ([recording("w", label=2**33)], {}, r"clip 'w'.*label.*below 100000"),
    "wild subject": ([recording("w", subject=2**40)], {}, r"clip 'w'.*subject is 1099511627776"),
    "no height": ([replace(GOOD, frame_size=(0, 9))], {}, r"clip 'good'.*image height is 0, expe"),
    "wild size": ([replace(GOOD, frame_size=(9, 2**40))], {}, r"clip 'good'.*image width is 1099"),
    "half a character": ([recording("\ud800")], {}, r"its name is .*rename it"),
    "zero character": ([recording("w\0")], {}, r"its name is .*rename it"),
    "no name": ([recording("")], {}, r"its name is empty.*rename it"),
    "long name": ([recording("w" * 1001)], {}, r"its name is .*too long.*rename it"),
    "split name": ([GOOD], {"splits": {"a\ud800": []}}, r"split names must be plain text"),
    "split with a zero": ([GOOD], {"splits": {"a\0b": []}}, r"split names must be plain text"),
    "class name": ([GOOD], {"class_names": ["x", "y\ud800"]}, r"class 'y.*its name is .*rename it"),
    "twice": ([GOOD, recording("b"), replace(GOOD)], {}, r"'good' occurs twice"),
    "2D and 3D": ([GOOD, recording("w", channels=3)], {}, r"clip 'w'.*unlike clip 'good'"),
    "with and without score": (
        [GOOD, recording("w", score=None)],
        {},
        r"clip 'w'.*no scores, unlike clip 'good'",
    ),
    "class names": (
        [GOOD, recording("w", label=2)],
        {"class_names": ["x", "y"]},
        r"clip 'w'.*label 2 is out of range of 2 class names",
    ),
    "absent clips": (
        [GOOD],
        {"splits": {"train": ["good", "gone", "lost"]}},
        r"split 'train': 2 of 3 clips.*'gone'",
    ),
    "nothing": ([], {}, "no recordings"),
}


@pytest.mark.parametrize("mistake", UNUSABLE)
def test_unusable_recordings_are_named_and_nothing_is_left(tmp_path, mistake):
    recordings, options, message = UNUSABLE[mistake]
    with pytest.raises(InputError, match=message):
        write(tmp_path / "s.h5", iter(recordings), **options)
    assert list(tmp_path.iterdir()) == []


def test_a_split_that_names_a_clip_twice_is_refused_or_holds_it_once(tmp_path):
    clips = [recording("a"), recording("b")]
    with refusal_allowed("'a'"):
        store = write(tmp_path / "s.h5", clips, {"test": ["a", "b", "a"]})
        assert sorted(store.rows("test")) == [0, 1]


@pytest.mark.parametrize("split", ["xsub/train", "", ".", "a/../b"])
def test_split_names_that_are_no_plain_names_come_back_or_are_refused(tmp_path, split):
    with refusal_allowed(f"split {split!r}"):
        store = write(tmp_path / "s.h5", [recording()], {split: ["a"]})
        assert list(store.rows(split)) == [0]


def test_a_score_that_float16_cannot_hold_does_not_become_infinite(tmp_path):
    score = np.full((1, 4, 3), 1e6, np.float32)
    with refusal_allowed("'a'"):
        store = write(tmp_path / "s.h5", [recording(score=score)])
        assert np.isfinite(store.recording(0).score).all()


# --- interruptions --------------------------------------------------------------------------------


class SourceFailureError(Exception):
    pass


@pytest.mark.parametrize("error", [SourceFailureError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_exception_in_the_middle_leaves_the_folder_as_it_was(tmp_path, error, earlier):
    path = tmp_path / "s.h5"
    if earlier:
        write(path, [recording("earlier")])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def interrupted():
        yield from (recording(str(i)) for i in range(50))
        raise error

    with pytest.raises(error):
        write(path, interrupted(), {"all": ["0"]})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_failure_while_the_hdf5_file_is_filled_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(h5py.File, "create_dataset", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "s.h5", [recording()])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_as_such(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.File, "create_dataset", full)
    with pytest.raises(InputError, match=r"s\.h5.*No space left"):
        write(tmp_path / "s.h5", [recording()])
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_replaced_by_the_new_one(tmp_path):
    write(tmp_path / "s.h5", [recording("old")])
    write(tmp_path / "s.h5", [recording("new"), recording("newer")])
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]
    assert Store(tmp_path / "s.h5").name(1) == "newer"


@pytest.fixture(scope="module")
def slow_pickle(tmp_path_factory):
    """Small and quickly loaded, but slow to convert: every clip shares the same arrays."""
    keypoint = np.ones((1, 1, 17, 2), np.float16)
    score = np.ones((1, 1, 17), np.float16)
    shared = {"label": 0, "img_shape": (9, 9), "keypoint": keypoint, "keypoint_score": score}
    clips = [{"frame_dir": str(i), **shared} for i in range(100_000)]
    path = tmp_path_factory.mktemp("slow") / "slow.pkl"
    path.write_bytes(pickle.dumps({"split": {"all": ["0"]}, "annotations": clips}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.recipes)]
)
def test_an_interrupted_prepare_keeps_the_earlier_store_and_its_progress(
    tmp_path, slow_pickle, number
):
    before = {}
    if number == signal.SIGTERM:  # once with an earlier store, once without
        write(tmp_path / "s.h5", [recording("earlier")])
        before = {"s.h5": (tmp_path / "s.h5").read_bytes()}
    command = [sys.executable, "-m", "maskclr_pl.prepare", f"input={slow_pickle}"]
    process = subprocess.Popen(
        [*command, f"output={tmp_path / 's.h5'}", "skeleton=coco17", "overwrite=true"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell may have started the tests with the signal ignored
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        table = tmp_path / ".s.h5.partial" / "table"
        while not table.exists() or table.stat().st_size < 10_000:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "reading" in out
    assert process.returncode == 128 + number
    assert err == "stopped\n"
    assert "repeat the command to continue" in out
    found = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert found == before
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == [".s.h5.partial"]
