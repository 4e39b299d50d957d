"""The look of all figures: colours that colour-blind readers can tell apart, files in one place."""

import itertools
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

# Okabe and Ito (2008), without the yellow that is hard to see on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_LINES = ("-", "--", "-.", ":")


def line_styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """A colour and line style for each name, all different for up to 28 names."""
    looks = itertools.product(_LINES, COLOURS)
    return {
        name: {"linestyle": line, "color": colour}
        for name, (line, colour) in zip(names, looks, strict=False)
    }


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that needs no display."""
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG and, beside it, an SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=130)
