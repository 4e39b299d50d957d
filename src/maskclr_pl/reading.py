"""Bounded readers for YAML, JSON and .npz files from untrusted sources.

All of them are read here: a small file must not cost much memory or time, and every error is one
line.
"""

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskclr_pl.errors import InputError
from maskclr_pl.text import one_line

_MAX_YAML = 1 << 20  # bytes; the longest of ours has 20,000
_MAX_NODES, _MAX_DEPTH = 20_000, 64  # of a YAML file, with its aliases written out
_MAX_UNPACKED, _MAX_RATIO = 100 << 20, 100  # bytes any archive may unpack to, and times its size


def check_no_device(path: str | Path) -> None:
    """Refuse pipes and devices, which would block or never end.

    Raises:
        InputError: If the path is a pipe or a device.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise InputError(f"{path}: a pipe or a device, expected a file")


@contextmanager
def _file_errors(path: str | Path) -> Iterator[None]:
    """Turn errors of opening a file into an InputError."""
    check_no_device(path)
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: an impossible name
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path}: cannot be read ({reason})") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        InputError: If it is missing, not YAML, not a mapping, or expands to too many values.
    """
    with _file_errors(path), path.open("rb") as file:
        data = file.read(_MAX_YAML + 1)
    if len(data) > _MAX_YAML:
        raise InputError(f"{path}: larger than {_MAX_YAML >> 20} MB, expected settings")
    try:
        loader = _BoundedLoader(data.decode("utf-8-sig"))
        root = loader.get_single_node()
        _check_size(root)
        values = None if root is None else loader.construct_document(root)
    except _TooLargeError:
        raise InputError(
            f"{path}: nested more than {_MAX_DEPTH} levels deep, or more than {_MAX_NODES} values "
            "with its aliases written out; expected settings"
        ) from None
    except Exception as error:  # constructors of dates and numbers raise many types
        raise InputError(f"{path}: not readable as YAML ({one_line(error)})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping at the top, found {type(values).__name__}")
    return values


class _TooLargeError(Exception):
    """A YAML file that would take long to construct."""


class _BoundedLoader(yaml.SafeLoader):
    """Stops while composing, before a large document costs time and memory."""

    def __init__(self, text: str):
        super().__init__(text)
        self._nodes = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Count a node on the way into it."""
        self._nodes, self._depth = self._nodes + 1, self._depth + 1
        if self._nodes > _MAX_NODES or self._depth > _MAX_DEPTH:
            raise _TooLargeError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _check_size(root: yaml.Node | None) -> None:
    """Count the nodes with every alias written out; a recursive alias exceeds the depth."""
    stack, count = [(root, 0)], 0
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > _MAX_NODES or depth > _MAX_DEPTH:
            raise _TooLargeError
        if isinstance(node, yaml.MappingNode):
            stack += [(child, depth + 1) for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            stack += [(child, depth + 1) for child in node.value]


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: If it is missing, not UTF-8, not JSON, or nested too deep.
    """
    with _file_errors(path):
        data = Path(path).read_bytes()
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON, or cut short ({one_line(error)})") from None


def read_arrays(
    path: Path, names: Sequence[str], optional: Sequence[str] = ()
) -> Mapping[str, np.ndarray]:
    """Read arrays of an .npz file, without running code in it.

    Args:
        path: The file.
        names: Required arrays.
        optional: Arrays that are read if present.

    Raises:
        InputError: If the file is missing or damaged, lacks an array, or unpacks to far more than
            its size.
    """
    check_no_device(path)
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in names if name not in file]:
                content = ", ".join(map(ascii, file.files))[:120] or "nothing"
                raise InputError(f"{path}: holds {content}; expected an array `{missing[0]}`")
            selected = [*names, *(name for name in optional if name in file)]
            return {name: file[name] for name in selected}
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = one_line(error)
        if "allow_pickle" in reason:  # NumPy's message advises to run what is in the file
            reason = "objects in it, or no archive"
        raise InputError(f"{path}: not an .npz file of plain arrays ({reason})") from None


def check_archive(path: str | Path) -> None:
    """Refuse a zip archive that unpacks to far more than its size; other files pass.

    Raises:
        InputError: With both sizes.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    packed = os.path.getsize(path)  # not the sum of its members, which may share their bytes
    if unpacked > max(_MAX_UNPACKED, _MAX_RATIO * packed):
        raise InputError(
            f"{path}: {packed >> 10} kB that unpack to {unpacked >> 20} MB; if you trust the file, "
            "save it again without compression"
        )
