"""Curves: training over epochs, accuracy over the level of a corruption."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from maskclr_pl.figures.style import line_styles, new_figure, save

Series = tuple[Sequence[float], Sequence[float]]
Levels = Mapping[float, tuple[float, float]]
Looks = Mapping[str, Mapping[str, Any]]
_COLUMNS = 5  # of small panels


def training_curves(
    runs: Mapping[str, Mapping[str, Series]],
    path: Path,
    title: str = "Training",
    marks: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Loss on training clips and, where there are labels, top-1 on validation clips over epochs.

    Args:
        runs: Label -> {"loss": (epochs, values), "accuracy": (epochs, percent)}; an accuracy may be
            empty.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure.
        marks: Label -> {what: epoch}: a dotted line where a stage begins (`masking`), a star at the
            epoch in `best.ckpt`.
    """
    tested = any(run["accuracy"][0] for run in runs.values())
    figure = new_figure(9 if tested else 4.8, 3.6)
    figure.suptitle(title)
    panels = figure.subplots(1, 1 + tested, squeeze=False)[0]
    looks = line_styles(runs)
    names = ("loss", "accuracy")
    for axes, name in zip(panels, names, strict=False):
        for label, run in runs.items():
            axes.plot(*run[name], label=label, **looks[label])
            marked = (marks or {}).get(label, {})
            _mark(axes, marked, run[name], looks[label], alone=len(runs) == 1)
        axes.grid(alpha=0.3)
    loss = "cross-entropy" if tested else "loss"
    panels[0].set(xlabel="epoch", ylabel=f"{loss}, training clips", ylim=(0, None))
    if tested:
        panels[1].set(xlabel="epoch", ylabel="top-1, validation clips (%)", ylim=(0, 101))
    handles, labels = panels[-1].get_legend_handles_labels()
    if len(labels) > 1:
        first = dict(zip(reversed(labels), reversed(handles), strict=True))
        keys = list(dict.fromkeys(labels))
        place = "lower right" if tested else "upper right"
        panels[-1].legend([first[key] for key in keys], keys, loc=place, fontsize=8)
    save(figure, path)


def _mark(
    axes: Axes,
    marks: Mapping[str, int],
    values: Series,
    look: Mapping[str, Any],
    alone: bool,
) -> None:
    """Lines where stages begin, and a star on the curve at the epoch in best.ckpt."""
    for what, epoch in marks.items():
        text = f"{what}: epoch {epoch}" if alone else what
        if what != "best.ckpt":
            # the epochs before it are left of the line
            line: dict[str, Any] = {"linestyle": ":", "linewidth": 1.2, "color": look["color"]}
            text = f"{what} from epoch {epoch} on" if alone else f"{what} begins"
            axes.axvline(epoch - 0.5, label=text, **line)
        elif epoch in list(values[0]):
            height = values[1][list(values[0]).index(epoch)]
            dot: dict[str, Any] = {"marker": "*", "markersize": 11, "linestyle": "", "zorder": 3}
            dot |= {"color": look["color"], "markeredgecolor": "black"}
            axes.plot(epoch, height, label=text, **dot)


