"""Training curves over epochs, and accuracy over the level of corruptions."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskclr_pl.figures.style import line_styles, new_figure, save

Series = tuple[Sequence[float], Sequence[float]]
LevelScores = Mapping[float, tuple[float, float]]
"""Level -> mean and standard deviation."""
Styles = Mapping[str, Mapping[str, Any]]
_COLUMNS = 4  # panels per row
_PANEL = (2.9, 2.6)  # inches
_SIZE = 9  # points of all text except the title


def training_curves(
    runs: Mapping[str, Mapping[str, Series]],
    path: Path,
    title: str = "Training",
    marks: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Draw training loss and, with labels, validation top-1 over epochs.

    Args:
        runs: Label -> {"loss": (epochs, values), "accuracy": (epochs, percent or empty)}.
        path: PNG file.
        title: Title of the figure.
        marks: Label -> {name: epoch}: a star for `best.ckpt`, a dotted line for the start of a
            stage such as `masking`.
    """
    labeled = any(run["accuracy"][0] for run in runs.values())
    figure = new_figure(9 if labeled else 4.8, 3.6)
    figure.suptitle(title)
    panels = figure.subplots(1, 1 + labeled, squeeze=False)[0]
    styles = line_styles(runs)
    for axes, name in zip(panels, ("loss", "accuracy"), strict=False):
        for label, run in runs.items():
            axes.plot(*run[name], label=label, **styles[label])
            run_marks = (marks or {}).get(label, {})
            _draw_marks(axes, run_marks, run[name], styles[label]["color"], alone=len(runs) == 1)
        axes.grid(alpha=0.3)
    loss = "cross-entropy" if labeled else "loss"
    panels[0].set(xlabel="epoch", ylabel=f"{loss}, training clips", ylim=(0, None))
    if labeled:
        panels[1].set(xlabel="epoch", ylabel="top-1, validation clips (%)", ylim=(0, 101))
    handles, labels = panels[-1].get_legend_handles_labels()
    if len(labels) > 1:
        unique = dict(zip(reversed(labels), reversed(handles), strict=True))
        names = list(dict.fromkeys(labels))
        location = "lower right" if labeled else "upper right"
        panels[-1].legend([unique[name] for name in names], names, loc=location, fontsize=8)
    save(figure, path)


def _draw_marks(
    axes: Axes, marks: Mapping[str, int], values: Series, color: Any, alone: bool
) -> None:
    """Draw lines where stages start, and a star at the epoch of best.ckpt."""
    epochs = list(values[0])
    for name, epoch in marks.items():
        if name != "best.ckpt":
            text = f"{name} from epoch {epoch}" if alone else f"start of {name}"
            axes.axvline(epoch - 0.5, label=text, linestyle=":", linewidth=1.2, color=color)
        elif epoch in epochs:
            axes.plot(
                epoch,
                values[1][epochs.index(epoch)],
                label=f"{name}: epoch {epoch}" if alone else name,
                color=color,
                marker="*",
                markersize=11,
                markeredgecolor="black",
                linestyle="",
                zorder=3,
            )


