"""Confusion matrix and accuracy per class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from maskclr_pl.figures.style import COLORS, save, shorten

_NUMBERS, _NAMES = 20, 150  # maximum numbers of classes for numbers in cells and names of rows
_LINE = 0.36  # inches per pair in the list
_COLUMN = 65  # classes per column of bars
_NAME_LENGTH = 42


def confusion_matrix(
    counts: Int[np.ndarray, "K K"],
    class_names: Sequence[str],
    pairs: Sequence[tuple[int, int, int, float]],
    path: Path,
    title: str = "Test clips",
) -> list[Path]:
    """Draw a row-normalized confusion matrix, and a list of the most confused pairs.

    Up to 20 classes, cells contain percentages; up to 150, rows and columns have names. With more
    classes, rows and columns are numbered, and only the list has names. Rows without clips are
    hatched.

    `counts` has true classes as rows. `pairs` are sorted tuples (true class, predicted class,
    clips, share of the true class in [0, 1]); the list is cut to the height of the figure.
    """
    classes, clips = len(counts), counts.sum()
    cell, size = _cell_size(classes)
    names = [
        f"{shorten(name, _NAME_LENGTH)} ({count})"
        for name, count in zip(class_names, counts.sum(1), strict=True)
    ]
    margin = max(map(len, names)) * size * 0.0085 + 0.35 if classes <= _NAMES else 0.6
    side = max(classes * cell, 2.0)
    height = side + margin + 0.6
    pairs = pairs[: int((height - 0.8) / _LINE)]
    texts = [
        f"{shorten(class_names[true], _NAME_LENGTH)} → {shorten(class_names[wrong], _NAME_LENGTH)}"
        for true, wrong, _, _ in pairs
    ]
    list_width = max(2.4, *(0.058 * len(text) for text in texts)) if texts else 0
    figure = Figure(figsize=(margin + side + list_width + 1.4, height))
    axes = _axes_in_inches(figure, margin, margin, side, side)
    image = _draw_cells(axes, counts, size)
    _label_cells(axes, names if classes <= _NAMES else [], classes, size)
    bar = _axes_in_inches(figure, margin + side + 0.15, margin, 0.14, side)
    figure.colorbar(image, cax=bar).set_label("% of the clips of the true class", size=8)
    bar.tick_params(labelsize=7, length=2)
    if texts:
        list_height = len(texts) * _LINE
        bottom = height - 0.75 - list_height
        right = _axes_in_inches(figure, margin + side + 1.2, bottom, list_width, list_height)
        _draw_pairs(right, texts, pairs)
    top1 = 100 * counts.trace() / max(clips, 1)
    text = f"{title}: {clips} clips, {classes} classes, top-1 {top1:.1f} %"
    figure.text(0.15 / figure.get_figwidth(), 1 - 0.2 / height, text, size=11, va="center")
    return save(figure, path)


def _cell_size(classes: int) -> tuple[float, float]:
    """Return the size of a cell in inches, and of its text in points."""
    if classes <= _NUMBERS:
        return 0.34, 8
    if classes <= 64:
        return 0.145, 7
    return (0.1, 5.5) if classes <= _NAMES else (12 / classes, 7)


def _axes_in_inches(
    figure: Figure, left: float, bottom: float, width: float, height: float
) -> Axes:
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _draw_cells(axes: Axes, counts: Int[np.ndarray, "K K"], size: float) -> AxesImage:
    clips = counts.sum(1, keepdims=True)
    percent = 100 * counts / np.maximum(clips, 1)
    numbers = len(counts) <= _NUMBERS
    # with many classes each confusion is small; a square root makes it visible
    norm = PowerNorm(1 if numbers else 0.5, 0, 100)
    image = axes.imshow(percent, cmap="Blues", norm=norm, interpolation="nearest")
    for row in np.flatnonzero(clips == 0):
        axes.axhspan(row - 0.5, row + 0.5, facecolor="0.92", edgecolor="0.6", hatch="////", lw=0)
    for row, column in np.argwhere(counts) if numbers else ():
        value = percent[row, column]
        color = "white" if value > 55 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, size=size)
    return image


def _label_cells(axes: Axes, names: Sequence[str], classes: int, size: float) -> None:
    axes.tick_params(labelsize=size, length=2, pad=1)
    if names:
        axes.set(xlabel="predicted class", ylabel="true class (clips)")
        axes.set_yticks(range(classes), names, parse_math=False)
        without_counts = [name.rpartition(" (")[0] for name in names]
        axes.set_xticks(range(classes), without_counts, rotation=90, parse_math=False)
    else:
        axes.set(xlabel="predicted class (number)", ylabel="true class (number)")
    if classes > _NUMBERS:  # grid lines help to locate cells
        step = 10 if names else 50
        lines = np.arange(step, classes, step) - 0.5
        axes.hlines(lines, -0.5, classes - 0.5, color="0.8", linewidth=0.4)
        axes.vlines(lines, -0.5, classes - 0.5, color="0.8", linewidth=0.4)


def _draw_pairs(
    axes: Axes, texts: Sequence[str], pairs: Sequence[tuple[int, int, int, float]]
) -> None:
    """Draw the most confused pairs as bars with names above them."""
    axes.set_title("most confused: true → predicted", size=9, loc="left")
    axes.set(xlim=(0, 122), ylim=(len(pairs), 0))  # with room for a number next to a full bar
    axes.axis("off")
    for i, (text, (_, _, clips, share)) in enumerate(zip(texts, pairs, strict=True)):
        axes.barh(i + 0.78, 100 * share, height=0.24, color=COLORS[1])
        axes.text(0, i + 0.6, text, size=7, parse_math=False)
        axes.text(100 * share + 1, i + 0.8, f"{100 * share:.0f} % ({clips})", size=7, va="center")


def class_bars(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> list[Path]:
    """Draw top-1 of each class as sorted bars with 95 % Wilson intervals, and precision as dots.

    `rows` are those of `per_class.csv`: class, clips, top1, precision (percent, or empty).
    """
    ranked = sorted(rows, key=lambda r: (r["top1"] == "", -float(r["top1"] or 0), -int(r["clips"])))
    columns = np.array_split(np.arange(len(ranked)), -(-len(ranked) // _COLUMN))
    name_width = max(len(shorten(row["class"], _NAME_LENGTH)) for row in rows) * 0.062 + 0.6
    width, height = name_width + 2.8, 0.165 * len(columns[0])
    figure = Figure(figsize=(max(width * len(columns), 4.4), height + 1.35))
    for i, column in enumerate(columns):
        bars = 0.165 * len(column)
        axes = _axes_in_inches(figure, width * i + name_width, 0.5 + height - bars, 2.6, bars)
        _draw_class_bars(axes, [ranked[k] for k in column])
    top = figure.get_figheight()
    handles = figure.axes[0].get_legend_handles_labels()[0][::-1]
    figure.axes[0].legend(
        handles=handles,
        loc="upper left",
        ncols=3,
        fontsize=7,
        frameon=False,
        bbox_to_anchor=(0.02, 1 - 0.3 / top),
        bbox_transform=figure.transFigure,
    )
    text = title or f"Top-1 of each of {len(rows)} classes (number of clips)"
    figure.text(0.03, 1 - 0.2 / top, text, size=10, va="center")
    return save(figure, path)


def _draw_class_bars(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    places = np.arange(len(rows))
    top1 = np.array([float(row["top1"] or 0) for row in rows])
    clips = np.array([int(row["clips"]) for row in rows])
    low, high = wilson_interval(top1 / 100, clips)
    has_clips = clips > 0
    axes.barh(places, top1, color=COLORS[4], label="top-1")
    axes.hlines(
        places[has_clips],
        100 * low[has_clips],
        100 * high[has_clips],
        color="0.25",
        linewidth=0.8,
        label="95 % interval of top-1",
    )
    dots = [(float(row["precision"]), i) for i, row in enumerate(rows) if row["precision"] != ""]
    if dots:
        axes.plot(*zip(*dots, strict=True), "o", color=COLORS[1], ms=3.2, label="precision")
    for i in places[~has_clips]:
        axes.text(4, i, "no clips", size=6.5, va="center", color="0.35")
    names = [f"{shorten(row['class'], _NAME_LENGTH)} ({row['clips']})" for row in rows]
    axes.set_yticks(places, names, parse_math=False)
    axes.set(xlim=(0, 101), ylim=(len(rows) - 0.4, -0.6))
    axes.set_xlabel("percent", size=8)
    axes.tick_params(labelsize=7, length=2)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def wilson_interval(
    share: Float[np.ndarray, " K"], count: Int[np.ndarray, " K"]
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Return 95 % confidence limits of a share of `count` clips (Wilson score interval, 1927).

    The interval for no clips is (0, 1).
    """
    z2 = 1.959964**2
    center = (share * count + z2 / 2) / (count + z2)
    half = np.sqrt(z2 * (share * (1 - share) * count + z2 / 4)) / (count + z2)
    return np.clip(center - half, 0, 1), np.clip(center + half, 0, 1)
