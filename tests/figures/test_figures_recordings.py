import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskclr_pl.data import Recording, write_store
from maskclr_pl.figures import recordings as figures
from maskclr_pl.figures.classes import class_counts
from maskclr_pl.figures.drawing import torso
from maskclr_pl.figures.recordings import animation, contact_sheet, draw_overview, examples
from maskclr_pl.figures.style import COLORS
from maskclr_pl.inspection.summary import inspect_store
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton

pytestmark = pytest.mark.figures

LIMB = Skeleton("limb", ("head", "left_hand", "right_hand"), (-1, 0, 0))
# the head above, the hands below at its left and right side, in an image
POSE = np.array([[50.0, 10.0], [10.0, 90.0], [90.0, 90.0]])
BLUE, ORANGE, GREY = (tuple(bytes.fromhex(c[1:])) for c in (COLORS[0], COLORS[1], "#404040"))


def clip(name="a", label=0, *, frames=20, persons=1, skeleton=LIMB):
    points = np.zeros((persons, frames, len(skeleton), 2), np.float32)
    points[..., : len(POSE), :] = POSE
    points += 100 * np.arange(persons)[:, None, None, None]
    points[..., 0] += np.arange(frames)[:, None]
    score = np.zeros(points.shape[:3], np.float16)
    score[..., : len(POSE)] = 1
    return Recording(name, label, points, score, (400, 400))


def stored(tmp_path, clips, splits=None, names=None, skeleton=LIMB):
    return write_store(
        tmp_path / "s.h5", clips, skeleton=skeleton, splits=splits or {}, class_names=names
    )


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def near(image, color):
    """(x, y) of the pixels of about this color."""
    y, x = np.nonzero(np.abs(image - color).max(-1) < 12)
    return x, y


# --- contact sheet --------------------------------------------------------------------------------


def sheet(tmp_path, clips, *, y_down=True, columns=1, names=("sit",), skeleton=LIMB):
    contact_sheet(clips, skeleton, names, tmp_path / "x.png", y_down=y_down, columns=columns)
    image = pixels(tmp_path / "x.png")
    return image[60:]  # without the legend


@pytest.mark.parametrize("y_down", [True, False])
def test_bodies_are_upright_with_colored_sides(tmp_path, y_down):
    one = clip()
    if not y_down:
        one.keypoint[..., 1] *= -1
    image = sheet(tmp_path, [one], y_down=y_down)
    left, right = near(image, BLUE), near(image, ORANGE)
    assert len(left[0]) > 50
    assert len(right[0]) > 50
    assert left[0].max() <= right[0].min() + 3
    # a leg of a roof: the farther from the middle, the lower
    assert np.corrcoef(*left)[0, 1] < -0.99
    assert np.corrcoef(*right)[0, 1] > 0.99


def test_invisible_joints_are_not_drawn(tmp_path):
    one = clip()
    one.score[..., 1] = 0
    one.keypoint[..., 1, :] = 0
    image = sheet(tmp_path, [one])
    assert len(near(image, BLUE)[0]) == 0
    assert len(near(image, ORANGE)[0]) > 50


def test_missing_3d_joints_are_not_drawn(tmp_path):
    points = np.zeros((1, 3, 3, 3), np.float32)
    points[..., :2] = POSE / -100
    points[..., 2] = 2
    points[..., 2, :] = 0
    image = sheet(tmp_path, [Recording("a", 0, points)], y_down=False)
    assert len(near(image, ORANGE)[0]) == 0
    assert len(near(image, BLUE)[0]) > 50


def test_other_persons_are_paler():
    placed, visible = np.zeros((4, 2, 3, 2)), np.zeros((4, 2, 3), bool)
    visible[[0, 1, 2, 3], 1] = True
    visible[0, 1, 0] = False  # so the first person has two dots, the others three and two bones
    segments, colors = figures._segments(placed, visible, LIMB)
    assert segments.shape == (2 + 3 * 5, 2, 2)
    own = np.array([BLUE, ORANGE, GREY]) / 255
    expected = {tuple(one.round(3)) for one in own[:2]}
    for white in (0.55, 0.75):
        expected |= {tuple((white + (1 - white) * one).round(3)) for one in own}
    assert {tuple(one.round(3)) for one in colors} == expected
    assert np.array_equal(colors[7:12], colors[12:])  # the third and the fourth person


