"""Coordinate formats are detected from the values, converted, or refused."""

import pickle
import re
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.inference.inputs import ReadOptions, list_videos
from maskclr_pl.inference.videos import ArrayVideo
from maskclr_pl.inspection.image_fit import image_size_notes
from maskclr_pl.inspection.summary import inspect_store
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.sources.convert import convert
from maskclr_pl.sources.format_detection import detect_format, find_format_problem
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.sources.units import CoordinateFormat, parse_unit
from maskclr_pl.transforms import image_normalize
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process, refused

DATA = Path(__file__).parents[3] / "shared" / "data"
COCO = SKELETONS["coco17"]
HEIGHT, WIDTH = 480, 640
SINGLE = 2**-22  # two roundings to single precision, there and back
CLIPS = 8


def body(seed: int, frames: int = 12) -> np.ndarray:
    """(frames, 17, 2) pixels of a person of about 180 pixels who moves a little."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform((-60, -90), (60, 90), (17, 2))
    sway = 8 * np.sin(np.arange(frames) / 3)[:, None, None] * rng.uniform(-1, 1, (17, 2))
    return rest + sway + (WIDTH / 2 + rng.uniform(-90, 90), HEIGHT / 2)


def in_pixels() -> list[dict]:
    """Annotations of pyskl: pixels, image size, scores."""
    result = []
    for seed in range(CLIPS):
        pose = body(seed)[None].astype(np.float32)
        score = np.random.default_rng(seed).uniform(0.7, 1, pose.shape[:3]).astype(np.float32)
        result.append(
            {"frame_dir": f"c{seed}", "label": seed % 2, "img_shape": (HEIGHT, WIDTH),
             "keypoint": pose, "keypoint_score": score}
        )  # fmt: skip
    return result


def in_meters() -> list[dict]:
    """Annotations of 3D joints in metres, as a depth camera sees them."""
    result = in_pixels()
    for item in result:
        del item["img_shape"], item["keypoint_score"]
        xy = (item["keypoint"] - (320, 240)) / 120 * (1, -1)
        depth = np.random.default_rng(item["label"]).normal(3, 0.1, xy.shape[:3])
        item["keypoint"] = np.concatenate([xy, depth[..., None]], -1).astype(np.float32)
    return result


def changed(annotations: list[dict], form: str) -> list[dict]:
    """Convert the clips to another format that occurs in practice."""
    for item in annotations:
        keypoint = item["keypoint"]
        if "fractions" in form:
            item["keypoint"] = keypoint / np.array([WIDTH, HEIGHT], np.float32)
        if "centred" in form:
            item["keypoint"] = keypoint * 2 / WIDTH - 1
        if "bare" in form or "centred" in form:
            del item["img_shape"]
        if "score" in form:
            score = item.pop("keypoint_score")[..., None]
            item["keypoint"] = np.concatenate([item["keypoint"], score], -1)
        if "flags" in form:  # COCO's visibility: 2 is seen
            flags = np.full((*keypoint.shape[:3], 1), 2, np.float32)
            item.pop("keypoint_score")
            item["keypoint"] = np.concatenate([item["keypoint"], flags], -1)
        if "first" in form:
            item["keypoint"] = item["keypoint"].swapaxes(0, 1)
            if "keypoint_score" in item:
                item["keypoint_score"] = item["keypoint_score"].swapaxes(0, 1)
        if "millimetres" in form:
            item["keypoint"] = (1000 * keypoint).astype(np.float32)
    return annotations


def saved(path: Path, annotations: list[dict]) -> Path:
    names = [item["frame_dir"] for item in annotations]
    split = {"train": names[: CLIPS // 2], "test": names[CLIPS // 2 :]}
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}))
    return path


def stored(folder: Path, annotations: list[dict], skeleton: Skeleton = COCO, **options) -> Store:
    """A store by way of a pickle."""
    source = PysklSource(saved(folder / "data.pkl", annotations), options.pop("frame_size", None))
    names = [source.name(i) for i in range(len(source))]
    path = folder / f"{len(list(folder.iterdir()))}.h5"
    return convert(source, path, skeleton=skeleton, splits={"all": names}, **options)


def assert_same(item: Store, other: Store, tolerance: float) -> None:
    assert len(item) == len(other)
    for row in range(len(item)):
        a, b = item.recording(row), other.recording(row)
        np.testing.assert_allclose(a.keypoint, b.keypoint, rtol=tolerance, atol=1e-4 * tolerance)
        assert a.frame_size == b.frame_size
        assert (a.score is None) == (b.score is None)
        if a.score is not None and b.score is not None:
            np.testing.assert_array_equal(a.score, b.score)


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("fractions", "coordinates are fractions of the image: converted to pixels"),
        ("with score", "the third channel is read as the score of (x, y)"),
        ("fractions with score", "as the score of (x, y); coordinates are fractions"),
        ("frames first", "axes are (frames, persons, joints): swapped"),
        ("fractions with score, frames first", "swapped; the third channel is read"),
    ],
)
def test_formats_of_the_same_poses_give_the_same_store(tmp_path, capsys, form, line):
    """Each format is converted, with one note."""
    path = saved(tmp_path / "data.pkl", changed(in_pixels(), form))
    output = in_process(
        *("prepare", "source=pyskl", f"input={path}", "output=s.h5", "skeleton=coco17"),
        cwd=tmp_path,
        capsys=capsys,
    )
    assert line in output
    assert output.count("note: ") == 1
    assert_same(Store(tmp_path / "s.h5"), stored(tmp_path, in_pixels()), SINGLE)


def test_pixels_and_meters_are_stored_unchanged_without_notes(tmp_path, capsys):
    """Pixels and metres pass unchanged, bit by bit."""
    for number, annotations in enumerate((in_pixels(), in_meters())):
        path = saved(tmp_path / f"{number}.pkl", annotations)
        output = in_process(
            *("prepare", "source=pyskl", f"input={path}", f"output={number}.h5", "skeleton=coco17"),
            cwd=tmp_path,
            capsys=capsys,
        )
        assert "note: " not in output
        store = Store(tmp_path / f"{number}.h5")
        for row, item in enumerate(annotations):
            np.testing.assert_array_equal(store.recording(row).keypoint, item["keypoint"])


def test_normalized_poses_look_the_same_to_a_model(tmp_path):
    """MotionBERT's normalization needs no image size."""
    store, known = stored(tmp_path, changed(in_pixels(), "centred")), stored(tmp_path, in_pixels())
    for row in range(CLIPS):
        here, there = store.recording(row), known.recording(row)
        assert here.frame_size is not None
        assert there.frame_size is not None
        np.testing.assert_allclose(
            image_normalize(here.keypoint, here.frame_size),
            image_normalize(there.keypoint, there.frame_size),
            atol=1e-6,  # of single precision around 1
        )


