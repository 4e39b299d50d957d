import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from maskclr_pl.data.store.reader import Store
from maskclr_pl.sources.base import Source
from maskclr_pl.sources.ntu import source as ntu_skeleton
from maskclr_pl.sources.ntu.actors import select_actors, stack_actors
from maskclr_pl.sources.ntu.parser import parse
from maskclr_pl.sources.ntu.protocols import MISSING
from maskclr_pl.sources.ntu.source import NtuSkeletonSource
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process
from tests.reference import ntu_skeleton as reference
from tests.reference.ntu_skeleton import person

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "ntu_skeleton_samples"
NAME = "S001C002P003R001A004"
ID = 72057594037931101
has_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no {SAMPLES}")


def assert_tracks(bodies, tracks):
    assert len(bodies) == len(tracks)
    with np.errstate(over="ignore"):
        for body, track in zip(bodies, tracks.values(), strict=True):
            assert body.frames.tolist() == track.frames
            for result, expected in ((body.joints, track.joints), (body.color, track.color)):
                np.testing.assert_array_equal(result, np.array(expected, np.float32))
            np.testing.assert_array_equal(body.state, track.state)


def folder(tmp_path, *names, data=None):
    for name in names:
        path = tmp_path / f"{name}.skeleton"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reference.write({ID: person(range(3))}, 3) if data is None else data)
    return tmp_path


# ---- the text


forms = ["7g", "4f", "8f", "9f", "20f", "0f", "3e"]
number = st.one_of(
    st.floats(-5, 5, width=32), st.floats(-2000, 2000), st.floats(), st.integers(-999, 9999)
).map(float)
text_number = st.one_of(
    st.builds(lambda form, value: f"{value:.{form}}".encode(), st.sampled_from(forms), number),
    number.map(lambda value: repr(value).encode()),
    st.sampled_from(
        [
            b".5",
            b"-.5",
            b"5.",
            b"-0.0",
            b"+0.25",
            b"007.5",
            b"0",
            b"nan",
            b"-inf",
            b"Infinity",
            b"1e400",
        ]
    ),
    st.from_regex(rb"-?[0-9]{0,10}\.[0-9]{1,12}", fullmatch=True),
)


@given(
    seed=st.integers(0, 1000),
    presence=st.lists(st.sets(st.sampled_from([ID, ID + 1, 7])), min_size=1, max_size=6),
    words=st.lists(text_number, min_size=1, max_size=30),
    newline=st.sampled_from(["\r\n", "\n", "\t\n\n", "\r"]),
    last=st.booleans(),
    state=st.integers(0, 2),
)
def test_parser_agrees_with_line_by_line_reader(seed, presence, words, newline, last, state):
    words = [word.decode() for word in words]
    bodies = {}
    for frame, seen in enumerate(presence):
        for i in sorted(seen):
            rng = np.random.default_rng((seed, frame, i % 8))
            bodies.setdefault(i, {})[frame] = rng.integers(0, len(words), (25, 5))
    data = reference.write(bodies, len(presence), words.__getitem__, newline=newline, state=state)
    data = data if last else data.rstrip()
    expected = reference.read(data.replace(b"\n\n", b"\n"))
    assert_tracks(parse(data, "file", color=True), expected)
    assert all(body.color is None for body in parse(data, "file"))


GOOD = reference.write({ID: person(range(4)), 5: person(range(1, 3), x=1.0)}, 5)


def parsed(data):
    """Return the bodies, or None if the data are refused in one line."""
    try:
        return parse(data, "file", color=True)
    except InputError as error:
        message = str(error)
    assert message.startswith("file: ")
    assert len(message.splitlines()) == 1
    return None


@settings(max_examples=300)
@given(st.data())
def test_damaged_files_are_refused_or_read_like_the_reference(data):
    """A damaged file is refused in one line or gives what the reference reader gives."""
    text = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        # most of the structure is at the beginning
        at = data.draw(st.one_of(st.integers(0, 200), st.integers(0, len(text))))
        new = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"9" * 30, b"\n", b"-"])))
        text[at : at + data.draw(st.sampled_from([0, 1, 1, 2, 500, 10**6]))] = new
    bodies = parsed(bytes(text))
    if bodies is None:
        return
    clip = (
        stack_actors(slots, lambda body: body.joints) if (slots := select_actors(bodies)) else None
    )
    assert clip is None or clip.shape[2:] == (25, 3)
    try:
        expected = reference.read(bytes(text))
    except Exception:
        return  # the plain reader is stricter about lines and unused columns
    assert_tracks(bodies, expected)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    bodies = parsed(data)
    assert bodies is None or (bodies == [] and set(data.split()[1:]) <= {b"0"})


