"""Types of settings: every value is checked against a type hint before anything is built.

A node with a `_target_` is checked against the signature of its class, the other keys against
`SETTINGS`. So a value of a wrong type ends in one line, whichever key it was given to.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, get_type_hints

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from maskclr_pl.cli.errors import closest, log
from maskclr_pl.cli.help import groups, options
from maskclr_pl.cli.setting_types import SETTINGS
from maskclr_pl.command_line import override
from maskclr_pl.errors import InputError
from maskclr_pl.runs.moved import RENAMED_KEYS

Place = tuple[int | str, ...]
"""Keys and indices that lead to an element of a value."""

_WORDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "path_type": "text",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "settings by name",
    "mapping_type": "settings by name",
    "needs_python_object": "settings with a _target_",
    "is_instance_of": "settings with a _target_",
    "callable_type": "settings with a _target_",
}
"""Types of pydantic's errors -> what was expected."""

_OWN_KEYS = {"_target_", "_args_", "_partial_", "_convert_", "_recursive_"}


def check_groups(words: Sequence[str], command: str) -> None:
    """Check that overrides of groups name options, as Hydra expects without a check of its own.

    Raises:
        InputError: For a group that is given another value, or taken away though it is needed.
    """
    parser, known = OverridesParser.create(), groups(command)
    for word in words:
        try:
            given = None if word.startswith("-") else parser.parse_override(word)
        except HydraException:  # which Hydra reports
            continue
        if given is None:
            continue
        group, value = given.key_or_group, given.value()
        if group in RENAMED_KEYS:
            raise InputError(
                f"{group} is now called {RENAMED_KEYS[group]}; pass {RENAMED_KEYS[group]}=..."
            )
        if (group in known or options(group)) and not given.is_sweep_override():
            named = isinstance(value, str) or (
                isinstance(value, list) and all(isinstance(one, str) for one in value)
            )
            if (given.is_delete() and known.get(group)) or not (given.is_delete() or named):
                needed = "" if known.get(group) else f"leave {group}= out, or "
                raise InputError(f"{word}: {needed}use one of {', '.join(options(group))}")
        elif given.is_add() and group not in SETTINGS and "." not in group and "/" not in group:
            log.info("note: %s: no setting has this name; only ${%s} reads it", word, group)


def check_values(cfg: DictConfig) -> None:
    """Check the type of every value of a configuration, and the names of arguments of classes.

    Values that are missing (`???`) are left out, and references, whose origin is checked itself.

    Raises:
        InputError: For the first value of a wrong type, an argument that a class does not have,
            or a class that cannot be imported.
    """
    _check_node(cfg, "")


def _check_node(node: DictConfig | ListConfig, prefix: str) -> None:
    hints: Mapping[str, Any] = {}
    if isinstance(node, DictConfig) and "_target_" in node:
        hints = _arguments(node, prefix)
    names: Iterable[Any] = range(len(node)) if isinstance(node, ListConfig) else node
    for name in names:
        key = f"{prefix}{name}"
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        if name in _OWN_KEYS and name != "_args_":
            continue
        value = node[name]
        if isinstance(node, DictConfig):
            hint = hints.get(str(name), Any) if hints else SETTINGS.get(key, Any)
            _check_value(key, value, hint)
        if isinstance(value, DictConfig | ListConfig):
            _check_node(value, f"{key}.")


def _check_value(key: str, value: Any, hint: Any) -> None:
    """Raise an InputError if a value does not fit a type hint."""
    fits = None if hint is Any else _check_of(hint)
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value)
        if _has_target(value) and key not in SETTINGS:
            return  # objects, once they are built
    if fits is None or (problems := _problems(fits, value)) is None:
        return
    if "${" in str(value):  # a list with references
        return
    place, words = problems
    for name in place:  # of an element, which may be missing
        try:
            value = value[name]
        except (LookupError, TypeError):
            break
        key = f"{key}.{name}"
    if not place and _problems(fits, None) is None:
        words.append("null")
    advice = ""
    if isinstance(value, bool | int | float) and "text" in words:
        advice = f"; for text pass {override(key, str(value))}"
    raise InputError(f"{key}={_shown(value)}: expected {' or '.join(words)}{advice}")


def _problems(fits: Callable[..., Any], value: Any) -> tuple[Place, list[str]] | None:
    """The place of an element that does not fit, and what fits there; None if the value fits."""
    try:
        # as JSON: lists are fine for tuples, whole numbers for floats, booleans for neither
        fits(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        words = dict.fromkeys(map(_expected, details))
        # of several alternatives (`int | list[int]`) each has a problem, with its type as a place
        return details[0]["loc"] if len(details) == 1 else (), list(words)
    return None


def _expected(detail: ErrorDetails) -> str:
    """The plain words for one of pydantic's errors."""
    limits = detail.get("ctx", {})
    if isinstance(limits.get("ge"), int):
        return f"a whole number from {limits['ge']}"
    if words := _WORDS.get(detail["type"]):
        return words.format(**limits)
    return detail["msg"].removeprefix("Input should be ").replace("'", "")


def _shown(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


@cache
def _check_of(hint: Any) -> Callable[..., Any] | None:
    """The check of a type hint; None for hints that only make sense for tensors."""
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        return TypeAdapter(hint, config=config).validate_json
    except Exception:  # pydantic raises errors of its own for hints without a schema
        return None


def _arguments(node: DictConfig, prefix: str) -> Mapping[str, Any]:
    """Argument -> type hint of the class of a node, whose keys must all be arguments."""
    target = node._target_
    where = f"{prefix}_target_={target}"
    try:
        made = hydra.utils.get_object(target)
        arguments, hints = _signature(made)
    except Exception as error:  # whatever importing it raises
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: no such class or function ({reason})") from error
    names = [str(name) for name in node if name not in _OWN_KEYS]
    unknown = [name for name in names if name not in arguments]
    if unknown and "**" not in arguments:
        raise InputError(
            f"{prefix}{unknown[0]}: {target.rsplit('.', 1)[-1]} has no argument {unknown[0]}"
            f"{closest(unknown[0], list(arguments))}"
        )
    return hints or {"": Any}


@cache
def _signature(made: Callable[..., Any]) -> tuple[list[str], Mapping[str, Any]]:
    """Names of the arguments of a class or function (`**` if it takes any), and their hints."""
    parameters = inspect.signature(made).parameters.values()
    names = ["**" if one.kind is one.VAR_KEYWORD else one.name for one in parameters]
    try:
        hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except Exception:  # names that exist for type checkers only
        hints = {}
    return names, {name: hint for name, hint in hints.items() if name in names}


def _has_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_target, value.values()))
    return isinstance(value, list) and any(map(_has_target, value))