def test_coco_visibility_flags_are_scores(tmp_path):
    """(x, y, visibility) with 2 for a visible joint."""
    store = stored(tmp_path, changed(in_pixels(), "flags"))
    assert store.coordinates == "pixels"
    assert store.recording(0).score is not None
    assert (store.recording(0).score == 1).all()


def test_fractions_without_image_size_are_refused(tmp_path, capsys):
    path = saved(tmp_path / "data.pkl", changed(in_pixels(), "bare fractions"))
    command = ("prepare", "source=pyskl", f"input={path}", "output=s.h5", "skeleton=coco17")
    line = refused(*command, cwd=tmp_path, capsys=capsys)
    assert "fractions of the image" in line
    assert line.endswith("pass frame_size=[HEIGHT,WIDTH] of the videos")
    in_process(*command, f"frame_size=[{HEIGHT},{WIDTH}]", cwd=tmp_path, capsys=capsys)
    assert_same(Store(tmp_path / "s.h5"), stored(tmp_path, in_pixels()), SINGLE)


def test_millimeters_become_meters(tmp_path):
    store = stored(tmp_path, changed(in_meters(), "millimetres"))
    assert_same(store, stored(tmp_path, in_meters()), SINGLE)


@pytest.mark.parametrize("form", ["millimetres", "fractions"])
def test_real_data_in_another_unit_give_the_same_poses(tmp_path, form):
    name = {"millimetres": "utd_mhad", "fractions": "penn_action"}[form]
    path = DATA / name / f"{name}.pkl"
    if not path.exists():
        pytest.skip(f"no {path}")
    source = PysklSource(path)
    plain = [source[i] for i in range(0, len(source), len(source) // 40)]

    def other(item: Recording) -> Recording:
        if form == "millimetres":
            return replace(item, keypoint=1000 * item.keypoint)
        assert item.frame_size is not None
        return replace(item, keypoint=item.keypoint / np.float32(item.frame_size[::-1]))

    given = [other(item) for item in plain]
    decided = detect_format(given, path)
    assert decided == CoordinateFormat(form)
    assert detect_format(plain, path).is_stored_format
    for item, twin in zip(plain, given, strict=True):
        actual = decided.to_stored(twin)
        assert actual.keypoint.dtype == item.keypoint.dtype
        np.testing.assert_allclose(actual.keypoint, item.keypoint, rtol=SINGLE)


def test_half_precision_is_kept(tmp_path):
    """Fractions in half precision are rounded twice, to 11 bits each: 2^-11 of the value."""
    annotations = changed(in_pixels(), "fractions")
    for item in annotations:
        item["keypoint"] = item["keypoint"].astype(np.float16)
    store = stored(tmp_path, annotations)
    assert store.recording(0).keypoint.dtype == np.float16
    for row, item in enumerate(in_pixels()):
        np.testing.assert_allclose(store.recording(row).keypoint, item["keypoint"], rtol=2**-10)


# --- pixels and meters are never misread -------------------------------------------------


@st.composite
def recordings(draw):
    """Draw recordings in pixels or meters with varied persons, frames, image sizes and origins."""
    seed, persons = draw(st.integers(0, 10**6)), draw(st.sampled_from((1, 2, 10)))
    frames, flat = draw(st.sampled_from((1, 2, 5, 60))), draw(st.booleans())
    rng = np.random.default_rng(seed)
    shape = (persons, frames, 17)
    moves = 0.02 * rng.normal(size=(*shape, 3)).cumsum(1)
    # from a person in the distance to one that fills the image
    size = draw(st.sampled_from((20, 200, 1500))) if flat else draw(st.sampled_from((0.2, 1.7)))
    poses = rng.uniform(-0.5, 0.5, (persons, 1, 17, 3)) + moves
    poses = size * (poses + rng.uniform(0.6, 2, (persons, 1, 1, 3)))
    keep = rng.random(shape) > draw(st.sampled_from((0.0, 0.3)))
    keep[:, :, :3] = True
    if flat:
        keypoint, sides = np.float32(poses[..., :2]), (2160, 3840)
        return Recording("a", 0, keypoint * keep[..., None], np.float32(keep), sides)
    origin = draw(st.sampled_from(("camera", "hip", "corner")))
    poses = poses + {"camera": (-1, -1, 2.5), "hip": 0, "corner": 1.5}[origin]
    if origin == "hip":
        poses -= poses[:, :1, :1]
    dtype = draw(st.sampled_from((np.float16, np.float32, np.float64)))
    return Recording("a", 0, (poses * keep[..., None]).astype(dtype))


@given(recordings())
def test_pixels_and_meters_are_not_converted(recording):
    """A single recording must not be misread: files may have one clip."""
    form = detect_format([recording], "data.pkl")
    assert form.is_stored_format
    assert form.notes() == []
    actual = form.to_stored(recording)
    assert actual.keypoint is recording.keypoint
    assert actual.score is recording.score


def test_recordings_without_a_body_are_ignored():
    nobody = Recording("a", 0, np.zeros((1, 4, 17, 2), np.float32), None, (9, 9))
    assert detect_format([nobody] * 300, "x") == CoordinateFormat()
    point = np.zeros((1, 4, 17, 2), np.float32)
    point[:, :, 3] = 0.7
    assert detect_format([replace(nobody, keypoint=point)], "x") == CoordinateFormat()


def test_first_recordings_with_a_person_decide():
    """At most a thousand recordings are read ahead; after that, the clip itself is refused."""
    nobody = Recording("a", 0, np.zeros((1, 1, 17, 2), np.float32), None, (HEIGHT, WIDTH))
    pose = np.float32(body(0)[None] / (WIDTH, HEIGHT))
    somebody = replace(nobody, keypoint=pose)
    assert detect_format([nobody] * 300 + [somebody], "x") == CoordinateFormat("fractions")
    form = detect_format([nobody] * 3000 + [somebody], "x")
    with pytest.raises(InputError, match=r"are not the expected pixels; .* pass units="):
        form.to_stored(somebody)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["fractions", "millimetres"])
@pytest.mark.parametrize("first", [True, False])
def test_mixed_units_are_refused(tmp_path, form, first):
    """Each clip is checked against the format detected from a sample."""
    plain = in_pixels if form == "fractions" else in_meters
    mixed = [*(changed(plain(), form) if first else plain()) * 10]
    odd = (plain() if first else changed(plain(), form))[0]
    mixed = [{**item, "frame_dir": f"m{i}"} for i, item in enumerate(mixed)]
    with pytest.raises(InputError, match=r"clip 'odd': its coordinates .* first clips"):
        stored(tmp_path, [*mixed, {**odd, "frame_dir": "odd"}])


@pytest.mark.parametrize(
    ("annotations", "units", "message"),
    [
        (in_pixels(), "fractions", "units=fractions, but the coordinates .* can only be pixels"),
        (in_pixels(), "metres", "two coordinates .* but units=metres needs three"),
        (changed(in_pixels(), "fractions"), "pixels", "can only be fractions .* leave out units="),
        (in_meters(), "millimetres", "cannot be millimetres"),
        (in_meters(), "pixels", "the third channel goes from .* pass units=metres"),
        (
            in_pixels(),
            "inches",
            "units=inches: expected one of pixels, fractions, normalized, metres",
        ),
    ],
)
def test_impossible_stated_unit_is_refused(tmp_path, annotations, units, message):
    source = PysklSource(saved(tmp_path / "data.pkl", annotations))
    with pytest.raises(InputError, match=message):
        detect_format((source[i] for i in range(len(source))), "data.pkl", units)


def space(size: float, low: float = 0.0, high: float = 1.0) -> Recording:
    """3D joints in a box of that size with one corner at the origin, z in another range."""
    box = np.random.default_rng(0).uniform(0, 1, (1, 20, 17, 3)) * (size, size, high - low)
    return Recording("a", 0, np.float32(box + np.array([0, 0, low])))


def test_pixels_with_depth_are_refused_unless_stated():
    """MSR Action3D has x and y in pixels and a depth."""
    recording = space(140, 1000, 1100)
    with pytest.raises(InputError, match=r"bodies 1\d\d large, expected metres .* units=metres to"):
        detect_format([recording], "data.pkl")
    form = detect_format([recording], "data.pkl", "metres")
    assert form.unit == "metres"
    assert "not scaled" in form.notes()[0]
    assert form.to_stored(recording).keypoint is recording.keypoint


def test_ambiguous_score_or_depth_is_refused():
    """Both interpretations are possible, and either can be stated."""
    recording = space(0.9)
    with pytest.raises(InputError, match=r"\(x, y, score\) of an image or \(x, y, z\); pass"):
        detect_format([recording], "data.pkl")
    assert detect_format([recording], "data.pkl", "metres") == CoordinateFormat("metres")
    sized = replace(recording, frame_size=(HEIGHT, WIDTH))
    assert detect_format([sized], "data.pkl") == CoordinateFormat("fractions", scored=True)


def test_ambiguous_fractions_or_normalized_is_refused():
    pose = np.random.default_rng(0).uniform(-0.1, 0.8, (1, 20, 17, 2))
    recording = Recording("a", 0, np.float32(pose), None, (HEIGHT, WIDTH))
    with pytest.raises(InputError, match="pass units=fractions or units=normalized"):
        detect_format([recording], "data.pkl")
    assert detect_format([recording], "data.pkl", "normalized").unit == "normalized"


def test_check_reports_on_a_refused_file(tmp_path, capsys):
    path = saved(tmp_path / "data.pkl", changed(in_pixels(), "bare fractions"))
    command = ("prepare", "source=pyskl", f"input={path}", "output=s.h5", "check=true")
    line = refused(*command, "skeleton=coco17", cwd=tmp_path, capsys=capsys)
    [report] = tmp_path.rglob("report.txt")
    text = report.read_text()
    assert f"refused: {line.removeprefix('error: ')}" in text
    assert f"clips      {CLIPS};" in text
    refused(*command, "skeleton=ntu25", cwd=tmp_path, capsys=capsys)
    assert "refused: all 8 recordings are invalid" in report.read_text()


# --- image sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "line"),
    [
        ((2160, 3840), "top left corner of the 3840 x 2160 image, .* looks too large"),
        ((120, 160), r"\d+% of the joints are far outside .* looks too small"),
        ((HEIGHT, WIDTH), None),
        ((480, 854), None),
    ],
)
def test_wrong_image_sizes_are_noted(tmp_path, size, line):
    store = stored(tmp_path, changed(in_pixels(), "bare pixels"), frame_size=size)
    notes = image_size_notes(store)
    assert len(notes) == (line is not None)
    if line is not None:
        assert re.search(line, notes[0])


