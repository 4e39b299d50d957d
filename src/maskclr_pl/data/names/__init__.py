"""Names that published data sets fix: their classes, and samples to leave out."""

from importlib.resources import files

from maskclr_pl.types import InputError

CLASS_NAMES = ("ntu60", "ntu120", "kinetics400")
"""The sets that `class_names` knows."""


def read_names(file: str) -> list[str]:
    """The lines of a text file of this package; lines with # in front are comments."""
    text = (files(__name__) / file).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def class_names(name: str) -> list[str]:
    """Class names of a published data set, in label order.

    Args:
        name: ntu60, ntu120 or kinetics400.

    Returns:
        60, 120 or 400 distinct names.

    Raises:
        InputError: If the set is none of these.
    """
    if name not in CLASS_NAMES:
        raise InputError(f"class names {name!r}: known sets are {', '.join(CLASS_NAMES)}")
    if name == "ntu60":  # the larger set continues the smaller one
        return read_names("ntu120.txt")[:60]
    return read_names(f"{name}.txt")
