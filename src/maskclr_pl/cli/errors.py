"""Errors of the user's input as one line, with suggestions for misspelled keys."""

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
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from maskclr_pl.cli.help import options
from maskclr_pl.config.paths import config_dir
from maskclr_pl.errors import InputError, printable

log = logging.getLogger("maskclr_pl")

USER_ERRORS = (InputError, HydraException, OmegaConfBaseException)
"""Errors of the user's input, as opposed to bugs."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EMFILE)

_EXTRAS = {"optuna": "sweep", "submitit_slurm": "slurm"}
"""Plugin of Hydra that the configuration uses -> extra that installs it."""


def is_user_error(error: BaseException) -> bool:
    """Return True for errors of the input, a file or a disk, and False for bugs."""
    if isinstance(error, USER_ERRORS):  # one of Hydra's is an OSError as well
        return True
    return isinstance(error, OSError) and (error.filename is not None or error.errno in _DISK)


def error_line(error: BaseException, command: str) -> str:
    """Return the message of a user error on one line.

    Args:
        error: The exception.
        command: Name of the command, whose keys misspelled ones are compared with.
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
        return f"{node[1] if node else 'configuration'}: {' '.join(str(origin).split())}"
    if isinstance(error, MissingMandatoryValue):
        match = re.search(r"(?:full_key|Missing mandatory value): (\S+)", text)
        key = match[1] if match else "a value"
        return f"{key} is missing; pass {key}=..."
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        return _unknown_option(match[1], match[2], text)
    if match := re.search(r"Could not override '([^']+)'", text):
        missing = re.search(r"Key '([^']+)' is not in struct", text)
        reason = f": there is no {missing[1]!r}" if missing else ""
        suggestion = _suggestion(match[1], command)
        return f"{match[1]}=... cannot be set{reason}{suggestion}; --cfg job shows every key"
    return " ".join(text.split("\n\n")[0].split())


def closest(name: str, names: Sequence[str]) -> str:
    """Return ` (did you mean NAME?)` if one of the names is similar, else an empty string."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _unknown_option(group: str, name: str, text: str) -> str:
    if name in _EXTRAS:
        return f"{name} is not installed; run pip install 'maskclr_pl[{_EXTRAS[name]}]'"
    match = re.search(r"Available options in '[^']*':\n((?:\s+\S+\n?)+)", text)
    names = match[1].split() if match else []
    listed = f"; {group}= can be {', '.join(names)}" if names else ""
    return f"no {group} named {name!r}{closest(name, names)}{listed}"


def _suggestion(key: str, command: str) -> str:
    """Suggest an existing key: similar, in another option of its group, or with the same name."""
    GlobalHydra.instance().clear()
    groups = [path.name for path in config_dir().iterdir() if path.is_dir()]
    overrides = [word for word in sys.argv[1:] if word.partition("=")[0] in groups]
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            try:
                cfg = _compose(command, overrides)
            except (HydraException, OmegaConfBaseException):  # several options of a sweep
                overrides = []
                cfg = _compose(command, overrides)
            group = key.partition(".")[0]
            option = cfg.hydra.runtime.choices.get(group)
            del cfg.hydra
            keys = _flat_keys(OmegaConf.to_container(cfg))
            if match := difflib.get_close_matches(key, keys, n=1, cutoff=0.9):
                return f" (did you mean {match[0]}?)"
            if option is not None and (others := _options_with(key, command, overrides)):
                missing = f"{group}={option} has no {key.partition('.')[2]}"
                return f" ({missing}; {', '.join(others)} {'has' if len(others) == 1 else 'have'})"
    except (HydraException, OmegaConfBaseException):
        return ""
    last = key.rpartition(".")[2]
    same_name = [name for name in keys if name.rpartition(".")[2] == last]
    similar = difflib.get_close_matches(key, keys, n=1)
    contains = [name for name in keys if len(last) > 3 and last in name.rpartition(".")[2]]
    matches = same_name or similar or sorted(contains, key=len)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _compose(command: str, overrides: Sequence[str]) -> DictConfig:
    cfg = hydra.compose(command, list(overrides), return_hydra_config=True)
    OmegaConf.set_struct(cfg, False)
    return cfg


def _options_with(key: str, command: str, overrides: Sequence[str]) -> list[str]:
    """Other options of the group of a key that have this key, such as `loss=maskclr`."""
    group, _, name = key.partition(".")
    if not name:
        return []
    others = [word for word in overrides if word.partition("=")[0] != group]
    having = []
    for option in options(group):
        try:
            cfg = _compose(command, [*others, f"{group}={option}"])
            del cfg.hydra
        except (HydraException, OmegaConfBaseException):  # it needs options of other groups
            continue
        if key in _flat_keys(OmegaConf.to_container(cfg)):
            having.append(f"{group}={option}")
    return having


def _flat_keys(tree: Any, prefix: str = "") -> list[str]:
    keys = []
    for key, value in tree.items() if isinstance(tree, dict) else ():
        keys += [f"{prefix}{key}", *_flat_keys(value, f"{prefix}{key}.")]
    return keys
