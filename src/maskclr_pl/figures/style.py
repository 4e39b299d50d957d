"""The look of all figures: colours that colour-blind readers can tell apart, files in one place."""

import itertools
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure

from maskclr_pl.files import atomic_path
from maskclr_pl.types import printable

# Okabe and Ito (2008), without the yellow that is hard to see on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_LINES = ("-", "--", "-.", ":")


def line_styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """A colour and line style for each name, all different for up to 28 names."""
    looks = itertools.product(_LINES, COLORS)
    return {
        name: {"linestyle": line, "color": colour}
        for name, (line, colour) in zip(names, looks, strict=False)
    }


def short(name: str, longest: int) -> str:
    """A name as a label: on one line, and cut with an ellipsis if it is longer.

    Draw it with `parse_math=False`: a dollar sign in a name is no formula.
    """
    text = printable(name)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that needs no display."""
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def any_letters() -> Iterator[None]:
    """No warnings about letters that the font lacks; a box stands in their place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a PNG and, beside it, an SVG; returns both."""
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    with any_letters():
        with atomic_path(files[0]) as partial:
            figure.savefig(partial, dpi=130)
        figure.set_layout_engine("none")  # what was found once need not be found again
        with atomic_path(files[1]) as partial:
            figure.savefig(partial, dpi=130)
    return files
