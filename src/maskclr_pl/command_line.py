"""Command lines to copy and paste: values quoted for Hydra's grammar, overrides for the shell."""

import re
import shlex
from pathlib import Path

_BARE = re.compile(r"[A-Za-z0-9_./-]+")
_TYPED = re.compile(
    r"[+-]?(?:[_.]*\d[\d_.]*(?:e[+-]?[\d_]+)?|inf|nan)|true|false|null", re.IGNORECASE
)
"""Strings that Hydra parses as a number, a boolean or null."""


def hydra_value(value: str | Path | list[str]) -> str:
    """Quote a string, path or list of strings as the value of an override.

    Example:
        >>> hydra_value("runs/a"), hydra_value("my runs/lr=0.1")
        ('runs/a', '"my runs/lr=0.1"')
    """
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    text = str(value)
    if _BARE.fullmatch(text) and not _TYPED.fullmatch(text):
        return text
    # OmegaConf interpolates ${...}; a backslash escapes it and is itself escaped before `${`
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    # Hydra halves the backslashes before a quote and at the end
    quoted = re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text)
    return f'"{quoted}"'


def override(key: str, value: str | Path | list[str]) -> str:
    """Format `key=value` for a shell.

    Example:
        >>> print(override("resume", "my runs/a"))
        'resume="my runs/a"'
    """
    return shlex.quote(f"{key}={hydra_value(value)}")


def shell_command(name: str, *overrides: str, **values: str | Path | list[str]) -> str:
    """Format the shell command that runs one of our commands.

    Args:
        name: `train`, `evaluate`, ...
        overrides: Overrides that need no quotes.
        values: Further overrides by key, with `__` for a dot.

    Example:
        >>> print(shell_command("report", runs=["a", "b c"]))
        python -m maskclr_pl.report 'runs=[a,"b c"]'
    """
    quoted = [override(key.replace("__", "."), value) for key, value in values.items()]
    return " ".join(["python -m", f"maskclr_pl.{name}", *overrides, *quoted])