def robustness_curves(
    runs: Mapping[str, Mapping[str, LevelScores]],
    units: Mapping[str, str],
    path: Path,
    title: str = "Accuracy on corrupted test clips",
    published: Mapping[str, Mapping[str, Series]] | None = None,
) -> None:
    """Draw top-1 over the level of each corruption: noise first, bars last.

    Bars show body parts (`occlusion_*`) at their highest level, and corruptions with one level.
    Error bars are standard deviations.

    Args:
        runs: Label -> {corruption: {level: (mean, standard deviation)}}, including level 0.
        units: Corruption -> unit of its level.
        path: PNG file.
        title: Title of the figure.
        published: Corruption -> {label: (levels, percent)}, drawn as thin dashed lines.
    """
    names = list(dict.fromkeys(name for run in runs.values() for name in run if name != "clean"))
    if not names:
        return
    bars = [name for name in names if _is_bar(name, runs.values())]
    curves = [name for name in names if name not in bars]
    curves.sort(key=lambda name: not name.endswith("_noise"))
    columns = max(1, min(len(curves), _COLUMNS))
    rows = -(-len(curves) // columns)
    width = max(5, _PANEL[0] * columns, (1.5 + len(bars)) * bool(bars))
    figure = new_figure(width, 0.8 + _PANEL[1] * (rows + bool(bars)))
    figure.suptitle(title, parse_math=False)
    grid = figure.add_gridspec(rows + bool(bars), columns)
    styles: Styles = line_styles(runs)
    for i, name in enumerate(curves):
        axes = figure.add_subplot(grid[i // columns, i % columns])
        _draw_curve(axes, name, runs, units, styles, first=i % columns == 0)
        _draw_published(axes, (published or {}).get(name, {}))
    if bars:
        _draw_bars(figure.add_subplot(grid[rows, :]), bars, runs, styles)
    _draw_legend(figure, 2 if columns == 1 else 4)
    save(figure, path)


def _draw_legend(figure: Figure, columns: int) -> None:
    """Draw one legend for all panels below them."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(),
        handles.keys(),
        ncols=columns,
        fontsize=_SIZE,
        loc="outside lower center",
        frameon=False,
    )


def _is_bar(name: str, runs: Iterable[Mapping[str, LevelScores]]) -> bool:
    return name.startswith("occlusion_") or all(len(run.get(name, ())) <= 2 for run in runs)


def _draw_curve(
    axes: Axes,
    name: str,
    runs: Mapping[str, Mapping[str, LevelScores]],
    units: Mapping[str, str],
    styles: Styles,
    first: bool,
) -> None:
    """Draw the panel of a corruption; only the first panel of a row labels the shared axis."""
    for label, run in runs.items():
        if name in run:
            levels = sorted(run[name])
            means, deviations = zip(*(run[name][level] for level in levels), strict=True)
            axes.errorbar(levels, means, deviations, label=label, capsize=2, **styles[label])
    axes.set_title(name.replace("_", " "), fontsize=_SIZE)
    axes.set_xlabel(units.get(name, "level"), fontsize=_SIZE)
    axes.tick_params(labelsize=_SIZE, labelleft=first)
    axes.set(ylim=(0, 101))
    axes.grid(alpha=0.3)
    if first:
        axes.set_ylabel("top-1 (%)", fontsize=_SIZE)


def _draw_published(axes: Axes, curves: Mapping[str, Series]) -> None:
    for (label, (levels, percent)), marker in zip(curves.items(), "os^vDPX*hd", strict=False):
        axes.plot(
            levels,
            percent,
            label=label,
            color="0.45",
            linewidth=0.9,
            linestyle=(0, (4, 3)),
            marker=marker,
            markersize=3.5,
            markerfacecolor="white",
            zorder=1,
        )


def _draw_bars(
    axes: Axes,
    names: Sequence[str],
    runs: Mapping[str, Mapping[str, LevelScores]],
    styles: Styles,
) -> None:
    """Draw top-1 at the highest level of each corruption, over a paler bar for level 0."""
    width = 0.8 / len(runs)
    highest = {name: max(max(run.get(name, [0.0])) for run in runs.values()) for name in names}
    for i, (label, run) in enumerate(runs.items()):
        measured = [name for name in names if highest[name] in run.get(name, {})]
        places = [names.index(name) + (i - (len(runs) - 1) / 2) * width for name in measured]
        clean = [run[name][0.0][0] for name in measured]
        means = [run[name][highest[name]][0] for name in measured]
        deviations = [run[name][highest[name]][1] for name in measured]
        color = styles[label]["color"]
        axes.bar(places, clean, 0.9 * width, color=color, alpha=0.25)
        axes.bar(places, means, 0.9 * width, yerr=deviations, color=color, capsize=2, label=label)
    texts = [name.removeprefix("occlusion_").replace("_", " ") for name in names]
    ticks = [f"{text}\n({highest[name]:g})" for text, name in zip(texts, names, strict=True)]
    axes.set_xticks(range(len(names)), ticks, fontsize=_SIZE)
    # a minimum width of the axis keeps few bars narrow
    axes.set(ylim=(0, 101), xlim=(-0.6, max(len(names), _COLUMNS) - 0.4))
    axes.tick_params(labelsize=_SIZE)
    axes.set_ylabel("top-1 (%)", fontsize=_SIZE)
    parts = any(name.startswith("occlusion_") for name in names)
    title = "occluded parts, at the highest level" if parts else "at the highest level"
    axes.set_title(f"{title}; pale: clean", fontsize=_SIZE, loc="left")
