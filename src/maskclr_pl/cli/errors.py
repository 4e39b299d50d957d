"""The one line that a command ends with when its configuration or its input is wrong."""

import difflib
import errno
import logging
import re
import sys
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from maskclr_pl.cli.help import options
from maskclr_pl.config.paths import config_dir
from maskclr_pl.errors import InputError, printable

log = logging.getLogger("maskclr_pl")

USER_ERRORS = (InputError, HydraException, OmegaConfBaseException)
"""Errors of what the user gave, as opposed to bugs."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EMFILE)

_EXTRAS = {"optuna": "sweep", "submitit_slurm": "slurm"}
"""Plugins of Hydra that the configuration names -> what to install them by."""


def is_user_error(error: BaseException) -> bool:
    """Whether an error is about what the user gave, a file or a disk, and no bug."""
    if isinstance(error, USER_ERRORS):  # one of Hydra's is an OSError, too
        return True
    return isinstance(error, OSError) and (error.filename is not None or error.errno in _DISK)


def error_line(error: BaseException, command: str) -> str:
    """The message of an error about the configuration or the input, on one line.

    Args:
        error: What was raised.
        command: The command that ran, whose keys a misspelt one is compared with.
    """
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    for link in chain:
        if isinstance(link, InputError):
            return str(link)
    origin = chain[-1]
    if isinstance(origin, OSError) and not isinstance(origin, USER_ERRORS):
        place = f"{origin.filename}: " if origin.filename else ""
        return printable(f"{place}{origin.strerror or origin}")
    text = "\n".join(str(link) for link in chain)
    if isinstance(error, InstantiationException):
        node = re.search(r"full_key: (\S+)", text)
        return f"{node.group(1) if node else 'configuration'}: {' '.join(str(origin).split())}"
    if isinstance(error, MissingMandatoryValue):
        match = re.search(r"full_key: (\S+)", text)
        match = match or re.search(r"Missing mandatory value: (\S+)", text)
        key = match.group(1) if match else "a value"
        return f"{key} is missing; type {key}=..."
    option = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if option:
        group, name = option.groups()
        found = re.search(r"Available options in '[^']*':\n((?:\s+\S+\n?)+)", text)
        names = found.group(1).split() if found else []
        listed = f"; {group}= can be {', '.join(names)}" if names else ""
        if name in _EXTRAS:
            return f"{name} is not installed; type pip install 'maskclr_pl[{_EXTRAS[name]}]'"
        return f"no {group} named {name!r}{closest(name, names)}{listed}"
    key_error = re.search(r"Could not override '([^']+)'", text)
    if key_error:
        key = key_error.group(1)
        known = re.search(r"Key '([^']+)' is not in struct", text)
        missing = f": there is no {known.group(1)!r}" if known else ""
        missing += _suggestion(key, command)
        return f"{key}=... cannot be set{missing}; --cfg job shows every key"
    return " ".join(text.split("\n\n")[0].split())


def closest(name: str, names: Sequence[str]) -> str:
    """` (did you mean NAME?)` if one of the names is spelled much like a name, else nothing."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _suggestion(key: str, command: str) -> str:
    """The key that was meant: spelled alike, or of another option of its group, or elsewhere."""
    GlobalHydra.instance().clear()
    words = [word.partition("=") for word in sys.argv[1:]]
    typed = ["".join(word) for word in words if word[0] and (config_dir() / word[0]).is_dir()]
    path = key.split(".")
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            try:
                tree, chosen = _composed(command, typed)
            except (HydraException, OmegaConfBaseException):  # several options of a sweep
                typed = []
                tree, chosen = _composed(command, typed)
            if alike := _alike(tree, path, cutoff=0.8):
                return f" (did you mean {'.'.join(alike)}?)"
            if having := _options_with(path, command, typed, chosen):
                group = path[0]
                missing = f"{group}={chosen[group]} has no {'.'.join(path[1:])}"
                return f" ({missing}; {', '.join(having)} {'has' if len(having) == 1 else 'have'})"
    except (HydraException, OmegaConfBaseException):
        return ""
    alike = _alike(tree, path, cutoff=0.6) or _elsewhere(key, _keys(tree, ""))
    return f" (did you mean {'.'.join(alike)}?)" if alike else ""


def _composed(command: str, overrides: list[str]) -> tuple[dict[Any, Any], dict[str, str]]:
    """The tree of a command's keys, and group -> chosen option."""
    cfg = hydra.compose(command, overrides, return_hydra_config=True)
    chosen = {group: str(option) for group, option in cfg.hydra.runtime.choices.items()}
    tree = OmegaConf.to_container(cfg)
    assert isinstance(tree, dict)
    del tree["hydra"]
    return tree, chosen


def _alike(tree: Any, path: Sequence[str], cutoff: float) -> list[str]:
    """The path in a tree that is spelled like another, level by level; empty if there is none."""
    if not isinstance(tree, dict):
        return []
    for name in difflib.get_close_matches(path[0], list(map(str, tree)), cutoff=cutoff):
        if len(path) == 1:
            return [name]
        if rest := _alike(tree[name], path[1:], cutoff):
            return [name, *rest]
    return []


def _options_with(
    path: Sequence[str], command: str, typed: Sequence[str], chosen: dict[str, str]
) -> list[str]:
    """The other options of the group of a key that have this key, such as `loss=maskclr`."""
    group = path[0]
    if chosen.get(group) is None or len(path) == 1:
        return []
    others = [word for word in typed if word.partition("=")[0] != group]
    having = []
    for option in options(group):
        try:
            tree, _ = _composed(command, [*others, f"{group}={option}"])
        except (HydraException, OmegaConfBaseException):  # it needs other options beside it
            continue
        if _alike(tree, path, cutoff=1.0):
            having.append(f"{group}={option}")
    return having


def _elsewhere(key: str, keys: Sequence[str]) -> list[str]:
    """A key with the same last name, one spelled alike, or one whose last name has this inside."""
    last = key.rsplit(".", 1)[-1]
    names = {known: known.rsplit(".", 1)[-1] for known in keys if known != key}
    same = [known for known, name in names.items() if name == last]
    inside = [known for known in names if len(last) > 3 and last in names[known]]
    inside.sort(key=lambda known: len(names[known]))
    return (same or difflib.get_close_matches(key, keys, n=1) or inside)[:1]


def _keys(tree: Any, prefix: str) -> list[str]:
    keys = []
    for key, value in tree.items() if isinstance(tree, dict) else ():
        keys += [f"{prefix}{key}", *_keys(value, f"{prefix}{key}.")]
    return keys
