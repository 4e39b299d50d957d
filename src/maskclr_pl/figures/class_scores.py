"""Accuracy per class under two conditions, or of two models."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from maskclr_pl.figures.style import COLORS, new_figure, save, shorten

_COLUMN = 40  # classes per column


def class_score_dots(
    scores: Mapping[str, Mapping[str, float]], path: Path, title: str, label: str = "top-1 (%)"
) -> None:
    """Draw a line with a dot per score for each class, sorted by the largest loss.

    `scores` maps labels to {class: score in percent}, for two conditions of a model or two models;
    losses are from the first to the last. Dots are offset so that equal scores are visible.
    """
    tables = list(scores.values())
    first, last = tables[0], tables[-1]
    common = [name for name in first if name in last]
    names = sorted(common, key=lambda name: last[name] - first[name])
    columns = -(-len(names) // _COLUMN)
    length = -(-len(names) // columns)
    figure = new_figure(max(6, 4.6 * columns), 1.3 + 0.2 * length)
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for i, axes in enumerate(panels):
        _draw_dots(axes, scores, names[i * length : (i + 1) * length])
        axes.set(xlim=(-3, 103), ylim=(length - 0.4, -0.6))
        axes.set_xlabel(label, fontsize=8)
    panels[0].legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # with many labels each further layout takes seconds
    save(figure, path)


def _draw_dots(axes: Axes, scores: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
    rows = np.arange(len(names))
    table = np.array([[values[name] for name in names] for values in scores.values()])
    axes.hlines(rows, table.min(0), table.max(0), color="0.75", linewidth=2, zorder=1)
    offsets = np.linspace(-0.2, 0.2, len(scores))
    styles = zip(scores, table, offsets, COLORS, "osD^vP*", strict=False)
    for label, values, offset, color, marker in styles:
        axes.scatter(values, rows + offset, s=16, color=color, marker=marker, label=label)
    axes.set_yticks(rows, [shorten(name, 36) for name in names], fontsize=7, parse_math=False)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