def changed(old, new, count=1):
    assert old in GOOD
    return GOOD.replace(old, new, count)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b" \r\n\r\n", "the file is empty"),
        (b"x" * 10**6, "expected the number of frames, found 'xxxxxxxxxxxxxxxxxxxxxxxx...'"),
        (b"-3\n", "expected the number of frames, found '-3'"),
        (b"3.0\n", "expected the number of frames, found '3.0'"),
        (b"9" * 401, "expected the number of frames, found '999999999999999999999999...'"),
        (b"\xff\xfe1\x000\x00", r"expected the number of frames, found 'ÿþ1\x000\x00'"),
        (b"99999999999\n0\n0\n", "cut short, it has 2 of 99999999999 frames"),
        (b"1\n-1\n", "expected a number of bodies, found '-1'"),
        (b"1\n99999999999999999999\n", "cut short in frame 0 of 1"),
        (GOOD[: len(GOOD) // 3], "cut short in frame 1 of 5"),
        (GOOD + b"1", "continues after the announced 5 frames with '1'"),
        (changed(b"25\r\n", b"24\r\n"), "a body in frame 0 has '24' joints, expected 25"),
        (changed(b"25\r\n", b"255\r\n"), "a body in frame 0 has '255' joints, expected 25"),
        (changed(b"09727453 2\r", b"09727453 3\r"), "joint 0 of a body in frame 0 has tracking st"),
        (changed(b"%d" % ID, b"1.5"), "expected a body id, found '1.5'"),
        (changed(b"\r\n5 0", b"\r\n%d 0" % ID), "a frame holds two bodies with the same id"),
        (changed(b" 277.3628", b"_5 277.3628"), "expected a coordinate, found"),
        (changed(b" 277.3628", b"x 277.3628"), "expected a coordinate, found"),
    ],
)
def test_malformed_file_is_refused(data, message):
    with pytest.raises(InputError) as error:
        parse(data, "a.skeleton")
    assert str(error.value).startswith(f"a.skeleton: {message}")
    assert len(str(error.value)) < 150


def test_shifted_columns_are_detected():
    """The total number of values is right, but some are in the wrong column."""
    lines = GOOD.split(b"\r\n")
    lines[5] = lines[5].rsplit(b" ", 2)[0] + b" 2"
    lines[9] += b" 2"
    with pytest.raises(InputError, match="joint 1 of a body in frame 0 has tracking state"):
        parse(b"\r\n".join(lines), "file")


# ---- the source


def test_source_reads_files(tmp_path):
    names = [NAME, "S017C003P040R002A060", "S032C001P106R001A120"]
    source = NtuSkeletonSource(folder(tmp_path, *(f"a/{name}" for name in names)))
    assert isinstance(source, Source)
    assert [source.name(i) for i in range(len(source))] == names
    assert [source[i].label for i in range(3)] == [3, 59, 119]
    assert [source[i].subject for i in range(3)] == [3, 40, 106]
    assert [source[i].camera for i in range(3)] == [2, 3, 1]
    assert [source[i].setup for i in range(3)] == [1, 17, 32]
    assert source.parallel
    assert source.splits == {}
    assert source.notes == []
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[1].keypoint, source[1].keypoint)
    recording = source[0]
    expected = np.array([[*person(range(3)).values()]])
    # seven digits are written
    np.testing.assert_allclose(recording.keypoint, expected, rtol=6e-7)
    assert recording.keypoint.dtype == np.float32
    assert recording.score is None
    assert recording.frame_size is None


def test_single_file_is_read(tmp_path):
    source = NtuSkeletonSource(folder(tmp_path, NAME) / f"{NAME}.skeleton")
    assert source[0].name == NAME


def test_missing_samples_are_left_out(tmp_path):
    gone = sorted(MISSING)[:2]
    source = NtuSkeletonSource(folder(tmp_path, *gone, NAME))
    assert len(source) == 1
    assert source.notes == ["2 files on the official list of missing skeletons left out"]
    (tmp_path / f"{NAME}.skeleton").unlink()
    with pytest.raises(InputError, match="all files are on the official list"):
        NtuSkeletonSource(tmp_path)


def test_hash_depends_on_files(tmp_path):
    before = NtuSkeletonSource(folder(tmp_path, NAME)).hash
    assert NtuSkeletonSource(tmp_path).hash == before
    folder(tmp_path, "S001C002P003R001A005")
    assert NtuSkeletonSource(tmp_path).hash != before


