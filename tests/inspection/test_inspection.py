import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.data.contents import exclusive_splits, protocols
from maskclr_pl.inspection import measure as measuring
from maskclr_pl.inspection.summary import find_problems, inspect_store, summary_lines
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.sources.pyskl import PysklSource
from tests.reference import inspection as reference

BODY = Skeleton(
    "body", ("head", "left_hand", "right_hand", "left_foot", "right_foot"), (-1, 0, 0, 0, 0)
)
POSE = np.array([[100, 50], [60, 100], [140, 100], [80, 200], [120, 200]], dtype=float)


def pixels(name="a", label=0, *, frames=10, persons=1, seed=0, size=(480, 640), scale=1.0):
    """A body that moves in the image, all joints visible."""
    rng = np.random.default_rng((seed, *map(ord, name)))
    points = POSE * scale + rng.uniform(-5, 5, (persons, frames, 5, 2)) * scale
    return Recording(
        name, label, points.astype(np.float32), np.ones(points.shape[:3], np.float16), size
    )


def metres(name="a", label=0, *, frames=10, persons=1, up=-1.0, scale=0.01):
    """The same in metres, 1.5 m tall, with y up."""
    plane = pixels(name, label, frames=frames, persons=persons).keypoint * (scale, up * scale)
    depth = np.full((*plane.shape[:3], 1), 200 * scale)
    return Recording(name, label, np.concatenate([plane, depth], -1).astype(np.float32))


def without(recording, where):
    """Not visible at some places of (persons, frames, joints)."""
    (recording.keypoint if recording.score is None else recording.score)[where] = 0
    return recording


def frozen(recording):
    recording.keypoint[:] = recording.keypoint[:, :1]
    return recording


def renamed(recording, name, **values):
    return replace(recording, name=name, **values)


def inspected(tmp_path, recordings, splits=None, names=None):
    store = write_store(
        tmp_path / "s.h5", recordings, skeleton=BODY, splits=splits or {}, class_names=names
    )
    return inspect_store(store)


def problems_of(tmp_path, recordings, splits=None, names=None):
    return find_problems(inspected(tmp_path, recordings, splits, names))


@st.composite
def stores(draw):
    """A few clips whose coordinates and scores are often 0: joints and bodies are absent."""
    channels, scored = draw(st.sampled_from(((2, True), (2, False), (3, False))))
    width = draw(st.sampled_from((16, 32)))
    # whole numbers: sums of them are exact, in whatever order
    values = st.sampled_from((0.0, 0.0, 0.0, -3.0, 1.0, 40.0, 100.0))
    result = []
    for i in range(draw(st.integers(1, 5))):
        shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), len(BODY))
        points = draw(
            hnp.arrays(f"f{width // 8}", (*shape, channels), elements=values, fill=st.nothing())
        )
        if draw(st.booleans()):
            points = np.broadcast_to(points[:, :1], points.shape)
        score = draw(
            hnp.arrays("f2", shape, elements=st.sampled_from((0.0, 0.5)), fill=st.nothing())
        )
        size = (100, 100) if channels == 2 else None
        result.append(Recording(f"c{i}", 0, points, score if scored else None, size))
    return result


sizes = st.tuples(st.sampled_from((30, 90, 200)), st.sampled_from((30, 90, 200)))


@given(stores(), sizes, st.integers(1, 200), st.booleans())
def test_measures_match_plain_loops(tmp_path_factory, recordings, size, block, broken):
    path = tmp_path_factory.getbasetemp() / "inspected.h5"
    write_store(path, recordings, skeleton=BODY, splits={})
    with h5py.File(path, "r+") as file:  # what `write_store` refuses
        if "frame_size" in file:
            file["frame_size"][:] = size
        if broken:
            file["keypoint"][0, 1] = (np.nan, np.inf, 5)[: recordings[0].keypoint.shape[3]]
    store = Store(path)
    stored = [store.recording(i) for i in range(len(store))]
    before, measuring._VALUES = measuring._VALUES, block  # all sizes of blocks give the same
    try:
        contents = inspect_store(store)
    finally:
        measuring._VALUES = before
    expected = [reference.clip(one, BODY.joints) for one in stored]
    for key in (
        "visible",
        "not_finite",
        "persons",
        "empty",
        "returns",
        "frozen",
        "outside",
        "swapped",
    ):
        assert getattr(contents, key).tolist() == [one[key] for one in expected], key
    for key in ("size", "drop"):  # division in another precision
        np.testing.assert_allclose(
            getattr(contents, key), [one[key] for one in expected], rtol=1e-6
        )
    bodies = sum(one["bodies"] for one in expected)
    missing = np.sum([one["missing"] for one in expected], axis=0)
    np.testing.assert_array_equal(contents.missing, missing / (bodies or np.nan))
    points = [point for one in expected for point in one["points"]]
    if points:
        np.testing.assert_array_equal(contents.low, np.min(points, axis=0))
        np.testing.assert_array_equal(contents.high, np.max(points, axis=0))
    scores = [one.score for one in stored if one.score is not None]
    if scores:
        assert contents.score == (min(s.min() for s in scores), max(s.max() for s in scores))
    else:
        assert contents.score is None
    assert summary_lines(contents, full=True)[0] == f"store      {path}"
    assert all("\n" not in line for line in (*summary_lines(contents), *find_problems(contents)))


