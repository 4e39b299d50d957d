"""Text files and archives from strangers, read within bounds.

The one place where YAML, JSON and .npz are read: a small file must not ask for much memory or
time, and whatever is wrong with it is one line.
"""

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskclr_pl.errors import InputError

_LARGEST_YAML = 1 << 20  # bytes; the longest of ours has 20,000
_MOST_NODES, _DEEPEST = 20_000, 64  # of a YAML file, when its aliases are written out
_FREE, _MOST_TIMES = 100 << 20, 100  # bytes that any archive may unpack to, and times its size


def check_no_device(path: str | Path) -> None:
    """Refuse what opening would wait for, and what has no end, before it is opened.

    Raises:
        InputError: If it is a pipe or a device.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise InputError(f"{path}: a pipe or a device, expected a file")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: If it is missing, is not YAML, is no mapping, or is made to fill the memory.
    """
    check_no_device(path)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_YAML + 1)
        if len(data) > _LARGEST_YAML:
            raise InputError(f"{path}: larger than {_LARGEST_YAML >> 20} MB, expected settings")
        text = data.decode("utf-8-sig")
        loader = _Loader(text)
        root = loader.get_single_node()
        _check_size(root)
        values = None if root is None else loader.construct_document(root)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except _TooLargeError:
        raise InputError(
            f"{path}: nested more than {_DEEPEST} levels deep, or more than {_MOST_NODES} values "
            "with its aliases written out; expected settings"
        ) from None
    except Exception as error:  # its constructors raise many kinds, for dates and numbers too
        raise InputError(f"{path}: not readable as YAML ({_reason(error)})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping at the top, found {type(values).__name__}")
    return values


class _TooLargeError(Exception):
    """A file that is made to take long."""


class _Loader(yaml.SafeLoader):
    """Stops at what is too large, which costs time as well as memory."""

    def __init__(self, text: str):
        super().__init__(text)
        self._nodes = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Count a node on the way into it."""
        self._nodes, self._depth = self._nodes + 1, self._depth + 1
        if self._nodes > _MOST_NODES or self._depth > _DEEPEST:
            raise _TooLargeError
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _check_size(root: yaml.Node | None) -> None:
    """Count the nodes with every alias written out; an alias of itself is too deep."""
    left, seen = [(root, 0)], 0
    while left:
        node, depth = left.pop()
        seen += 1
        if seen > _MOST_NODES or depth > _DEEPEST:
            raise _TooLargeError
        if isinstance(node, yaml.MappingNode):
            left += [(one, depth + 1) for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            left += [(one, depth + 1) for one in node.value]


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: If it is missing, is not UTF-8, is not JSON, or is nested too deep.
    """
    check_no_device(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        return json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON, or cut short ({_reason(error)})") from None


def read_arrays(
    path: Path, names: Sequence[str], optional: Sequence[str] = ()
) -> Mapping[str, np.ndarray]:
    """Arrays of an .npz file, without running code in it.

    Args:
        path: The file.
        names: Arrays that must be there.
        optional: Arrays that are read if they are there.

    Raises:
        InputError: If the file is missing, damaged, lacks an array, or unpacks to far more than it
            is.
    """
    check_no_device(path)
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in names if name not in file]:
                held = ", ".join(map(ascii, file.files))[:120] or "nothing"
                raise InputError(f"{path}: holds {held}; expected an array `{missing[0]}`")
            wanted = [*names, *(name for name in optional if name in file)]
            return {name: file[name] for name in wanted}
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = _reason(error)
        if "allow_pickle" in reason:  # NumPy advises to run what is in the file
            reason = "objects in it, or no archive"
        raise InputError(f"{path}: not an .npz file of plain arrays ({reason})") from None


def check_archive(path: str | Path) -> None:
    """Refuse a zip archive that unpacks to far more than it is; other files pass.

    Raises:
        InputError: With both sizes.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(one.file_size for one in archive.infolist())
        # not the sum over its members, which may share their bytes
        packed = os.path.getsize(path)
    if unpacked > max(_FREE, _MOST_TIMES * packed):
        raise InputError(
            f"{path}: {packed >> 10} kB that unpack to {unpacked >> 20} MB; if you know where the "
            "file comes from, save it again without compression"
        )


def _reason(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