def test_pixels_are_read(tmp_path):
    values = person(range(20), values=5)
    values[3][7, 3], values[4][8, 4] = np.nan, np.inf
    noise = person(range(20), flat=True, seed=1, values=5)
    data = reference.write({1: noise, 2: values}, 20, state=1)
    source = NtuSkeletonSource(folder(tmp_path, NAME, data=data), "pixels")
    recording = source[0]
    keypoint, score = recording.keypoint[0], recording.score
    assert recording.keypoint.shape == (1, 20, 25, 2)
    assert recording.frame_size == (1080, 1920)
    assert score.shape == (1, 20, 25)
    assert score.dtype == keypoint.dtype == np.float32
    lost = np.zeros((20, 25), bool)
    lost[3, 7] = lost[4, 8] = True
    np.testing.assert_array_equal(score[0], np.where(lost, 0, 0.5))
    assert not keypoint[lost].any()
    expected = np.array([*values.values()])[~lost][:, 3:]
    np.testing.assert_allclose(keypoint[~lost], expected, rtol=6e-7)  # as above


@pytest.mark.parametrize(("state", "score"), [(2, 1.0), (1, 0.5), (0, 0.0)])
def test_score_is_the_tracking_state(tmp_path, state, score):
    data = reference.write({1: person(range(2), values=5)}, 2, state=state)
    recording = NtuSkeletonSource(folder(tmp_path, NAME, data=data), "pixels")[0]
    assert (recording.score == score).all()
    assert recording.keypoint.any() == (score > 0)


@pytest.mark.parametrize("name", ["clip1", "S001C002P003R001", "xS001C002P003R001A0041"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=rf"{name}\.skeleton: the class .* S001C002P003R001A001\."):
        NtuSkeletonSource(folder(tmp_path, NAME, name))


def test_unusable_files_are_refused(tmp_path, monkeypatch):
    source = NtuSkeletonSource(folder(tmp_path, NAME, data=b"2\n0\n0\n"))
    path = tmp_path / f"{NAME}.skeleton"
    with pytest.raises(InputError, match=f"{NAME}.skeleton: there is no body in any of its frames"):
        source[0]
    monkeypatch.setattr(ntu_skeleton, "_MAX_BYTES", 4)
    with pytest.raises(InputError, match=f"{NAME}.skeleton: larger than any recording"):
        source[0]
    path.unlink()
    with pytest.raises(InputError, match=f"{NAME}.skeleton: no longer exists"):
        source[0]
    os.mkfifo(path)
    with pytest.raises(InputError, match=f"{NAME}.skeleton: no longer exists, or is not a file"):
        source[0]
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(InputError, match=f"{NAME}.skeleton: cannot be read .a symbolic link"):
        NtuSkeletonSource(tmp_path)


def test_unknown_coordinates_are_refused(tmp_path):
    """Run in a separate process, since the tests check argument types."""
    code = "import sys; from maskclr_pl.sources.ntu.source import NtuSkeletonSource as S\n"
    code += "try: S(sys.argv[1], 'inches')\nexcept ValueError as error: print(error)"
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert run.stdout == "coordinates=inches: expected metres or pixels\n", run.stderr


# ---- real files


@has_samples
@pytest.mark.parametrize("coordinates", ["metres", "pixels"])
def test_real_files_match_reference(coordinates):
    source = NtuSkeletonSource(SAMPLES, coordinates)
    assert len(source) == 16
    persons = {}
    for i in range(len(source)):
        recording = source[i]
        persons[recording.name] = len(recording.keypoint)
        tracks = reference.read((SAMPLES / f"{recording.name}.skeleton").read_bytes())
        first = max(tracks.values(), key=lambda track: reference.motion(track.joints))
        which = first.joints if coordinates == "metres" else first.color
        np.testing.assert_array_equal(recording.keypoint[0], np.array(which, np.float32))
    # one of the others holds a second body in all frames, which is no person
    assert {name for name, count in persons.items() if count == 2} == {"S001C003P008R002A058"}


@has_samples
def test_prepare_converts_real_files(tmp_path, capsys):
    command = partial(in_process, cwd=tmp_path, capsys=capsys)
    command("prepare", "source=ntu_skeleton", f"input={SAMPLES}", "output=ntu.h5", "workers=0")
    store, source = Store(tmp_path / "ntu.h5"), NtuSkeletonSource(SAMPLES)
    assert len(store) == len(source)
    for i in range(len(source)):
        np.testing.assert_array_equal(store.recording(i).keypoint, source[i].keypoint)
        assert store.recording(i).subject == source[i].subject