def test_layout_without_a_head_has_no_drop(tmp_path):
    skeleton = Skeleton("hands", ("root", "left_hand", "right_hand"), (-1, 0, 0))
    points = np.arange(1, 91, dtype=np.float32).reshape(1, 10, 3, 3)
    contents = inspect_store(
        write_store(tmp_path / "s.h5", [Recording("a", 0, points)], skeleton=skeleton, splits={})
    )
    assert np.isnan(contents.drop).all()
    assert not contents.y_down  # unknown: as it should be in metres
    assert find_problems(contents) == [
        "bodies smaller than 0.3 m or larger than 3.0 m: 1 clip: a; check whether the coordinates "
        "are metres"
    ]


def test_extreme_coordinates_raise_no_warning(tmp_path):
    recording = metres()
    recording.keypoint[0, 0, 0] = 999_999
    recording.keypoint[0, 0, 3:] = -999_999
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        contents = inspected(tmp_path, [recording])
        assert summary_lines(contents)
        assert any(line.startswith("bodies smaller") for line in find_problems(contents))


TWELVE = [pixels(f"c{i:02}") for i in range(12)]
PROBLEMS = {
    "class without clips": (
        [pixels(label=1)],
        {},
        ["sit", "walk", "run"],
        "no clip of 2 of 3 classes: sit, run; check class_names and the labels",
    ),
    "class that is only tested": (
        [pixels("a"), pixels("b", 1)],
        {"train": ["a"], "val": ["b"]},
        ["sit", "run"],
        "1 class in val but not in train: run; check the splits",
    ),
    "empty split": ([pixels()], {"x": []}, None, "split x has no clips"),
    "overlap": (
        [pixels("a"), pixels("b")],
        {"xsub_train": ["a", "b"], "xsub_test": ["b"]},
        None,
        "in xsub_train and in xsub_test: 1 clip: b; take them out of one of the two",
    ),
    "ten of many": (
        TWELVE,
        {key: [one.name for one in TWELVE] for key in ("train", "val")},
        None,
        "in train and in val: 12 clips: c00, c01, c02, c03, c04, c05, c06, c07, c08, c09 and 2 "
        "more; take them out of one of the two",
    ),
    "no joint visible": (
        [pixels(), without(pixels("b"), ...)],
        {},
        None,
        "no joint visible: 1 clip: b; take them out of the splits",
    ),
    "no joint visible in metres": (
        [metres(), without(metres("b"), ...)],
        {},
        None,
        "no joint visible: 1 clip: b; take them out of the splits",
    ),
    "frozen": (
        [pixels(), frozen(pixels("b", persons=2))],
        {},
        None,
        "nothing moves: 1 clip: b; check whether the pose estimator hung",
    ),
    "hardly a body": (
        [pixels(), without(pixels("b"), np.s_[:, :6])],
        {},
        None,
        "no body in more than half of the frames: 1 clip: b; check whether the pose "
        "estimator failed",
    ),
    "short": (
        [pixels(frames=7), pixels("b", frames=8)],
        {},
        None,
        "fewer than 8 frames: 1 clip: a; check whether they were cut short",
    ),
    "outside": (
        [pixels(), pixels("b", scale=4)],
        {},
        None,
        "more than a quarter of the joints outside the image: 1 clip: b; check whether the poses "
        "belong to images of that size",
    ),
    "normalised": (
        [pixels(scale=0.005)],
        {},
        None,
        "its coordinates are fractions, not pixels; run prepare again",
    ),
    "millimetres": (
        [metres("a"), metres("b", scale=10.0)],
        {},
        None,
        "bodies smaller than 0.3 m or larger than 3.0 m: 1 clip: b; check whether the coordinates "
        "are metres",
    ),
    "upside down": (
        [metres("a"), metres("b", up=1), metres("c", up=1)],
        {},
        None,
        "heads below feet in 2 of 3 clips: y points down, expected up in metres; change its sign",
    ),
    "copy": (
        [pixels("a"), pixels("b"), renamed(pixels("a"), "c"), renamed(pixels("a"), "d", label=1)],
        {},
        None,
        "copies of other clips (1 with another label): 2 clips: c of a, d of a; keep one",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_defect_gives_one_problem(tmp_path, problem):
    recordings, splits, names, expected = PROBLEMS[problem]
    assert problems_of(tmp_path, recordings, splits, names) == [expected]


@pytest.mark.parametrize("kind", [pixels, metres])
def test_good_store_has_no_problems(tmp_path, kind):
    clips = [kind("a"), kind("b", 1, persons=2), kind("c"), kind("d", 1)]
    splits = {
        "fold1_train": ["a", "b"], "fold1_test": ["c", "d"],
        "fold2_train": ["c", "d"], "fold2_test": ["a", "b"], "all": ["a", "b", "c", "d"],
    }  # fmt: skip
    assert problems_of(tmp_path, clips, splits) == []


def test_bodies_upside_down_in_the_image_are_found(tmp_path):
    one = pixels()
    one.keypoint[..., 1] = 400 - one.keypoint[..., 1]
    assert problems_of(tmp_path, [one]) == [
        "heads below feet in 1 of 1 clip: y points up, expected down in pixels; change its sign"
    ]


def test_swapped_height_and_width_are_found(tmp_path):
    clips = [pixels("a"), pixels("b"), pixels("c"), pixels("d")]
    write_store(tmp_path / "s.h5", clips, skeleton=BODY, splits={})
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["frame_size"][1:] = [[640, 130], [150, 640], [150, 150]]
    contents = inspect_store(Store(tmp_path / "s.h5"))
    assert contents.outside.tolist() == [0, 10, 20, 20]  # the right hand, the feet, the feet
    assert find_problems(contents) == [
        "outside the image unless height and width are swapped: 1 clip: c; img_shape and "
        "frame_size are [HEIGHT,WIDTH]",
        "more than a quarter of the joints outside the image: 1 clip: d; check whether the poses "
        "belong to images of that size",
    ]


def test_overlap_of_val_and_test_is_found(tmp_path):
    clips = [pixels("a"), pixels("b"), renamed(pixels("b"), "c"), pixels("d")]
    splits = {"train": ["a"], "val": ["b", "d"], "test": ["c", "d"]}
    problems = problems_of(tmp_path, clips, splits)
    assert [line.partition(";")[0] for line in problems] == [
        "in val and in test: 1 clip: d",
        "in test, with the poses of a clip in val: 1 clip: c",
        "copies of other clips: 1 clip: c of b",
    ]


def test_copies_in_the_test_split_are_found(tmp_path):
    clips = [pixels("a"), pixels("b"), renamed(pixels("a"), "c"), pixels("d")]
    splits = {
        "xsub_train": ["a", "b"],
        "xsub_test": ["c", "d"],
        "xview_train": ["b", "d"],
        "xview_val": ["a"],
    }
    leak = (
        "in xsub_test, with the poses of a clip in xsub_train: 1 clip: c; take them out of one of "
        "the two"
    )
    assert problems_of(tmp_path, clips, splits) == [
        leak,
        "copies of other clips: 1 clip: c of a; keep one",
    ]


def test_clips_without_poses_are_not_copies(tmp_path):
    for one in (clips := [pixels("a"), pixels("b"), pixels("c")])[1:]:
        one.keypoint[:] = 0
        one.score[:] = 0
    assert problems_of(tmp_path, clips, {"train": ["a", "b"], "test": ["c"]}) == [
        "no joint visible: 2 clips: b, c; take them out of the splits"
    ]


def test_store_without_digests_reports_no_copies(tmp_path):
    write_store(
        tmp_path / "s.h5", [pixels("a"), renamed(pixels("a"), "b")], skeleton=BODY, splits={}
    )
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        del file["digest"]
    assert find_problems(inspect_store(Store(tmp_path / "s.h5"))) == []


def test_non_finite_values_and_negative_scores_are_found(tmp_path):
    write_store(tmp_path / "s.h5", [pixels("a"), pixels("b")], skeleton=BODY, splits={})
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["keypoint"][3, 2, 0] = np.inf
        file["score"][15, 1] = np.nan
        file["score"][15, 2] = -0.25
    contents = inspect_store(Store(tmp_path / "s.h5"))
    assert contents.not_finite.tolist() == [1, 1]
    assert contents.score == (-0.25, 1.0)
    assert find_problems(contents) == [
        "scores down to -0.25, expected 0 (not visible) or more; correct them",
        "NaN or infinite values: 2 clips: a, b; prepare them again",
    ]


def test_skipped_clips_are_listed(tmp_path):
    broken = pixels("b")
    broken.keypoint[0, 0, 0] = np.nan
    store = write_store(
        tmp_path / "s.h5", [pixels("a"), broken], skeleton=BODY, splits={}, on_error="skip"
    )
    contents = inspect_store(store)
    assert [name for name, _ in contents.skipped] == ["b"]
    assert find_problems(contents) == [
        "1 clip could not be used: b; correct them, or go on without them"
    ]


def test_splits_are_grouped_by_protocol():
    names = ["xsub_val", "xsub_train", "train", "test", "VAL", "all", "trainval", "fold1_test"]
    assert protocols([*names, "test-2", "train-2"]) == {
        "xsub": ["xsub_train", "xsub_val"],
        "": ["train", "test", "VAL"],
        "2": ["train-2", "test-2"],
        "all": ["all"],
        "trainval": ["trainval"],
        "fold1": ["fold1_test"],
    }


def test_exclusive_splits_belong_to_one_protocol():
    splits = ["a_train", "a_val", "a_test", "b_train", "b_test", "all", "training"]
    assert exclusive_splits(splits) == [
        ("a_train", "a_val"),
        ("a_train", "a_test"),
        ("b_train", "b_test"),
    ]
    assert exclusive_splits(splits, "val") == [("a_val", "a_test")]


def test_summary_of_a_small_store(tmp_path):
    clips = [
        pixels("a"),
        without(pixels("b", 1, frames=20), np.s_[:, 4:8]),
        pixels("c", 1, persons=2),
    ]
    without(clips[2], np.s_[0, :, 1])
    contents = inspected(tmp_path, clips, {"train": ["a", "b"]}, ["sit", "get up"])
    low, high = (f"{value:.6g}" for value in (contents.low[0], contents.high[0]))
    bodies = 10 + 16 + 20
    assert summary_lines(contents, full=True) == [
        f"store      {tmp_path / 's.h5'}",
        "layout     body, 5 joints, pixels",
        "clips      3; 1 clip in no split",
        "classes    2, from 1 (sit) to 2 clips (get up)",
        "persons    1 in 2 clips, 2 in 1 clip",
        "frames     10 to 20, median 10, 40 in all; fewer than 8 in 0 clips",
        "no body    10.0 % of the frames, in 1 clip",
        "gaps       a person leaves and comes back in 1 clip: b",
        f"x          {low} to {high} px",
        f"y          {contents.low[1]:.6g} to {contents.high[1]:.6g} px",
        "outside    0.0 % of the visible joints, in 0 clips",
        "score      0 to 1",
        f"missing    {200 / bodies:.1f} % of the joints of a body, left_hand {1000 / bodies:.1f} %",
        "",
        "class  name    clips  train",
        "0      sit         1      1",
        "1      get up      2      1",
        "       all         3      2",
        "",
        "joint       not visible",
        "head              0.0 %",
        f"left_hand        {1000 / bodies:.1f} %",
        "right_hand        0.0 %",
        "left_foot         0.0 %",
        "right_foot        0.0 %",
    ]


def test_long_tables_are_complete_in_the_full_summary(tmp_path):
    clips = [pixels(f"c{i}", i) for i in range(25)]
    splits = {f"s{i}": ["c0"] for i in range(8)}
    contents = inspected(tmp_path, clips, splits, [f"class {i}" for i in range(25)])
    short, full = summary_lines(contents), summary_lines(contents, full=True)
    assert short[-1] == "... and 5 classes and 2 splits more"
    assert not any("class 20" in line for line in short)
    for name in (*contents.class_names, *BODY.joints):
        assert sum(f" {name} " in f" {line} " for line in full[-34:]) == 1
    assert full[-34].split()[-8:] == list(splits)
    assert len({len(line) for line in full[-34:-7]}) == 1  # aligned


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_problems_of_a_real_data_set(tmp_path):
    source = PysklSource(SHARED / "gtu3d" / "gtu3d.pkl")
    clips = [source[i] for i in range(len(source))]
    store = write_store(tmp_path / "s.h5", clips, skeleton=SKELETONS["ntu25"], splits=source.splits)
    assert find_problems(inspect_store(store)) == [
        "in rand_test, with the poses of a clip in rand_train: 1 clip: c12_m025; take them out of "
        "one of the two",
        "copies of other clips (1 with another label): 3 clips: c01_m022 of c01_m017, c01_m024 of "
        "c01_m019, c14_m028 of c12_m025; keep one",
    ]
    poses = {one.name: one.keypoint for one in clips}
    for copy, original in (("c01_m022", "c01_m017"), ("c14_m028", "c12_m025")):
        assert np.array_equal(poses[copy], poses[original])
