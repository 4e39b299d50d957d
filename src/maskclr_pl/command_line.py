"""Command lines that can be pasted: values quoted for Hydra's grammar, words for the shell."""

import re
import shlex
from pathlib import Path

_BARE = re.compile(r"[A-Za-z0-9_./-]+")
_WORD = re.compile(
    r"[+-]?(?:[_.]*\d[\d_.]*(?:e[+-]?[\d_]+)?|inf|nan)|true|false|null", re.IGNORECASE
)
"""Texts that Hydra reads as a number, a boolean or null."""


def hydra_value(value: str | Path | list[str]) -> str:
    """A text, path or list of texts as the right-hand side of an override.

    Example:
        >>> hydra_value("runs/a"), hydra_value("my runs/lr=0.1")
        ('runs/a', '"my runs/lr=0.1"')
    """
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    text = str(value)
    if _BARE.fullmatch(text) and not _WORD.fullmatch(text):
        return text
    # OmegaConf would replace ${...}; its escape is a backslash, itself escaped before `${`
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    # Hydra halves the backslashes before a quote and at the end
    quoted = re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), text)
    return f'"{quoted}"'


def override(key: str, value: str | Path | list[str]) -> str:
    """The word `key=value` for a shell.

    Example:
        >>> print(override("resume", "my runs/a"))
        'resume="my runs/a"'
    """
    return shlex.quote(f"{key}={hydra_value(value)}")


def shell_command(name: str, *words: str, **values: str | Path | list[str]) -> str:
    """The line that runs a command.

    Args:
        name: `train`, `evaluate`, ...
        words: Overrides that need no quotes.
        values: Overrides by key, with `__` for a dot.

    Example:
        >>> print(shell_command("report", runs=["a", "b c"]))
        python -m maskclr_pl.report 'runs=[a,"b c"]'
    """
    overrides = [override(key.replace("__", "."), value) for key, value in values.items()]
    return " ".join(["python -m", f"maskclr_pl.{name}", *words, *overrides])
