"""Trusted classes: what a configuration from a run folder or checkpoint may instantiate.

Such a configuration is plain data until Hydra instantiates it. Before that, every `_target_`,
nested ones included, must be on a list of trusted packages or named by the user.
"""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from maskclr_pl.errors import InputError

TRUSTED = ("maskclr_pl.", "torch.nn.", "torch.optim.")
"""Packages whose classes a model may use, unless the user trusts more."""

_LOGGERS = "lightning.pytorch.loggers."
RUN_PARTS = (
    *TRUSTED,
    "lightning.pytorch.callbacks.",
    *("lightning.Trainer", "lightning.pytorch.trainer.trainer.Trainer"),
    *(f"{_LOGGERS}{name}" for name in ("CSVLogger", "TensorBoardLogger", "WandbLogger")),
    *(f"{_LOGGERS}{name}." for name in ("csv_logs", "tensorboard", "wandb")),
)
"""Packages and classes for a whole run: also its trainer, callbacks and loggers."""

_ARGUMENTS = {
    # others reach `wandb.init`, which takes the address that the user's API key is sent to
    f"{_LOGGERS}WandbLogger": frozenset(
        (
            *("_target_", "project", "entity", "name", "group", "job_type", "tags", "notes", "id"),
            *("log_model", "save_dir"),
        )
    )
}
"""Class with dangerous arguments -> arguments that a file may set."""

_FREE, _FREE_CALLS = 64 << 20, 1000  # bytes of tensors that any model may have, and how many
_DEEPEST, _MOST = 64, 100_000
"""Limits on nesting and size of a configuration, against files made to exhaust the memory."""


def trusted_packages(
    names: Iterable[str], whole_run: bool = False, typed: Any = None
) -> tuple[str, ...]:
    """Return the list for `refuse_untrusted`.

    Args:
        names: Packages that the user trusts (`trusted=`).
        whole_run: Allow trainers, callbacks and loggers as well.
        typed: Configuration of this command, whose classes the user chose.
    """
    own = {str(values["_target_"]) for values in _mappings(typed) if "_target_" in values}
    return (*(RUN_PARTS if whole_run else TRUSTED), *(f"{one}." for one in names), *sorted(own))


def refuse_untrusted(config: Any, path: Path, trusted: tuple[str, ...]) -> None:
    """Check a configuration of plain values before it is instantiated.

    Args:
        config: Dicts, lists and plain values.
        path: Where it comes from, for errors.
        trusted: Prefixes that end in a dot, and full names, see `trusted_packages`.

    Raises:
        InputError: If a `_target_` is not a class that is trusted, a value is a reference, or the
            configuration is too large to be one.
    """
    for value in _values(config, path):
        if isinstance(value, Mapping) and "_target_" in value:
            _check_target(value, path, trusted)
        elif isinstance(value, str) and "${" in value:
            raise InputError(
                f"{path}: holds the reference {value[:80]}, which is not trusted; expected plain "
                "values, and trusted=[...] does not change that"
            )


class BoundedTensors(TorchDispatchMode):
    """Refuse to create tensors with far more values than the weights in a file.

    A few numbers in forged settings could request terabytes, or a million layers.

    Args:
        path: The file, for errors.
        tensors: How many it holds.
    """

    def __init__(self, path: Path, tensors: int):
        super().__init__()
        self._path, self._bytes = path, _FREE + 4 * path.stat().st_size
        self._calls = _FREE_CALLS + 10 * tensors

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count tensors that are created from sizes alone."""
        if args and not any(isinstance(one, torch.Tensor) for one in args):
            sizes = args[0] if isinstance(args[0], list | tuple) else [max(map(_whole, args))]
            self._bytes -= 4 * math.prod(map(_whole, sizes))
            self._calls -= 1
            if self._bytes < 0 or self._calls < 0:
                raise InputError(
                    f"{self._path}: its settings describe a model that is far larger than its "
                    "weights; expected a checkpoint of maskclr_pl.train"
                )
        return func(*args, **(kwargs or {}))


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 1


def _check_target(node: Mapping[Any, Any], path: Path, trusted: tuple[str, ...]) -> None:
    target = str(node["_target_"])[:200]
    if target not in trusted:  # named by the command itself
        _check_class(target, path, trusted)
    known = _ARGUMENTS.get(target)
    if known and (unknown := sorted(str(key) for key in node if key not in known)):
        raise InputError(
            f"{path}: gives {target} the argument {unknown[0]}, which is not trusted; pass "
            "logger=csv, or remove it from the file"
        )


def _check_class(target: str, path: Path, trusted: tuple[str, ...]) -> None:
    found = None
    if target.startswith(trusted):
        try:
            found = hydra.utils.get_object(target)
        except Exception:  # whatever a name that is none leads to
            raise InputError(
                f"{path}: asks for {target}, which this version does not have; use the version of "
                "maskclr_pl that wrote the file"
            ) from None
    # a name can lead out of the package through a module that it imports
    if not inspect.isclass(found) or not f"{found.__module__}.{found.__name__}".startswith(trusted):
        raise InputError(
            f"{path}: asks for {target}, which is not trusted; if you know where the file comes "
            f"from, pass trusted=[{target.split('.')[0]}]"
        )


def _values(config: Any, path: Path) -> Iterator[Any]:
    """Yield the configuration and everything in it."""
    left, seen = [(config, 0)], 0
    while left:
        value, depth = left.pop()
        seen += 1
        if seen > _MOST or depth > _DEEPEST:
            raise InputError(
                f"{path}: its settings are nested more than {_DEEPEST} levels deep or more than "
                f"{_MOST} values; expected a configuration as maskclr_pl.train writes it"
            )
        yield value
        inside: Iterable[Any] = ()
        if isinstance(value, Mapping):
            inside = value.values()
        elif isinstance(value, list | tuple):
            inside = value
        left += [(one, depth + 1) for one in inside]


def _mappings(config: Any) -> Iterator[Mapping[Any, Any]]:
    return (one for one in _values(config, Path()) if isinstance(one, Mapping))
