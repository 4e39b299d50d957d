"""How many clips each class has."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes

from maskclr_pl.figures.style import COLORS, new_figure, save

Parts = Mapping[str, Int[np.ndarray, " K"]]
_COLUMN = 70  # classes in one column of bars


def class_counts(counts: Mapping[str, Parts], class_names: Sequence[str], path: Path) -> None:
    """Clips per class as bars, the most frequent class first; the parts of a protocol are stacked.

    Args:
        counts: Protocol -> {split: clips of each class}; a panel for each protocol.
        class_names: One name per class.
        path: PNG to write (an SVG goes beside it).
    """
    sums = {name: np.sum(list(parts.values()), axis=0) for name, parts in counts.items()}
    order = np.argsort(-np.sum(list(sums.values()), axis=0), kind="stable")
    columns = np.array_split(order, -(-len(order) // _COLUMN))
    figure = new_figure(
        max(5, len(columns) * (2.1 + 2.3 * len(counts))), 1.2 + 0.165 * len(columns[0])
    )
    figure.suptitle(f"Clips per class ({len(order)} classes)", fontsize=11)
    panels = figure.subplots(1, len(columns) * len(counts), squeeze=False)[0]
    for axes, (classes, name) in zip(panels, itertools.product(columns, counts), strict=True):
        _bars(axes, counts[name], classes)
        axes.set_xlim(0, 1.03 * max(1, *(total.max() for total in sums.values())))
        names = [class_names[i] for i in classes] if name == next(iter(counts)) else []
        labels = [text if len(text) <= 40 else f"{text[:39]}…" for text in names]
        ticks = range(len(classes)) if labels else []
        axes.set_yticks(ticks, labels, fontsize=7, parse_math=False)
    save(figure, path)


def _bars(axes: Axes, parts: Parts, classes: np.ndarray) -> None:
    left = np.zeros(len(classes), dtype=np.int64)
    for (split, values), colour in zip(parts.items(), itertools.cycle(COLORS), strict=False):
        axes.barh(range(len(classes)), values[classes], left=left, color=colour, label=split)
        left += values[classes]
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderpad=0)
