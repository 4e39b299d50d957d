"""Class names of published data sets, and the samples that NTU RGB+D leaves out."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from maskclr_pl.reading import read_yaml
from maskclr_pl.types import InputError

CLASS_NAMES = ("ntu60", "ntu120", "kinetics400")
"""Data sets with known class names."""


def read_names(file: str) -> list[str]:
    """Read the lines of a text file in this package, without # comments."""
    text = (files(__name__) / file).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def class_names(name: str) -> list[str]:
    """Return the class names of a published data set, in label order.

    Args:
        name: ntu60, ntu120 or kinetics400.

    Returns:
        60, 120 or 400 distinct names.

    Raises:
        InputError: If the data set is unknown.
    """
    if name not in CLASS_NAMES:
        raise InputError(f"class_names={name}: expected one of {', '.join(CLASS_NAMES)}")
    if name == "ntu60":  # the larger set continues the smaller one
        return read_names("ntu120.txt")[:60]
    return read_names(f"{name}.txt")


def resolve_class_names(value: str | None, skeleton: Any) -> list[str] | None:
    """Return class names of a known data set, or from a text file or a YAML file.

    Args:
        value: Name of a data set or file; None for the names in the YAML file of the joint layout,
            if there are any.
        skeleton: Name or YAML file of the joint layout.

    Raises:
        InputError: If a file cannot be read or has no names.
    """
    if value is None:
        if not str(skeleton).lower().endswith((".yaml", ".yml")):
            return None
        names = read_yaml(Path(skeleton)).get("class_names")
        return None if names is None else [str(name) for name in names]
    if value in CLASS_NAMES:
        return class_names(value)
    path = Path(str(value))
    if path.suffix.lower() in (".yaml", ".yml"):
        names = read_yaml(path).get("class_names")
        if not isinstance(names, list):
            raise InputError(f"{path}: expected a list `class_names`")
        return [str(name) for name in names]
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