def test_small_person_in_a_large_image_is_accepted(tmp_path):
    """A tenth of a 4K image, somewhere in its upper left part."""
    annotations = in_pixels()
    for item in annotations:
        item["keypoint"] = item["keypoint"] + np.float32((700, 500))
        item["img_shape"] = (2160, 3840)
    assert image_size_notes(stored(tmp_path, annotations)) == []


# --- one rule for missing joints, models and other readers ----------------------------------------


@pytest.mark.parametrize("through", ["prepare", "old store"])
def test_check_and_training_agree_on_missing_3d_joints(tmp_path, through):
    """A joint with score 0 or at the origin is missing in both."""
    annotations = in_meters()
    rng = np.random.default_rng(5)
    for item in annotations:
        shape = item["keypoint"].shape[:3]
        item["keypoint_score"] = rng.choice([0.0, 0.4, 1.0], shape).astype(np.float32)
        item["keypoint"][rng.random(shape) < 0.2] = 0
    source = PysklSource(saved(tmp_path / "data.pkl", annotations))
    if through == "prepare":
        store = stored(tmp_path, annotations)
        form = detect_format((source[i] for i in range(CLIPS)), "data.pkl")
        assert form.notes() == [
            "3D joints with score 0 count as missing, other scores are not used"
        ]
    else:
        store = write_store(tmp_path / "old.h5", list(source), skeleton=COCO, splits={})
    data = ClipDataset(store, np.arange(CLIPS), 12, 1, False, sampling="whole")
    seen = np.concatenate([(data[i]["clip"] != 0).any(0)[0] for i in range(CLIPS)])
    expected = np.concatenate(
        [((a["keypoint"] != 0).any(-1) & (a["keypoint_score"] > 0))[0] for a in annotations]
    )
    np.testing.assert_array_equal(seen, expected)
    bodies = expected[expected.any(-1)]
    np.testing.assert_allclose(inspect_store(store).missing, 1 - bodies.mean(0), atol=1e-12)