def robustness_curves(
    runs: Mapping[str, Mapping[str, Levels]],
    units: Mapping[str, str],
    path: Path,
    title: str = "Accuracy on perturbed test clips",
    published: Mapping[str, Mapping[str, Series]] | None = None,
) -> None:
    """Top-1 over the level of each corruption: noise large, the others small, the last as bars.

    Bars are for parts of the body (`occlusion_*`) at their highest level, and for what has one
    level only. Error bars are the standard deviation over draws.

    Args:
        runs: Label -> {corruption: {level: (mean, standard deviation)}}, with level 0.
        units: Corruption -> unit of its level, for the axis.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure.
        published: Corruption -> {label: (levels, percent)}: thin dashed lines in the panels of
            noise; the labels say that they are published, and on what data.
    """
    names = list(dict.fromkeys(name for run in runs.values() for name in run if name != "clean"))
    if not names:
        return
    bars = [name for name in names if _is_bar(name, runs.values())]
    large = [name for name in names if name.endswith("_noise") and name not in bars]
    small = [name for name in names if name not in large + bars]
    columns = min(len(small), _COLUMNS)
    heights = [4.2 * bool(large), 2.6 * -(-len(small) // _COLUMNS), 2.8 * bool(bars)]
    width = max(5, 5.2 * len(large), 2.6 * columns, 1.5 + len(bars))
    figure = new_figure(width, 0.5 + sum(heights))
    figure.suptitle(title, parse_math=False)
    rows = [height for height in heights if height]
    parts = iter(figure.subfigures(len(rows), 1, height_ratios=rows, squeeze=False)[:, 0])
    looks: Looks = line_styles(runs)
    if large:
        panels = next(parts).subplots(1, len(large), sharey=True, squeeze=False)
        _curves(panels, large, runs, units, looks)
        for axes, name in zip(panels.flat, large, strict=True):
            _published(axes, (published or {}).get(name, {}))
        panels[0, 0].legend(loc="lower left", fontsize=7)
    if small:
        lines = -(-len(small) // columns)
        panels = next(parts).subplots(lines, columns, sharey=True, squeeze=False)
        _curves(panels, small, runs, units, looks, size=8)
        if not large:
            panels[0, 0].legend(loc="lower left", fontsize=7)
    if bars:
        _bars(next(parts).subplots(), bars, runs, looks)
    save(figure, path)


def _is_bar(name: str, runs: Iterable[Mapping[str, Levels]]) -> bool:
    return name.startswith("occlusion_") or all(len(run.get(name, ())) <= 2 for run in runs)


def _curves(
    panels: np.ndarray,
    names: Sequence[str],
    runs: Mapping[str, Mapping[str, Levels]],
    units: Mapping[str, str],
    looks: Looks,
    size: int = 10,
) -> None:
    """A panel for each corruption."""
    for axes, name in itertools.zip_longest(panels.flat, names):
        if name is None:
            axes.axis("off")
            continue
        for label, run in runs.items():
            if name in run:
                levels = sorted(run[name])
                means, spreads = zip(*(run[name][level] for level in levels), strict=True)
                axes.errorbar(levels, means, spreads, label=label, capsize=2, **looks[label])
        axes.set_title(name.replace("_", " "), fontsize=size + 1)
        axes.set_xlabel(units.get(name, "level"), fontsize=size)
        axes.tick_params(labelsize=size)
        axes.set(ylim=(0, 101))
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("top-1 (%)", fontsize=size)


def _published(axes: Axes, lines: Mapping[str, Series]) -> None:
    for (label, (levels, percent)), mark in zip(lines.items(), "os^vDPX*hd", strict=False):
        dashes: Any = (0, (4, 3))
        look: dict[str, Any] = {"color": "0.45", "linewidth": 0.9, "linestyle": dashes}
        dots: dict[str, Any] = {"marker": mark, "markersize": 3.5, "markerfacecolor": "white"}
        axes.plot(levels, percent, label=label, zorder=1, **look, **dots)


def _bars(
    axes: Axes,
    names: Sequence[str],
    runs: Mapping[str, Mapping[str, Levels]],
    looks: Looks,
) -> None:
    """Top-1 at the highest level of each corruption, over a paler bar for level 0."""
    width = 0.8 / len(runs)
    highest = {name: max(max(run.get(name, [0.0])) for run in runs.values()) for name in names}
    for i, (label, run) in enumerate(runs.items()):
        found = [name for name in names if highest[name] in run.get(name, {})]
        places = [names.index(name) + (i - (len(runs) - 1) / 2) * width for name in found]
        means = [run[name][highest[name]][0] for name in found]
        spreads = [run[name][highest[name]][1] for name in found]
        colour, clean = looks[label]["color"], [run[name][0.0][0] for name in found]
        axes.bar(places, clean, 0.9 * width, color=colour, alpha=0.25)
        axes.bar(places, means, 0.9 * width, yerr=spreads, color=colour, capsize=2, label=label)
    texts = [name.removeprefix("occlusion_").replace("_", " ") for name in names]
    ticks = [f"{text}\n({highest[name]:g})" for text, name in zip(texts, names, strict=True)]
    axes.set_xticks(range(len(names)), ticks, fontsize=8)
    axes.set(ylim=(0, 101), xlim=(-0.6, max(len(names), _COLUMNS) - 0.4))  # no bar is a wall
    axes.tick_params(labelsize=8)
    axes.set_ylabel("top-1 (%)", fontsize=8)
    parts = any(name.startswith("occlusion_") for name in names)
    title = "hidden parts, at the highest level" if parts else "at the highest level"
    axes.set_title(f"{title}; pale: clean", fontsize=9, loc="left")
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "frameon": False}
    axes.legend(fontsize=7, ncols=4, borderpad=0, **place)
