import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.data.store import writer as writing
from maskclr_pl.data.store.checks import check_recording
from maskclr_pl.data.store.spool import SkippedRecording, Spool
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.convert import convert
from maskclr_pl.types import InputError

CHAIN = Skeleton("chain", ("root", "left_hand", "right_hand"), (-1, 0, 0))


def clip(i, **values):
    rng = np.random.default_rng(i)
    shape = (1 + i % 2, 2 + i % 5, 3)
    defaults = {
        "keypoint": rng.uniform(1, 99, (*shape, 2)).astype(np.float32),
        "score": np.ones(shape, np.float16),
        "frame_size": (100, 100),
    }
    return Recording(f"c{i}", i % 3, **{**defaults, **values})


class Clips:
    """A source that fails at some clips and can be interrupted at one."""

    hash, splits, class_names, notes, skeleton = "abc", {}, None, (), None
    units = "pixels"

    def __init__(self, count=20, bad=(), stop_at=None, parallel=True):
        self.count, self.bad, self.stop_at, self.parallel = count, bad, stop_at, parallel
        self.read = []

    def __len__(self):
        return self.count

    def name(self, index):
        return f"c{index}"

    def __getitem__(self, index):
        self.read.append(index)
        if index == self.stop_at:
            raise KeyboardInterrupt
        if index in self.bad:
            raise InputError(f"clip 'c{index}': it cannot be read")
        return clip(index)


def run(source, folder, **options):
    options = {"splits": {"all": [source.name(i) for i in range(len(source))]}, **options}
    return convert(source, folder / "s.h5", skeleton=CHAIN, **options)


def assert_clips(store, indices):
    assert [store.name(row) for row in range(len(store))] == [f"c{i}" for i in indices]
    for row, index in enumerate(indices):
        result, expected = store.recording(row), clip(index)
        for field in fields(Recording):
            assert np.array_equal(getattr(result, field.name), getattr(expected, field.name))


@pytest.mark.parametrize("workers", [0, 2])
def test_result_does_not_depend_on_workers(tmp_path, workers):
    assert_clips(run(Clips(33), tmp_path, workers=workers), range(33))
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_clips_are_listed_with_reason(tmp_path, workers):
    store = run(Clips(bad=(0, 7, 19)), tmp_path, workers=workers, on_error="skip")
    assert_clips(store, [i for i in range(20) if i not in (0, 7, 19)])
    assert store.skipped() == [(f"c{i}", f"clip 'c{i}': it cannot be read") for i in (0, 7, 19)]
    assert len(store.rows("all")) == 17


def test_unusable_clip_stops_conversion(tmp_path):
    with pytest.raises(InputError, match=r"'c7': it cannot be read; pass on_error=skip to skip"):
        run(Clips(bad=(7,)), tmp_path)
    assert not (tmp_path / "s.h5").exists()


