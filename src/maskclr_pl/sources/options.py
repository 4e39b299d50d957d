"""Options of sources: they come from a command line, where a value may be of any type."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskclr_pl.types import InputError

_LARGEST_SIDE = 2**20  # of an image


def parse_path(option: str, given: Any) -> Path:
    """A file or folder.

    Raises:
        InputError: If it is a list or anything else that is no name.
    """
    if not isinstance(given, str | Path):
        raise InputError(f"{option}={given}: expected the name of one file or folder")
    return Path(given)


def parse_frame_size(given: Any) -> tuple[int, int] | None:
    """(height, width) in pixels, None for none.

    Raises:
        InputError: If it is something else.
    """
    if given is None:
        return None
    sides = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if len(sides) != 2 or not all(type(side) is int and 0 < side < _LARGEST_SIDE for side in sides):
        raise InputError(f"frame_size={given}: expected [HEIGHT,WIDTH] in pixels")
    return sides[0], sides[1]


def check_number(option: str, given: Any, low: float, high: float = math.inf) -> None:
    """Refuse what is not in the range; a range of whole numbers holds whole numbers only.

    Raises:
        InputError: If it is no number, or out of range.
    """
    kinds = (int,) if isinstance(low, int) else (int, float)
    if type(given) not in kinds or not low <= given <= high:
        what = "a whole number from" if kinds == (int,) else "a number from"
        end = "" if high == math.inf else f" to {high:g}"
        raise InputError(f"{option}={given}: expected {what} {low:g}{end}")
