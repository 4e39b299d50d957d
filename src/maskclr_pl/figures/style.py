"""Common style of all figures: color-blind safe colors, labels, and PNG plus SVG files."""

import itertools
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure

from maskclr_pl.files import atomic_path
from maskclr_pl.types import printable

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito (2008), without yellow, which is hard to see on white."""
_LINES = ("-", "--", "-.", ":")


def line_styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return a color and line style for each name, unique for up to 28 names."""
    styles = itertools.product(_LINES, COLORS)
    return {
        name: {"linestyle": line, "color": color}
        for name, (line, color) in zip(names, styles, strict=False)
    }


def shorten(name: str, length: int) -> str:
    """Return a name on one line, cut with an ellipsis if it is longer than `length`.

    Draw it with `parse_math=False`, because a dollar sign in a name is not a formula.
    """
    text = printable(name)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def new_figure(width: float, height: float) -> Figure:
    """Create a figure (size in inches) that needs no display."""
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def ignore_missing_glyphs() -> Iterator[None]:
    """Suppress warnings about letters that the font lacks; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a PNG and an SVG file; return both paths."""
    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    with ignore_missing_glyphs():
        with atomic_path(png) as partial:
            figure.savefig(partial, dpi=130)
        figure.set_layout_engine("none")  # the layout is done
        with atomic_path(svg) as partial:
            figure.savefig(partial, dpi=130)
    return [png, svg]
