"""Tables and files of a robustness evaluation."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.robustness.runner import (
    CLEAN_PASS,
    Passes,
    PassKey,
    normalized_auc,
)
from maskclr_pl.robustness.tables import (
    back_up,
    class_accuracy_rows,
    class_scores,
    summary_rows,
    write_robustness,
)


@st.composite
def tables(draw):
    """Levels, draws, clips and seed of passes whose hits are random; a class may have no clip."""
    levels = draw(st.lists(st.floats(0.01, 5), min_size=1, max_size=4, unique=True))
    return sorted(levels), *(draw(st.integers(1, most)) for most in (3, 9, 1000))


def passes_of(levels: list[float], draws: int, clips: int, seed: int) -> Passes:
    keys = [CLEAN_PASS]
    keys += [PassKey("a", level, d) for level in levels for d in range(draws)]
    rng = np.random.default_rng(seed)
    correct = rng.random((len(keys), clips)) < 0.6
    label = rng.integers(0, 3, clips)
    names = np.array([f"c{i}" for i in range(clips)])
    return Passes(names, label, keys, correct, correct | (rng.random(correct.shape) < 0.5))


@given(tables())
def test_summary_matches_loops(table):
    levels, draws, *_ = table
    passes = passes_of(*table)

    def top1(level: float, draw: int) -> float:
        row = passes.keys.index(("a", level, draw))
        return 100 * sum(passes.correct[row].tolist()) / len(passes.name)

    clean = 100 * sum(passes.correct[0].tolist()) / len(passes.name)
    mean = [sum(top1(level, d) for d in range(draws)) / draws for level in levels]
    total, x, y = 0.0, 0.0, clean
    for level, value in zip(levels, mean, strict=True):
        total += (level - x) * (value + y) / 2
        x, y = level, value
    by_draw = [sum(top1(level, d) for level in levels) / len(levels) for d in range(draws)]
    average = sum(by_draw) / draws
    variance = sum((value - average) ** 2 for value in by_draw) / max(draws - 1, 1)
    [row] = summary_rows(passes.rows())
    # the table is rounded to 4 digits, as are the rows that it is made from
    assert row["clean"] == pytest.approx(clean, abs=2e-4)
    assert row["mean"] == pytest.approx(average, abs=2e-4)
    assert row["auc"] == pytest.approx(total / levels[-1], abs=2e-4)
    assert row["worst"] == pytest.approx(min(mean), abs=2e-4)
    expected = variance**0.5 if draws > 1 else float("nan")
    assert row["spread"] == pytest.approx(expected, abs=4e-4, nan_ok=True)
    if clean:
        assert row["retention"] == pytest.approx(100 * average / clean, abs=4e-3)
    else:
        assert np.isnan(row["retention"])


@given(tables())
def test_class_accuracy_matches_loops(table):
    passes = passes_of(*table)
    rows = class_accuracy_rows(passes, ["x", "y", "z"])
    groups = list(dict.fromkeys((name, level) for name, level, _ in passes.keys))
    present = sorted(set(passes.label.tolist()))
    assert [(r["class"], r["corruption"], r["level"]) for r in rows] == [
        ("xyz"[label], *group) for label in present for group in groups
    ]
    for row in rows:
        indices = [i for i, label in enumerate(passes.label) if "xyz"[label] == row["class"]]
        passed = [
            r for r, k in enumerate(passes.keys) if k[:2] == (row["corruption"], row["level"])
        ]
        hits = [passes.correct[r, i] for r in passed for i in indices]
        assert row["clips"] == len(indices)
        assert row["top1"] == pytest.approx(100 * sum(hits) / len(hits), abs=1e-4)


def test_auc_is_the_trapezoid_area():
    area = normalized_auc({0.0: (80, 0), 1.0: (60, 0), 4.0: (0, 0)})
    assert area == pytest.approx(70 / 4 + 90 / 4)


def test_files_are_written_and_earlier_ones_numbered(tmp_path):
    keys = [CLEAN_PASS, PassKey("a", 0.5, 0), PassKey("a", 0.5, 1)]
    correct = np.array([[True, True], [True, False], [False, False]])
    passes = Passes(np.array(["n", "m"]), np.array([1, 0]), keys, correct, correct)
    seconds = [CLEAN_PASS, PassKey("second_store", 1.0, 0)]
    second = Passes(
        passes.name[:1], passes.label[:1], seconds, correct[[0, 2], :1], correct[:2, :1]
    )
    assert back_up(tmp_path) is None
    write_robustness(tmp_path, passes, ["x", "y"], second)
    with np.load(tmp_path / "robustness_clips.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["correct"], correct)
        assert file["correct"].dtype == bool
        assert file["name"].tolist() == ["n", "m"]
        assert file["label"].tolist() == [1, 0]
        columns = (file[key].tolist() for key in ("corruption", "level", "draw"))
        assert list(zip(*columns, strict=True)) == keys
    with np.load(tmp_path / "robustness_second_store.npz") as file:
        assert file["corruption"].tolist() == ["clean", "second_store"]
        assert file["correct"].tolist() == [[True], [False]]
    rows = list(csv.DictReader((tmp_path / "robustness.csv").open()))
    assert [(r["corruption"], float(r["level"]), float(r["top1"])) for r in rows] == [
        *(("clean", 0, 100), ("a", 0, 100), ("a", 0, 100), ("a", 0.5, 50), ("a", 0.5, 0)),
        *(("second_store", 0, 100), ("second_store", 1, 0)),
    ]
    text = (tmp_path / "robustness_summary.csv").read_text().splitlines()
    assert text[0] == "corruption,clean,mean,auc,retention,worst,spread"
    assert text[1] == f"a,100.0,25.0,62.5,25.0,25.0,{round(50 / 2**0.5, 4)}"
    assert text[2] == "second_store,100.0,0.0,50.0,0.0,0.0,nan"
    classes = list(csv.DictReader((tmp_path / "robustness_classes.csv").open()))
    assert class_scores(classes, "a", 0.5) == {"x": 0, "y": 50}
    assert class_scores(classes, "second_store", 0.0) == {"y": 100}
    assert class_scores(classes, "b", 0.5) == {}
    assert back_up(tmp_path) == tmp_path / "robustness.1.csv"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("robustness.1.csv", "robustness_summary.1.csv", "robustness_classes.1.csv"),
        *("robustness_clips.1.npz", "robustness_second_store.1.npz"),
    }
    (tmp_path / "robustness.csv").write_text("")
    assert back_up(tmp_path) == tmp_path / "robustness.2.csv"
