"""Curves: training over epochs, accuracy over the level of a corruption."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from maskclr_pl.figures.style import line_styles, new_figure, save

Series = tuple[Sequence[float], Sequence[float]]
Levels = Mapping[float, tuple[float, float]]


def training_curves(
    runs: Mapping[str, Mapping[str, Series]], path: Path, title: str = "Training"
) -> None:
    """Loss on training clips and, where there are labels, top-1 on validation clips over epochs.

    Args:
        runs: Label -> {"loss": (epochs, values), "accuracy": (epochs, percent)}; an accuracy may be
            empty.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure.
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
        axes.grid(alpha=0.3)
    loss = "cross-entropy" if tested else "loss"
    panels[0].set(xlabel="epoch", ylabel=f"{loss}, training clips", ylim=(0, None))
    if tested:
        panels[1].set(xlabel="epoch", ylabel="top-1, validation clips (%)", ylim=(0, 101))
    if len(runs) > 1:
        panels[-1].legend(loc="lower right" if tested else "upper right")
    save(figure, path)


def robustness_curves(
    runs: Mapping[str, Mapping[str, Levels]],
    units: Mapping[str, str],
    path: Path,
    title: str = "Accuracy on perturbed test clips",
) -> None:
    """Top-1 over the level of each corruption; bars are the standard deviation over draws.

    Args:
        runs: Label -> {corruption: {level: (mean, standard deviation)}}.
        units: Corruption -> unit of its level, for the axis.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure.
    """
    names = list(dict.fromkeys(name for run in runs.values() for name in run if name != "clean"))
    if not names:
        return
    figure = new_figure(3.6 * len(names), 3.6)
    figure.suptitle(title)
    looks = line_styles(runs)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for label, run in runs.items():
            if name in run:
                levels = sorted(run[name])
                means, spreads = zip(*(run[name][level] for level in levels), strict=True)
                axes.errorbar(levels, means, spreads, label=label, capsize=2, **looks[label])
        axes.set(xlabel=f"{name.replace('_', ' ')}\n({units.get(name, 'level')})", ylim=(0, 101))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("top-1 (%)")
    panels[0].legend(loc="lower left")
    save(figure, path)
