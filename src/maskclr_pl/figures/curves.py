"""Curves: training over epochs, accuracy over the level of a corruption."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskclr_pl.figures.style import line_styles, new_figure, save

Series = tuple[Sequence[float], Sequence[float]]
Levels = Mapping[float, tuple[float, float]]
Looks = Mapping[str, Mapping[str, Any]]
_COLUMNS = 4  # of panels
_PANEL = (2.9, 2.6)  # inches
_SIZE = 9  # of all texts but the title


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
    """Top-1 over the level of each corruption, in panels of one size: noise first, bars last.

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
    lines = [name for name in names if name not in bars]
    lines.sort(key=lambda name: not name.endswith("_noise"))
    columns = max(1, min(len(lines), _COLUMNS))
    rows = -(-len(lines) // columns)
    height = _PANEL[1] * (rows + bool(bars))
    figure = new_figure(max(5, _PANEL[0] * columns, (1.5 + len(bars)) * bool(bars)), 0.8 + height)
    figure.suptitle(title, parse_math=False)
    grid = figure.add_gridspec(rows + bool(bars), columns)
    looks: Looks = line_styles(runs)
    for i, name in enumerate(lines):
        axes = figure.add_subplot(grid[i // columns, i % columns])
        _curve(axes, name, runs, units, looks, first=i % columns == 0)
        _published(axes, (published or {}).get(name, {}))
    if bars:
        _bars(figure.add_subplot(grid[rows, :]), bars, runs, looks)
    _key(figure, 2 if columns == 1 else 4)
    save(figure, path)


def _key(figure: Figure, columns: int) -> None:
    """One key for all panels, below them."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    place: dict[str, Any] = {"loc": "outside lower center", "frameon": False}
    figure.legend(handles.values(), handles.keys(), ncols=columns, fontsize=_SIZE, **place)


def _is_bar(name: str, runs: Iterable[Mapping[str, Levels]]) -> bool:
    return name.startswith("occlusion_") or all(len(run.get(name, ())) <= 2 for run in runs)


def _curve(
    axes: Axes,
    name: str,
    runs: Mapping[str, Mapping[str, Levels]],
    units: Mapping[str, str],
    looks: Looks,
    first: bool,
) -> None:
    """The panel of a corruption; only the first of a row names the axis that they share."""
    for label, run in runs.items():
        if name in run:
            levels = sorted(run[name])
            means, spreads = zip(*(run[name][level] for level in levels), strict=True)
            axes.errorbar(levels, means, spreads, label=label, capsize=2, **looks[label])
    axes.set_title(name.replace("_", " "), fontsize=_SIZE)
    axes.set_xlabel(units.get(name, "level"), fontsize=_SIZE)
    axes.tick_params(labelsize=_SIZE, labelleft=first)
    axes.set(ylim=(0, 101))
    axes.grid(alpha=0.3)
    if first:
        axes.set_ylabel("top-1 (%)", fontsize=_SIZE)


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
    axes.set_xticks(range(len(names)), ticks, fontsize=_SIZE)
    axes.set(ylim=(0, 101), xlim=(-0.6, max(len(names), _COLUMNS) - 0.4))  # no bar is a wall
    axes.tick_params(labelsize=_SIZE)
    axes.set_ylabel("top-1 (%)", fontsize=_SIZE)
    parts = any(name.startswith("occlusion_") for name in names)
    title = "hidden parts, at the highest level" if parts else "at the highest level"
    axes.set_title(f"{title}; pale: clean", fontsize=_SIZE, loc="left")