def test_unusable_first_clip_leaves_no_files(tmp_path):
    with pytest.raises(InputError, match=r"'c0': it cannot be read$"):
        run(Clips(bad=(0,)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_usable_clip_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"all 2 recordings are invalid.*'c0'"):
        run(Clips(2, bad=(0, 1)), tmp_path, on_error="skip")


def test_invalid_splits_are_refused_before_reading(tmp_path):
    source = Clips()
    with pytest.raises(InputError, match=r"'gone'.*on_error=skip"):
        run(source, tmp_path, splits={"train": ["c1", "gone"]})
    with pytest.raises(InputError, match=r"'train' names clip 'c1' twice"):
        run(source, tmp_path, splits={"train": ["c1", "c1"]}, on_error="skip")
    assert source.read == []
    store = run(source, tmp_path, splits={"train": ["c1", "gone"]}, on_error="skip")
    assert list(store.rows("train")) == [1]
    assert store.skipped() == [("gone", "listed in split 'train' but not in the file")]


# --- resuming after an interruption ---------------------------------------------------------------


@pytest.mark.parametrize("bad", [(), (3,)])
def test_interrupted_conversion_is_resumed(tmp_path, bad):
    with pytest.raises(KeyboardInterrupt):
        run(Clips(bad=bad, stop_at=12), tmp_path, on_error="skip")
    assert not (tmp_path / "s.h5").exists()
    source = Clips(bad=bad)
    resumed = run(source, tmp_path, on_error="skip")
    assert source.read == list(range(12, 20))
    assert_clips(resumed, [i for i in range(20) if i not in bad])
    assert [name for name, _ in resumed.skipped()] == [f"c{i}" for i in bad]
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_conversion_is_resumed_after_unusable_clip(tmp_path, on_error):
    """The clip is skipped, or read again."""
    with pytest.raises(InputError, match="'c7'"):
        run(Clips(bad=(7, 9)), tmp_path)
    bad = (7, 9) if on_error == "skip" else ()
    source = Clips(bad=bad)
    assert_clips(run(source, tmp_path, on_error=on_error), [i for i in range(20) if i not in bad])
    assert source.read == list(range(7, 20))
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


def test_interrupted_conversion_is_resumed_with_skip(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Clips(stop_at=12), tmp_path)
    source = Clips(bad=(15,))
    store = run(source, tmp_path, on_error="skip")
    assert source.read == list(range(12, 20))
    assert_clips(store, [i for i in range(20) if i != 15])


@pytest.mark.parametrize("still", [True, False])
def test_stop_resumes_at_first_skipped_clip(tmp_path, still):
    """A command with on_error=stop must not accept clips skipped by an earlier one."""
    with pytest.raises(KeyboardInterrupt):
        run(Clips(bad=(5, 8), stop_at=12), tmp_path, on_error="skip")
    source = Clips(bad=(5, 8) if still else ())
    if still:
        with pytest.raises(InputError, match="'c5'"):
            run(source, tmp_path)
        assert source.read == [5]
    else:
        store = run(source, tmp_path)
        assert source.read == list(range(5, 20))
        assert_clips(store, range(20))
        assert store.skipped() == []


@pytest.mark.parametrize("change", ["hash", "settings", "class_names"])
def test_other_settings_restart(tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        run(Clips(stop_at=12), tmp_path)
    source, options = Clips(), {}
    if change == "hash":
        source.hash = "other"
    else:
        options = {
            "settings": {"settings": "x"},
            "class_names": {"class_names": ["a", "b", "c"]},
        }[change]
    assert_clips(run(source, tmp_path, **options), range(20))
    assert source.read == list(range(20))


@given(st.data())
def test_truncated_files_are_resumed_or_rewritten(tmp_path_factory, data):
    """A power cut leaves each of the files cut at any length."""
    folder = tmp_path_factory.mktemp("cut")
    with pytest.raises(KeyboardInterrupt):
        run(Clips(stop_at=12, bad=(4,)), folder, on_error="skip")
    for name in ("table", "keypoint", "score"):
        file = folder / ".s.h5.partial" / name
        size = data.draw(st.integers(0, file.stat().st_size), label=name)
        os.truncate(file, size)
    store = run(Clips(bad=(4,)), folder, on_error="skip")
    assert_clips(store, [i for i in range(20) if i != 4])
    assert [name for name, _ in store.skipped()] == ["c4"]


@given(st.data())
def test_damaged_table_is_resumed_before_the_damage(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    with pytest.raises(KeyboardInterrupt):
        run(Clips(stop_at=12, bad=(4,)), folder, on_error="skip")
    table = folder / ".s.h5.partial" / "table"
    content = bytearray(table.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1), label="at")
    content[at] = data.draw(st.integers(0, 255), label="value")
    table.write_bytes(content)
    store = run(Clips(bad=(4,)), folder, on_error="skip")
    assert_clips(store, [i for i in range(20) if i != 4])


def in_child(act):
    """Run in another process and return the message of its InputError, if any."""
    read, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            act()
        except InputError as error:
            os.write(write_end, str(error).encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read) as message:
        return message.read()


def test_store_is_locked_during_conversion(tmp_path):
    spool = Spool(tmp_path / ".s.h5.partial", "key")
    try:
        assert "another command is writing there" in in_child(lambda: run(Clips(), tmp_path))
        assert (tmp_path / ".s.h5.partial" / "table").exists()
    finally:
        spool.close()
    assert_clips(run(Clips(), tmp_path), range(20))


def test_lock_is_held_until_store_is_complete(tmp_path, monkeypatch):
    fill, messages = writing._fill, []

    def slowly(*args):
        messages.append(in_child(lambda: Spool(tmp_path / ".s.h5.partial", "key")))
        fill(*args)

    monkeypatch.setattr(writing, "_fill", slowly)
    assert_clips(run(Clips(), tmp_path), range(20))
    assert ["another command is writing there" in line for line in messages] == [True]


def test_simultaneous_processes_may_write_the_same_store(tmp_path, monkeypatch):
    """All processes of a Slurm job generate the toy data, each independently."""

    def clips():
        yield clip(0)
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 1)
            write_store(tmp_path / "s.h5", [clip(1)], skeleton=CHAIN, splits={})
        yield clip(2)

    store = write_store(tmp_path / "s.h5", clips(), skeleton=CHAIN, splits={})
    assert [store.name(i) for i in range(len(store))] == ["c0", "c2"]
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


def test_conversion_is_resumed_after_worker_death(tmp_path):
    class Dying(Clips):
        def __getitem__(self, index):
            if index == 12:
                raise RuntimeError("DataLoader worker is killed by signal")
            return super().__getitem__(index)

    with pytest.raises(RuntimeError):
        run(Dying(), tmp_path)
    source = Clips()
    assert_clips(run(source, tmp_path), range(20))
    assert source.read == list(range(12, 20))


@pytest.mark.slow
def test_killed_command_is_resumed(tmp_path):
    """SIGKILL gives the command no chance to clean up."""
    clips = [
        {"frame_dir": str(i), "label": 0, "img_shape": (9, 9), "keypoint": np.ones((1, 1, 17, 2))}
        for i in range(20_000)
    ]
    (tmp_path / "slow.pkl").write_bytes(pickle.dumps({"split": {}, "annotations": clips}))
    command = [sys.executable, "-m", "maskclr_pl.prepare", "input=slow.pkl", "output=s.h5"]
    command += ["skeleton=coco17"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        table, deadline = tmp_path / ".s.h5.partial" / "table", time.monotonic() + 120
        while not table.exists() or table.stat().st_size < 100_000:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    finally:
        process.kill()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "continues" in done.stdout
    assert len(Store(tmp_path / "s.h5")) == 20_000
    assert not (tmp_path / ".s.h5.partial").exists()


# --- digests --------------------------------------------------------------------------------------


def test_duplicate_in_long_split_is_refused_quickly():
    names = [str(i) for i in range(200_000)]
    start = time.monotonic()
    with pytest.raises(InputError, match="names clip '199999' twice"):
        writing.split_indices(names, {"all": [*names, names[-1]]})
    assert time.monotonic() - start < 10  # comparing all pairs takes minutes


def test_duplicates_have_the_same_digest(tmp_path):
    class Copies(Clips):
        def __getitem__(self, index):
            original = clip({5: 2, 9: 2}.get(index, index))
            keypoint = original.keypoint * (index not in (3, 4))
            return Recording(f"c{index}", 0, keypoint, original.score, original.frame_size)

    digest = run(Copies(12), tmp_path).digest
    assert digest[2] == digest[5] == digest[9]
    assert digest[3] == digest[4] == 0  # recordings without a pose are not copies of each other
    assert len(set(digest.tolist())) == 12 - 3


# --- single recordings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "swapped"), [((100, 300), False), ((300, 100), True), ((300, 300), False)]
)
def test_swapped_image_sizes_are_refused(size, swapped):
    keypoint = np.random.default_rng(0).uniform(1, 99, (1, 8, 3, 2)).astype(np.float32)
    keypoint[..., 0] *= 3
    recording = clip(0, keypoint=keypoint, score=np.ones((1, 8, 3)), frame_size=size)
    if not swapped:
        check_recording(recording, CHAIN)
        return
    with pytest.raises(InputError, match=r"height 300 and width 100.*\(height, width\)"):
        check_recording(recording, CHAIN)


@given(st.integers(0, 40), st.integers(0, 5), st.booleans())
def test_swapped_size_needs_many_joints_outside(wide, odd, scored):
    """Of 100 joints in a 200 x 100 image, `wide` fit the swapped size, `odd` fit neither."""
    xy = np.full((100, 2), 50, np.float16)
    xy[:wide, 0], xy[wide : wide + odd] = 150, -7
    score = np.ones((1, 1, 100), np.float16) if scored else None
    skeleton = Skeleton("many", tuple(map(str, range(100))), (-1, *[0] * 99))
    recording = clip(0, keypoint=xy[None, None], score=score, frame_size=(200, 100))
    if wide > 20 and odd == 0:
        with pytest.raises(InputError, match="height 200 and width 100"):
            check_recording(recording, skeleton)
    else:
        check_recording(recording, skeleton)


def test_meters_with_image_size_are_accepted():
    recording = clip(0, keypoint=np.ones((1, 2, 3, 3), np.float32), score=None)
    check_recording(recording, CHAIN)


def test_person_leaving_the_image_is_accepted():
    keypoint = np.full((1, 10, 3, 2), 50, np.float32)
    keypoint[:, -1:, :, 0] = 120  # a tenth of the frames
    check_recording(
        clip(0, keypoint=keypoint, score=np.ones((1, 10, 3)), frame_size=(200, 100)), CHAIN
    )


def test_spool_skips_unusable_item(tmp_path):
    spool = Spool(tmp_path / "x", "")
    spool.skip(SkippedRecording("a", "broken"))
    assert len(spool) == 1
    spool.close()
