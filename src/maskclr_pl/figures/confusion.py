"""Which classes are taken for which, and how well each is recognised."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from maskclr_pl.figures.style import COLORS, save, short

_NUMBERS, _NAMES = 20, 150  # classes up to which cells hold numbers, and rows have names
_LINE = 0.36  # inches of a pair in the list
_COLUMN = 65  # classes in one column of bars
_LONGEST = 42  # characters of a name


def confusion_matrix(
    counts: Int[np.ndarray, "K K"],
    class_names: Sequence[str],
    pairs: Sequence[tuple[int, int, int, float]],
    path: Path,
    title: str = "Test clips",
) -> list[Path]:
    """The share of each class's clips by what they were taken for, and the pairs confused most.

    Up to 20 classes the cells hold percent, up to 150 the rows and columns have names; beyond,
    classes have numbers, and names stand in the list of pairs. Rows without clips are hatched.

    Args:
        counts: Clips by true class (rows) and predicted class (columns).
        class_names: One name per class.
        pairs: (true class, predicted class, clips, share of the true class in [0, 1]), the most
            confused first; as many are listed as there is room for.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure, before the number of clips and top-1.
    """
    classes, clips = len(counts), counts.sum()
    cell, size = _cell(classes)
    names = [f"{short(n, _LONGEST)} ({c})" for n, c in zip(class_names, counts.sum(1), strict=True)]
    below = max(map(len, names)) * size * 0.0085 + 0.35 if classes <= _NAMES else 0.6
    side = max(classes * cell, 2.0)
    height = side + below + 0.6
    listed = pairs[: int((height - 0.8) / _LINE)]
    texts = [
        f"{short(class_names[true], _LONGEST)} → {short(class_names[predicted], _LONGEST)}"
        for true, predicted, _, _ in listed
    ]
    wide = max([0.058 * len(text) for text in texts] + [2.4] * bool(texts), default=0)
    figure = Figure(figsize=(below + side + wide + 1.4, height))
    axes = _inches(figure, below, below, side, side)
    image = _draw_cells(axes, counts, size)
    _name_cells(axes, names if classes <= _NAMES else [], classes, size)
    bar = _inches(figure, below + side + 0.15, below, 0.14, side)
    figure.colorbar(image, cax=bar).set_label("% of the clips of the true class", size=8)
    bar.tick_params(labelsize=7, length=2)
    if listed:
        room = len(listed) * _LINE
        right = _inches(figure, below + side + 1.2, height - 0.75 - room, wide, room)
        _list_pairs(right, texts, listed)
    top1 = 100 * counts.trace() / max(clips, 1)
    text = f"{title}: {clips} clips, {classes} classes, top-1 {top1:.1f} %"
    figure.text(0.15 / figure.get_figwidth(), 1 - 0.2 / height, text, size=11, va="center")
    return save(figure, path)


def _cell(classes: int) -> tuple[float, float]:
    """Inches of a cell and points of its text."""
    if classes <= _NUMBERS:
        return 0.34, 8
    if classes <= 64:
        return 0.145, 7
    return (0.1, 5.5) if classes <= _NAMES else (12 / classes, 7)


def _inches(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _draw_cells(axes: Axes, counts: Int[np.ndarray, "K K"], size: float) -> AxesImage:
    clips = counts.sum(1, keepdims=True)
    percent = 100 * counts / np.maximum(clips, 1)
    numbers = len(counts) <= _NUMBERS
    # of many classes each confusion is a small share: a square root shows it, as the bar says
    norm = PowerNorm(1 if numbers else 0.5, 0, 100)
    image = axes.imshow(percent, cmap="Blues", norm=norm, interpolation="nearest")
    for row in np.flatnonzero(clips == 0):
        axes.axhspan(row - 0.5, row + 0.5, facecolor="0.92", edgecolor="0.6", hatch="////", lw=0)
    for row, column in np.argwhere(counts) if numbers else ():
        value = percent[row, column]
        look: dict[str, Any] = {"color": "white" if value > 55 else "black", "size": size}
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", **look)
    return image


def _name_cells(axes: Axes, names: Sequence[str], classes: int, size: float) -> None:
    axes.set(xlabel="taken for", ylabel="true class (clips)")
    axes.tick_params(labelsize=size, length=2, pad=1)
    if names:
        places = range(classes)
        axes.set_yticks(places, names, parse_math=False)
        plain = [name.rpartition(" (")[0] for name in names]
        axes.set_xticks(places, plain, rotation=90, parse_math=False)
    else:
        axes.set(xlabel="taken for (class number)", ylabel="true class (number)")
    if classes > _NUMBERS:  # the diagonal says little about where a cell is
        step = 10 if names else 50
        lines = np.arange(step, classes, step) - 0.5
        axes.hlines(lines, -0.5, classes - 0.5, color="0.8", linewidth=0.4)
        axes.vlines(lines, -0.5, classes - 0.5, color="0.8", linewidth=0.4)


def _list_pairs(
    axes: Axes, texts: Sequence[str], pairs: Sequence[tuple[int, int, int, float]]
) -> None:
    """Bars with the names above them."""
    axes.set_title("confused most: true → taken for", size=9, loc="left")
    axes.set(xlim=(0, 122), ylim=(len(pairs), 0))  # room for the number behind a full bar
    axes.axis("off")
    for i, (text, (_, _, clips, share)) in enumerate(zip(texts, pairs, strict=True)):
        axes.barh(i + 0.78, 100 * share, height=0.24, color=COLORS[1])
        axes.text(0, i + 0.6, text, size=7, parse_math=False)
        axes.text(100 * share + 1, i + 0.8, f"{100 * share:.0f} % ({clips})", size=7, va="center")


def class_scores(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> list[Path]:
    """Top-1 of each class as bars, the best first, with its precision as a dot.

    Lines are 95 % Wilson intervals of top-1: a class with few clips is known badly.

    Args:
        rows: Of `per_class.csv`: class, clips, top1, precision (percent; empty if unknown).
        path: PNG to write (an SVG goes beside it).
        title: Above the figure.
    """
    scores = [(row["top1"] != "", float(row["top1"] or 0), int(row["clips"])) for row in rows]
    order = sorted(range(len(rows)), key=lambda k: (not scores[k][0], -scores[k][1], -scores[k][2]))
    columns = np.array_split(order, -(-len(order) // _COLUMN))
    names = max(len(short(row["class"], _LONGEST)) for row in rows) * 0.062 + 0.6
    wide, tall = names + 2.8, 0.165 * len(columns[0])
    figure = Figure(figsize=(max(wide * len(columns), 4.4), tall + 1.35))
    for i, column in enumerate(columns):
        room = 0.165 * len(column)
        axes = _inches(figure, wide * i + names, 0.5 + tall - room, 2.6, room)
        _class_bars(axes, [rows[k] for k in column])
    up = figure.get_figheight()
    place = {"bbox_to_anchor": (0.02, 1 - 0.3 / up), "bbox_transform": figure.transFigure}
    look = {"ncols": 3, "fontsize": 7, "frameon": False}
    handles = figure.axes[0].get_legend_handles_labels()[0][::-1]
    figure.axes[0].legend(handles=handles, loc="upper left", **look, **place)
    text = title or f"Top-1 of each of {len(rows)} classes (number of clips)"
    figure.text(0.03, 1 - 0.2 / up, text, size=10, va="center")
    return save(figure, path)


def _class_bars(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    places = np.arange(len(rows))
    top1 = np.array([float(row["top1"] or 0) for row in rows])
    clips = np.array([int(row["clips"]) for row in rows])
    low, high = wilson(top1 / 100, clips)
    known = clips > 0
    axes.barh(places, top1, color=COLORS[4], label="top-1")
    lines: dict[str, Any] = {"color": "0.25", "linewidth": 0.8, "label": "its 95 % interval"}
    axes.hlines(places[known], 100 * low[known], 100 * high[known], **lines)
    dots = [(float(row["precision"]), i) for i, row in enumerate(rows) if row["precision"] != ""]
    if dots:
        axes.plot(*zip(*dots, strict=True), "o", color=COLORS[1], ms=3.2, label="precision")
    for i in places[~known]:
        axes.text(4, i, "no clips", size=6.5, va="center", color="0.35")
    names = [f"{short(row['class'], _LONGEST)} ({row['clips']})" for row in rows]
    axes.set_yticks(places, names, parse_math=False)
    axes.set(xlim=(0, 101), ylim=(len(rows) - 0.4, -0.6))
    axes.set_xlabel("percent", size=8)
    axes.tick_params(labelsize=7, length=2)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def wilson(
    share: Float[np.ndarray, " K"], count: Int[np.ndarray, " K"]
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Limits of the 95 % confidence interval of a share that was measured on `count` clips.

    Wilson's score interval (1927); (0, 1) for no clips.
    """
    z2 = 1.959964**2
    middle = (share * count + z2 / 2) / (count + z2)
    inner = share * (1 - share) * count + z2 / 4
    half = np.sqrt(z2 * inner) / (count + z2)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
