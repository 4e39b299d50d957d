"""Number of clips per class."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes

from maskclr_pl.figures.style import COLORS, new_figure, save, shorten

SplitCounts = Mapping[str, Int[np.ndarray, " K"]]
_COLUMN = 70  # classes per column


def class_counts(counts: Mapping[str, SplitCounts], class_names: Sequence[str], path: Path) -> None:
    """Draw clips per class as stacked bars of the splits, the most frequent class first.

    `counts` maps protocols (one panel each) to {split: clips of each class}.
    """
    totals = {name: np.sum(list(splits.values()), axis=0) for name, splits in counts.items()}
    order = np.argsort(-np.sum(list(totals.values()), axis=0), kind="stable")
    columns = np.array_split(order, -(-len(order) // _COLUMN))
    width = max(5, len(columns) * (2.1 + 2.3 * len(counts)))
    figure = new_figure(width, 1.2 + 0.165 * len(columns[0]))
    figure.suptitle(f"Clips per class ({len(order)} classes)", fontsize=11)
    panels = figure.subplots(1, len(columns) * len(counts), squeeze=False)[0]
    limit = 1.03 * max(1, *(total.max() for total in totals.values()))
    for axes, (classes, protocol) in zip(panels, itertools.product(columns, counts), strict=True):
        _draw_bars(axes, counts[protocol], classes)
        axes.set_xlim(0, limit)
        if protocol == next(iter(counts)):
            labels = [shorten(class_names[i], 40) for i in classes]
            axes.set_yticks(range(len(classes)), labels, fontsize=7, parse_math=False)
        else:
            axes.set_yticks([])
    save(figure, path)


def _draw_bars(axes: Axes, splits: SplitCounts, classes: np.ndarray) -> None:
    left = np.zeros(len(classes), dtype=np.int64)
    for (split, values), color in zip(splits.items(), itertools.cycle(COLORS), strict=False):
        axes.barh(range(len(classes)), values[classes], left=left, color=color, label=split)
        left += values[classes]
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderpad=0)
