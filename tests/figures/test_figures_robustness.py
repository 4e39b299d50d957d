"""Figures of robustness: what they show of the values that they were given."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from maskclr_pl.figures import class_scores, curves
from maskclr_pl.figures.class_scores import class_score_dots
from maskclr_pl.figures.curves import robustness_curves
from maskclr_pl.reporting.published_noise import published_noise
from maskclr_pl.robustness.corruptions import PARTS, UNITS

pytestmark = pytest.mark.figures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are made, drawn but not written."""
    figures: list[Figure] = []

    def keep(figure: Figure, path: Path) -> None:
        figure.draw_without_rendering()
        figures.append(figure)

    monkeypatch.setattr(curves, "save", keep)
    monkeypatch.setattr(class_scores, "save", keep)
    return figures


def run(clean: float) -> dict[str, dict[float, tuple[float, float]]]:
    """Every corruption that there is, at levels 0, 0.5 and 1."""
    levels = {0.0: (clean, 0.0), 0.5: (clean / 2, 1.0), 1.0: (clean / 4, 1.0)}
    values = {name: levels for name in UNITS if name != "second_store"}
    return {"clean": {0.0: (clean, 0.0)}, **values, "second_store": {0.0: (clean, 0), 1.0: (9, 0)}}


def test_corruptions_have_panels_or_bars(drawn: list[Figure]) -> None:
    robustness_curves({"a": run(80), "b": run(60)}, UNITS, Path("x.png"))
    [figure] = drawn
    shown = [axes for axes in figure.axes if axes.axison]
    titles = [axes.get_title() for axes in shown[:-1]]
    lines = [n for n in UNITS if not n.startswith("occlusion_") and n != "second_store"]
    assert sorted(titles) == sorted(name.replace("_", " ") for name in lines)
    assert titles[:2] == ["spatial noise", "spatiotemporal noise"]
    for axes in shown:
        assert axes.get_ylim() == (0, 101)
    first = [line for line in shown[0].lines if len(line.get_xdata()) == 3]
    assert [line.get_ydata().tolist() for line in first[:1]] == [[80, 40, 20]]
    bars = shown[-1]
    heights = [bar.get_height() for bar in bars.patches]
    # of each run: all clean ones, then all at the highest level
    parts = len(PARTS)
    assert heights == [80] * (parts + 1) + [20] * parts + [9] + [60] * (parts + 1) + [
        15
    ] * parts + [9]
    texts = [label.get_text() for label in bars.get_xticklabels()]
    assert texts[0] == "left arm\n(1)"
    assert texts[-1] == "second store\n(1)"


def test_panels_have_the_same_size(drawn: list[Figure]) -> None:
    """Kind: panels of one figure in several sizes and fonts."""
    robustness_curves({"a": run(80), "b": run(60)}, UNITS, Path("x.png"))
    *panels, bars = drawn[0].axes
    sizes = {tuple(axes.get_position().size.round(4)) for axes in panels}
    assert len(panels) > 5
    assert len(sizes) == 1
    assert bars.get_position().height == pytest.approx(panels[0].get_position().height)
    texts = [text for axes in panels for text in (axes.title, axes.xaxis.label)]
    texts += [*bars.get_xticklabels(), bars.yaxis.label, *drawn[0].legends[0].get_texts()]
    texts += [label for axes in (*panels, bars) for label in axes.get_yticklabels()]
    assert len({text.get_fontsize() for text in texts}) == 1


def test_equal_scores_do_not_overlap(drawn: list[Figure]) -> None:
    """Kind: points that lie on each other, so that one is not seen."""
    equal = {f"class {i}": 50.0 for i in range(20)}
    class_score_dots({"a": equal, "b": equal}, Path("x.png"), "t")
    [axes] = drawn[0].axes
    first, second = axes.collections[1:]
    points = [axes.transData.transform(dots.get_offsets()) for dots in (first, second)]
    apart = abs(points[0] - points[1]).max(1) * 72 / drawn[0].dpi
    assert (apart > first.get_sizes()[0] ** 0.5).all()  # the area of a mark, in points


def test_runs_with_different_corruptions(drawn: list[Figure]) -> None:
    full = run(80)
    few = {name: full[name] for name in ("clean", "frame_drop", "occlusion_arms")}
    robustness_curves({"few": few, "none": {"clean": full["clean"]}}, UNITS, Path("x.png"))
    assert len(drawn[0].axes) == 2
    robustness_curves({"few": few, "full": full}, UNITS, Path("x.png"))
    robustness_curves({"none": {"clean": full["clean"]}}, UNITS, Path("x.png"))
    assert len(drawn) == 2  # nothing to draw of a clean run


def test_published_curves_are_labeled(drawn: list[Figure]) -> None:
    robustness_curves({"a": run(80)}, UNITS, Path("x.png"), published=published_noise())
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    published = ["MaskCLR (published, NTU60-XSub)", "MotionBERT (published, NTU60-XSub)"]
    assert sorted(texts) == sorted(["a", *published])


def test_classes_are_sorted_by_loss(drawn: list[Figure], tmp_path: Path) -> None:
    first = {f"class {i}": 90.0 - i / 10 for i in range(119)} | {"$loss$": 90.0}
    last = {name: value - (50 if name == "$loss$" else 1) for name, value in first.items()}
    class_score_dots({"clean": first, "noise": last}, Path("x.png"), "t")
    names = [label.get_text() for axes in drawn[0].axes for label in axes.get_yticklabels()]
    assert names == ["$loss$", *(name for name in first if name != "$loss$")]
    dots = [axes.collections[1].get_offsets()[:, 0] for axes in drawn[0].axes]
    assert sum(len(column) for column in dots) == 120
    assert dots[0][0] == 90
    # a class that only one model was tested on is left out
    class_score_dots({"a": {"x": 1.0, "y": 2.0}, "b": {"y": 3.0}}, tmp_path / "y.png", "t")
    assert [label.get_text() for label in drawn[1].axes[0].get_yticklabels()] == ["y"]
