"""Scores of classes under two conditions, or of two models, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from maskclr_pl.figures.style import COLORS, new_figure, save

_COLUMN = 40  # classes in one column of dots


def class_score_dots(
    scores: Mapping[str, Mapping[str, float]],
    path: Path,
    title: str,
    label: str = "top-1 (%)",
) -> None:
    """A line for each class with a dot for each score; the largest loss stands first.

    The dots of a class stand one below the other, so that equal ones are seen.

    Args:
        scores: Label -> {class: score in percent}: two conditions of a model, or one condition of
            two models. The line goes from the first to the last.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure.
        label: Of the axis.
    """
    first, *_, last = [*scores.values(), *scores.values()]
    both = [name for name in first if name in last]
    names = sorted(both, key=lambda name: last[name] - first[name])
    columns = -(-len(names) // _COLUMN)
    length = -(-len(names) // columns)
    figure = new_figure(max(6, 4.6 * columns), 1.3 + 0.2 * length)
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for i, axes in enumerate(panels):
        _dots(axes, scores, names[i * length : (i + 1) * length])
        axes.set(xlim=(-3, 103), ylim=(length - 0.4, -0.6))
        axes.set_xlabel(label, fontsize=8)
    panels[0].legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # once is enough: with many labels it takes seconds
    save(figure, path)


def _dots(axes: Axes, scores: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
    places = range(len(names))
    ends = [[min(s[n] for s in scores.values()), max(s[n] for s in scores.values())] for n in names]
    axes.hlines(places, *zip(*ends, strict=True), color="0.75", linewidth=2, zorder=1)
    marks = zip(scores.items(), COLORS, "osD^vP*", strict=False)
    below = np.linspace(-0.2, 0.2, len(scores))
    for shift, ((text, values), colour, mark) in zip(below, marks, strict=False):
        dots = [values[name] for name in names]
        look: dict[str, Any] = {"s": 16, "color": colour, "marker": mark, "label": text}
        axes.scatter(dots, np.array(places) + shift, **look)
    labels = [name if len(name) <= 36 else f"{name[:35]}…" for name in names]
    axes.set_yticks(places, labels, fontsize=7, parse_math=False)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