@pytest.mark.parametrize("form", ["fractions", "with score", "frames first", "centred"])
def test_predict_converts_like_prepare(tmp_path, form):
    path = saved(tmp_path / "other.pkl", changed(in_pixels(), form))
    how = ReadOptions(True, COCO)
    actual = [item.read() for item in list_videos(path, how)]
    store = stored(tmp_path, changed(in_pixels(), form))
    assert len(actual) == CLIPS
    for row, video in enumerate(actual):
        assert isinstance(video, ArrayVideo)
        np.testing.assert_array_equal(video.recording.keypoint, store.recording(row).keypoint)
        assert len(video.notes) == 1


def test_wrong_units_in_old_stores_are_detected(tmp_path):
    """Earlier versions stored fractions as pixels and millimeters as meters."""
    for number, (annotations, word) in enumerate(
        (
            (changed(in_pixels(), "fractions"), "fractions"),
            (changed(in_meters(), "millimetres"), "mill"),
        )
    ):
        source = PysklSource(saved(tmp_path / "data.pkl", annotations))
        store = write_store(tmp_path / f"{number}.h5", list(source), skeleton=COCO, splits={})
        assert word in find_format_problem(store)
        assert inspect_store(store).remarks == (find_format_problem(store),)
    assert find_format_problem(stored(tmp_path, in_pixels())) == ""


@pytest.mark.parametrize("name", ["sbu", "ui_prmd", "gtu3d", "custom16_hrnet"])
def test_real_data_are_not_misread(name):
    """Normalized 3D, half-precision meters around the hip and single persons are unchanged."""
    files = sorted((DATA / name).glob("*.pkl"))
    if not files:
        pytest.skip(f"no {name} in {DATA}")
    for path in files:
        source = PysklSource(path)
        form = detect_format((source[i] for i in range(len(source))), path)
        assert form.is_stored_format
        assert form.notes() == []
        for i in range(0, len(source), 20):
            assert form.to_stored(source[i]).keypoint.dtype == source[i].keypoint.dtype


@pytest.mark.parametrize(
    ("spelling", "unit"), [("normalised", "normalized"), ("meters", "metres"), (None, None)]
)
def test_both_spellings_of_a_unit_are_accepted(spelling, unit):
    assert parse_unit(spelling) == unit
