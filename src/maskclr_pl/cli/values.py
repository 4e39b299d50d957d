"""Check the type of every setting before anything is built.

Nodes with a `_target_` are checked against the signature of their class, other keys against
`SETTINGS`, so that any value of a wrong type ends in a one-line error.
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

Location = tuple[int | str, ...]
"""Keys and indices that lead to an element of a value."""

_EXPECTED = {
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
"""Type of a pydantic error -> expected value in plain words."""

_OWN_KEYS = {"_target_", "_args_", "_partial_", "_convert_", "_recursive_"}


def check_groups(words: Sequence[str], command: str) -> None:
    """Check overrides that Hydra does not check: options of groups, and renamed keys.

    Raises:
        InputError: If a group is set to something else or a required group is deleted, or a key
            has been renamed.
    """
    parser, known = OverridesParser.create(), groups(command)
    for word in words:
        try:
            parsed = None if word.startswith("-") else parser.parse_override(word)
        except HydraException:  # Hydra reports it later
            continue
        if parsed is None:
            continue
        group, value = parsed.key_or_group, parsed.value()
        if group in RENAMED_KEYS:
            raise InputError(
                f"{group} is now called {RENAMED_KEYS[group]}; pass {RENAMED_KEYS[group]}=..."
            )
        if (group in known or options(group)) and not parsed.is_sweep_override():
            names = value if isinstance(value, list) else [value]
            named = all(isinstance(name, str) for name in names)
            if (parsed.is_delete() and known.get(group)) or not (parsed.is_delete() or named):
                needed = "" if known.get(group) else f"leave {group}= out, or "
                raise InputError(f"{word}: {needed}use one of {', '.join(options(group))}")
        elif parsed.is_add() and group not in SETTINGS and "." not in group and "/" not in group:
            log.info("note: %s: no setting has this name; only ${%s} reads it", word, group)


def check_values(cfg: DictConfig) -> None:
    """Check types of all values of a configuration, and argument names of classes.

    Missing values (`???`) and interpolations are skipped.

    Raises:
        InputError: For the first value of a wrong type, unknown argument of a class, or class that
            cannot be imported.
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
            return  # becomes an object
    if fits is None or (problems := _problems(fits, value)) is None:
        return
    if "${" in str(value):  # a list with interpolations
        return
    location, words = problems
    for name in location:  # the last element may be missing
        try:
            value = value[name]
        except (LookupError, TypeError):
            break
        key = f"{key}.{name}"
    if not location and _problems(fits, None) is None:
        words.append("null")
    advice = ""
    if isinstance(value, bool | int | float) and "text" in words:
        advice = f"; for text pass {override(key, str(value))}"
    raise InputError(f"{key}={_shown(value)}: expected {' or '.join(words)}{advice}")


def _problems(fits: Callable[..., Any], value: Any) -> tuple[Location, list[str]] | None:
    """Return location and expected values of an element of a wrong type; None if all are right."""
    try:
        # as JSON: lists are fine for tuples, whole numbers for floats, booleans for neither
        fits(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        words = dict.fromkeys(map(_expected, details))
        # for a union (`int | list[int]`) there is an error per member, located by its type
        return details[0]["loc"] if len(details) == 1 else (), list(words)
    return None


def _expected(detail: ErrorDetails) -> str:
    """Describe the expected value of a pydantic error."""
    limits = detail.get("ctx", {})
    if isinstance(limits.get("ge"), int):
        return f"a whole number from {limits['ge']}"
    if words := _EXPECTED.get(detail["type"]):
        return words.format(**limits)
    return detail["msg"].removeprefix("Input should be ").replace("'", "")


def _shown(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


@cache
def _check_of(hint: Any) -> Callable[..., Any] | None:
    """Return a validator for a type hint; None for hints without a schema, such as tensors."""
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        return TypeAdapter(hint, config=config).validate_json
    except Exception:  # pydantic raises various errors for hints without a schema
        return None


def _arguments(node: DictConfig, prefix: str) -> Mapping[str, Any]:
    """Map the arguments of the class of a node to their hints; all keys must be arguments."""
    target = node._target_
    where = f"{prefix}_target_={target}"
    try:
        made = hydra.utils.get_object(target)
        arguments, hints = _signature(made)
    except Exception as error:  # importing it may raise anything
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
    """Return argument names of a class or function (`**` if it takes any), and their hints."""
    parameters = inspect.signature(made).parameters.values()
    names = ["**" if one.kind is one.VAR_KEYWORD else one.name for one in parameters]
    try:
        hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except Exception:  # names imported for type checkers only
        hints = {}
    return names, {name: hint for name, hint in hints.items() if name in names}


def _has_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_target, value.values()))
    return isinstance(value, list) and any(map(_has_target, value))
