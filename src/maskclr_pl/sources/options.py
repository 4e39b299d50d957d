"""Validation of source options, which may be of any type on a command line."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskclr_pl.types import InputError

_MAX_SIDE = 2**20  # of an image


def parse_path(option: str, value: Any) -> Path:
    """Return an option as the path of a file or folder.

    Raises:
        InputError: If it is a list or not a path.
    """
    if not isinstance(value, str | Path):
        raise InputError(f"{option}={value}: expected the name of one file or folder")
    return Path(value)


def parse_frame_size(value: Any) -> tuple[int, int] | None:
    """Return (height, width) in pixels, or None.

    Raises:
        InputError: If it is neither.
    """
    if value is None:
        return None
    sides = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(sides) != 2 or not all(type(side) is int and 0 < side < _MAX_SIDE for side in sides):
        raise InputError(f"frame_size={value}: expected [HEIGHT,WIDTH] in pixels")
    return sides[0], sides[1]


def check_number(option: str, value: Any, low: float, high: float = math.inf) -> None:
    """Check that an option is within [low, high]; an integer `low` requires an integer.

    Raises:
        InputError: If it is not a number, or out of range.
    """
    kinds = (int,) if isinstance(low, int) else (int, float)
    if type(value) not in kinds or not low <= value <= high:
        kind = "a whole number" if kinds == (int,) else "a number"
        end = "" if high == math.inf else f" to {high:g}"
        raise InputError(f"{option}={value}: expected {kind} from {low:g}{end}")
