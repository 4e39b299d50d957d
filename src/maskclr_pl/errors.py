"""The error for wrong input, whose message commands print without a traceback."""

import re
from collections.abc import Sequence

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST = 800


def printable(text: str) -> str:
    """Escape line breaks and control characters, and shorten text to 800 characters.

    File and recording names may contain any character.
    """
    line = _UNPRINTABLE.sub(lambda match: repr(match[0])[1:-1], text)
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}"


class InputError(ValueError):
    """Wrong user input: a setting, a file or the environment.

    Args:
        message: One line: what is wrong, where, what was expected and what to pass.
        steps: Instructions of several steps, printed below the message, one per line.
    """

    def __init__(self, message: str, steps: Sequence[str] = ()):
        super().__init__("\n  ".join(map(printable, (message, *steps))))
