"""The confusion matrix, the table by class and their figures."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from maskclr_pl.analysis.confusion import class_table, confused_pairs, confusion, write_class_table
from maskclr_pl.figures import confusion as figures
from maskclr_pl.figures.confusion import class_bars, confusion_matrix, wilson_interval
from maskclr_pl.runs.predictions import Predictions

pytestmark = pytest.mark.figures


def said(classes: int, clips: int, seed: int = 0, missing: int | None = None):
    """Labels and logits; some right, some wrong; perhaps a class without clips."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, clips)
    if missing is not None:
        label[label == missing] = (missing + 1) % classes
    logits = rng.normal(size=(clips, classes)).astype(np.float32)
    logits[np.arange(clips), label] += 2
    return label, logits


@given(st.integers(1, 7), st.integers(1, 40), st.integers(0, 99))
def test_confusion_and_class_table_match_loops(classes, clips, seed):
    label, logits = said(classes, clips, seed)
    counts = confusion(label, logits)
    loop = np.zeros((classes, classes), int)
    for true, row in zip(label, logits, strict=True):
        loop[true, max(range(classes), key=lambda k: row[k])] += 1
    assert np.array_equal(counts, loop)
    rows = class_table(counts, [f"c{k}" for k in range(classes)])
    assert [row["class"] for row in rows] == [f"c{k}" for k in range(classes)]
    for k, row in enumerate(rows):
        taken, total = loop[:, k].sum(), loop[k].sum()
        assert row["clips"] == total
        assert row["top1"] == (pytest.approx(100 * loop[k, k] / total, abs=0.005) if total else "")
        right = pytest.approx(100 * loop[k, k] / taken, abs=0.005) if taken else ""
        assert row["precision"] == right
        wrong = {j: loop[k, j] for j in range(classes) if j != k and loop[k, j]}
        assert bool(row["confused_with"]) == bool(wrong)
        if wrong:
            assert wrong[int(row["confused_with"][1:])] == max(wrong.values())
            most = 100 * max(wrong.values()) / total
            assert row["confused"] == pytest.approx(most, abs=0.005)


def test_first_of_equal_logits_counts():
    counts = confusion(np.array([0, 1]), np.ones((2, 3), np.float32))
    assert counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_confused_pairs_are_sorted():
    counts = np.array([[5, 5, 0], [1, 9, 0], [1, 1, 0]])
    result = [
        (pair.true, pair.predicted, pair.clips, pair.share) for pair in confused_pairs(counts)
    ]
    assert result == [(0, 1, 5, 0.5), (2, 0, 1, 0.5), (2, 1, 1, 0.5), (1, 0, 1, 0.1)]


def test_the_file(tmp_path):
    label, logits = said(4, 30, missing=2)
    predictions = Predictions("run", np.arange(30).astype(str), label, logits)
    counts = write_class_table(tmp_path, predictions, ["a", 'b "x", y', "c", "d"])
    rows = list(csv.DictReader((tmp_path / "per_class.csv").open(newline="")))
    columns = ["class", "clips", "top1", "precision", "confused_with", "confused"]
    assert list(rows[0]) == columns
    assert rows[1]["class"] == 'b "x", y'
    assert (rows[2]["clips"], rows[2]["top1"], rows[2]["confused_with"]) == ("0", "", "")
    assert sum(int(row["clips"]) for row in rows) == counts.sum() == 30


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """Figures that would be written."""
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure) or [path])
    return kept


def draw_matrix(classes, clips, names=None, missing=None, path=Path("x.png")) -> np.ndarray:
    counts = confusion(*said(classes, clips, missing=missing))
    names = names or [f"class {k}" for k in range(classes)]
    confusion_matrix(counts, names, confused_pairs(counts), path)
    return counts


def labels(axis) -> list[str]:
    return [tick.get_text() for tick in axis.get_ticklabels()]


@pytest.mark.parametrize(("classes", "named"), [(1, 1), (2, 2), (20, 20), (21, 21), (150, 150)])
def test_cells_show_percentages(drawn, classes, named):
    counts = draw_matrix(classes, 300)
    axes = drawn[0].axes[0]
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    assert np.allclose(axes.images[0].get_array(), percent)
    assert labels(axes.yaxis) == [f"class {k} ({counts[k].sum()})" for k in range(named)]
    assert labels(axes.xaxis) == [f"class {k}" for k in range(named)]
    numbers = {(t.get_position(), t.get_text()) for t in axes.texts}
    cells = {((x, y), f"{percent[y, x]:.0f}") for y, x in np.argwhere(counts)}
    assert numbers == (cells if classes <= 20 else set())


def test_many_classes_are_numbered(drawn):
    counts = draw_matrix(400, 3000)
    axes, _, pairs = drawn[0].axes
    assert len(labels(axes.yaxis)) < 20
    assert max(drawn[0].get_size_inches()) < 25
    first = confused_pairs(counts)[0]
    shown = [text.get_text() for text in pairs.texts]
    assert shown[0] == f"class {first.true} → class {first.predicted}"
    assert f"{100 * first.share:.0f} % ({first.clips})" in shown
    assert pairs.patches[0].get_width() == pytest.approx(100 * first.share)


def test_classes_without_clips_are_hatched(drawn):
    draw_matrix(5, 60, missing=3)
    hatched = [patch for patch in drawn[0].axes[0].patches if patch.get_hatch()]
    assert [patch.get_y() for patch in hatched] == [2.5]


def test_perfect_predictions_have_no_list(drawn):
    counts = np.diag([3, 2])
    confusion_matrix(counts, ["a", "b"], confused_pairs(counts), Path("x.png"))
    assert len(drawn[0].axes) == 2  # the matrix and its scale
    assert "top-1 100.0 %" in drawn[0].texts[0].get_text()


ODD = ["$x_1^{", "日本", "a\nb", "\\frac", "x" * 300]


def test_unusual_names_are_drawn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_matrix(5, 40, names=ODD, path=tmp_path / "m.png")
        class_bars(class_table(confusion(*said(5, 40)), ODD), tmp_path / "c.png")
    for file in ("m.png", "m.svg", "c.png", "c.svg"):
        assert (tmp_path / file).stat().st_size > 5000


def test_class_bars_are_sorted(drawn):
    counts = np.array([[1, 3, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])
    rows = class_table(counts, ["low", "high", "none", "half"])
    class_bars(rows, Path("x.png"))
    axes = drawn[0].axes[0]
    assert labels(axes.yaxis) == ["high (4)", "half (2)", "low (4)", "none (0)"]
    assert [bar.get_width() for bar in axes.patches] == [100, 50, 25, 0]
    [dots] = axes.lines
    assert np.allclose(dots.get_xydata(), [[57.14, 0], [100, 1], [100, 2], [0, 3]])
    assert [text.get_text() for text in axes.texts] == ["no clips"]
    class_bars(class_table(np.eye(150, dtype=int), [str(k) for k in range(150)]), Path("x.png"))
    assert sum(len(labels(axes.yaxis)) for axes in drawn[1].axes) == 150


def test_wilson_interval_inverts_the_score_test():
    """The limits are where the normal test of Wilson just rejects; (0, 1) for nothing."""
    share, count = np.array([0.0, 0.3, 1.0, 0.5]), np.array([10, 10, 10, 0])
    low, high = wilson_interval(share, count)
    assert (low[0], high[2], low[3], high[3]) == (0, 1, 0, 1)
    for p, limit in ((0.3, low[1]), (0.3, high[1]), (0, high[0]), (1, low[2])):
        assert abs(p - limit) / np.sqrt(limit * (1 - limit) / 10) == pytest.approx(1.959964)
