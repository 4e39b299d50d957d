"""Names that published data sets fix: their classes, and samples to leave out."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from maskclr_pl.reading import read_yaml
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


def resolve_class_names(given: str | None, skeleton: Any) -> list[str] | None:
    """Class names from a known set, a file with a name per line, or a YAML file.

    Args:
        given: Name of a set or file; None for the names in the file of the layout, if any.
        skeleton: Name or YAML file of the layout.

    Raises:
        InputError: If a file cannot be read or has no names.
    """
    if given is None:
        if not str(skeleton).lower().endswith((".yaml", ".yml")):
            return None
        found = read_yaml(Path(skeleton)).get("class_names")
        return None if found is None else [str(name) for name in found]
    given = str(given)
    if given in CLASS_NAMES:
        return class_names(given)
    path = Path(given)
    if path.suffix.lower() in (".yaml", ".yml"):
        found = read_yaml(path).get("class_names")
        if not isinstance(found, list):
            raise InputError(f"{path}: expected a list `class_names`")
        return [str(name) for name in found]
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"class_names={path}: cannot be read ({error.strerror}); pass a file with a name per "
            f"line, or {', '.join(CLASS_NAMES)}"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