def test_torso_is_closed_without_a_spine(tmp_path):
    def edges(name):
        skeleton = SKELETONS[name]
        named = [{skeleton.joints[i] for i in edge} for edge in torso(skeleton)]
        return sorted(sorted(edge) for edge in named)

    across = [["left_hip", "right_hip"], ["left_shoulder", "right_shoulder"]]
    assert edges("coco17") == across
    assert edges("ntu25") == edges("h36m17") == edges("kinect20") == []


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("frames", [1, 5, 300])
def test_size_of_the_sheet_and_the_cells(tmp_path, rows, frames):
    clips = [clip(f"c{i}", frames=frames) for i in range(rows)]
    image = sheet(tmp_path, clips, columns=8)
    assert image.shape[1] == pytest.approx(130 * (8 * 1.4 + 0.3), abs=2)
    assert image.shape[0] == pytest.approx(130 * (1.8 * rows + 0.4) - 60, abs=2)
    x, _ = near(image, BLUE)
    cells = np.unique((x - 0.1 * 130) // (1.4 * 130))
    assert cells.tolist() == list(range(min(frames, 8)))


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1), st.booleans())
def test_poses_keep_their_proportions_in_the_square(persons, frames, seed, y_down):
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 10.0 ** rng.integers(-3, 4), (persons, frames, 3, 2)).astype(np.float32)
    score = rng.integers(0, 2, points.shape[:3]).astype(np.float16)
    one = Recording("a", 0, points, score, (10, 10))
    placed, visible = figures._fit_poses(one, np.arange(frames), y_down, 2.0)
    assert np.array_equal(visible, score > 0)
    if visible.sum() < 2:
        return
    old, new = points[visible].astype(float), placed[visible]
    assert new.min() > -1e-9
    assert new.max() < 2 + 1e-9
    scale = 2 / np.ptp(old, axis=0).max()
    flipped = old * (1, -1 if y_down else 1)
    # rounding of differences of numbers that are large against the box
    np.testing.assert_allclose(new - new[0], (flipped - flipped[0]) * scale, atol=1e-6)


def test_values_that_are_not_finite_are_not_drawn(tmp_path):
    one = clip()
    one.keypoint[0, :, 1] = np.nan
    assert len(near(sheet(tmp_path, [one]), BLUE)[0]) == 0


def test_unusual_names_are_drawn(tmp_path):
    name = "$x_1$ {" + 300 * "long "
    assert sheet(tmp_path, [clip(name)], names=["a\\frac$ b"], columns=8).min() < 100


# --- animation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "expected"), [((1,), 1), ((20, 30), 30), ((130, 10, 9), 65)])
def test_frames_of_the_animation(tmp_path, frames, expected):
    clips = [clip(f"c{i}", frames=count) for i, count in enumerate(frames)]
    path = tmp_path / "x.gif"
    animation(clips, LIMB, ["sit"], path, y_down=True)
    with Image.open(path) as image:
        assert image.size == (176 * len(clips), 204)
        assert getattr(image, "n_frames", 1) == expected
        if expected > 1:
            assert image.info["duration"] == pytest.approx(1000 / 15, abs=10)
            assert image.info["loop"] == 0
    assert path.stat().st_size < 1_500_000


def test_animation_moves_and_repeats(tmp_path):
    clips = [clip("long", frames=40), clip("short", frames=10)]
    animation(clips, LIMB, ["sit"], tmp_path / "x.gif", y_down=True)
    places = []
    with Image.open(tmp_path / "x.gif") as image:
        for frame in range(40):
            image.seek(frame)
            dark = 255 - np.asarray(image.convert("L")).astype(float)[40:]
            halves = dark[:, :176].sum(0), dark[:, 176:].sum(0)
            places.append([np.average(np.arange(176), weights=half) for half in halves])
    long, short = np.array(places).T
    # pixels per frame: the way of all frames and the body, 80 wide, fill 160; colors are rounded
    np.testing.assert_allclose(np.diff(long), 160 / (80 + 39), atol=0.3)
    np.testing.assert_allclose(np.diff(short[:10]), 160 / (80 + 9), atol=0.3)
    np.testing.assert_allclose(short, np.tile(short[:10], 4), atol=0.3)


# --- class counts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "protocols"), [(1, 1), (8, 3), (71, 2), (400, 1)])
def test_bars_of_any_number_of_classes(tmp_path, monkeypatch, classes, protocols):
    saved = []
    monkeypatch.setattr("maskclr_pl.figures.classes.save", lambda *what: saved.append(what))
    rng = np.random.default_rng(0)
    counts = {
        f"p{i}": {f"p{i}_{part}": rng.integers(0, 99, classes) for part in ("train", "val")}
        for i in range(protocols)
    }
    names = [f"class ${i}" for i in range(classes)]
    class_counts(counts, names, tmp_path / "x.png")
    [(figure, path)] = saved
    assert path == tmp_path / "x.png"
    found, shown, current = {}, [], []
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_yticklabels()]
        shown += labels
        current = labels or current  # the other protocols stand beside the first
        for bars in axes.containers:
            for name, bar in zip(current, bars, strict=True):
                found[bars.get_label(), name] = bar.get_width()
    assert found == {
        (split, name): value
        for parts in counts.values()
        for split, values in parts.items()
        for name, value in zip(names, values, strict=True)
    }
    total = np.sum([values for parts in counts.values() for values in parts.values()], axis=0)
    order = [total[names.index(name)] for name in shown]
    assert order == sorted(total, reverse=True)  # of all classes, each once
    # legible: a line of text of 7 points is 0.1 inch high
    height = figure.get_size_inches()[1] * min(axes.get_position().height for axes in figure.axes)
    rows = max(len(axes.get_yticks()) for axes in figure.axes)
    assert height / rows > 0.11


def test_the_figure_of_many_classes_is_written(tmp_path):
    counts = {"": {"train": np.arange(30), "test": np.ones(30, int)}}
    class_counts(counts, [f"class {i}" for i in range(30)], tmp_path / "a" / "x.png")
    image = pixels(tmp_path / "a" / "x.png")
    assert len(near(image, BLUE)[0]) > 10 * len(near(image, ORANGE)[0]) > 0
    assert (tmp_path / "a" / "x.svg").read_text().count("class ") >= 30


# --- everything about a store ---------------------------------------------------------------------


def test_overview(tmp_path):
    clips = [clip(f"c{i}", i % 3, persons=1 + i % 2) for i in range(12)]
    store = stored(tmp_path, clips, {"train": ["c0"], "test": ["c1"]}, ["a", "b", "喝水"])
    files = draw_overview(store, inspect_store(store), tmp_path / "new" / "check")
    assert [path.name for path in files] == ["classes.png", "clips.png", "clips.gif"]
    for path in files:
        assert pixels(path).std() > 5
    assert pixels(files[1]).shape[0] == pytest.approx(130 * (8 * 1.8 + 0.4), abs=2)
    with Image.open(files[2]) as image:
        assert image.size[0] == 4 * 176


def test_only_the_first_fold_is_shown(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "class_counts", lambda counts, *_: shown.append(counts))
    splits = {f"fold{i}_{part}": ["a"] for i in (1, 2) for part in ("test", "train")}
    store = stored(tmp_path, [clip()], {**splits, "xsub_train": ["a"], "xsub_val": ["a"]})
    draw_overview(store, inspect_store(store), tmp_path)
    assert [list(parts) for parts in shown[0].values()] == [
        ["fold1_train", "fold1_test"],
        ["xsub_train", "xsub_val"],
    ]


def test_a_store_without_visible_bodies_has_only_counts(tmp_path):
    one = clip()
    one.score[:] = 0
    store = stored(tmp_path, [one])
    assert draw_overview(store, inspect_store(store), tmp_path) == [tmp_path / "classes.png"]
    assert not (tmp_path / "clips.png").exists()


@pytest.mark.parametrize(
    ("per_class", "number", "expected"),
    [
        ([3, 1, 2], 8, [0, 0, 0, 1, 2, 2]),
        ([9, 9, 9], 6, [0, 0, 1, 1, 2, 2]),
        ([9, 1, 0, 9], 5, [0, 0, 1, 3, 3]),
        ([2] * 9, 3, [0, 4, 8]),
        ([1], 1, [0]),
    ],
)
def test_examples_are_spread_over_the_classes(tmp_path, per_class, number, expected):
    labels = [label for label, count in enumerate(per_class) for _ in range(count)]
    labels = np.random.default_rng(0).permutation(labels).tolist()
    found = inspect_store(
        stored(tmp_path, [clip(f"c{i}", label) for i, label in enumerate(labels)])
    )
    chosen = examples(found, number)
    assert found.label[chosen].tolist() == expected
    assert len(set(chosen.tolist())) == len(chosen)
