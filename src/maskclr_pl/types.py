"""The values that pass between the parts of the package.

Axes, everywhere: B clips, M persons, N person sequences (the persons that are present), T frames,
V joints, C channels, S = T / stride token steps, D width, K classes, E embedding.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from jaxtyping import Bool, Float, Int
from torch import Tensor

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST = 800


def printable(text: str) -> str:
    """A text as a line: line breaks and what no terminal shows stand as escapes.

    Names of files and of recordings may hold anything. Of more than 800 characters, those in the
    middle are left out.
    """
    line = _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}"


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one line that says what was found, what was expected and what to type; the
    commands print it without a traceback.

    Args:
        message: The line.
        steps: What to do in several steps, a line each, which stand below it, indented.
    """

    def __init__(self, message: str, steps: Sequence[str] = ()):
        super().__init__("\n  ".join(map(printable, (message, *steps))))


class Batch(TypedDict):
    """A batch of clips as the data module delivers it."""

    clip: Float[Tensor, "B M T V C"]
    """(x, y, confidence) or (x, y, z). Absent persons and missing joints are zeros."""
    present: Bool[Tensor, "B M"]
    """Which persons the frames of the clip show, before any transform."""
    sequence: Int[Tensor, " N"]
    """Where the present persons stand among the B * M flattened ones (found on the CPU, so that
    packing them on a GPU needs no synchronisation)."""
    frame: Int[Tensor, "B T"]
    """The frame of the recording that each frame of the clip was taken from; -1 for padding."""
    label: Int[Tensor, " B"]
    index: Int[Tensor, " B"]
    """Row in the split."""


class Features(NamedTuple):
    """What a backbone returns, the same type every time."""

    tokens: Float[Tensor, "N S V D"]
    importance: Float[Tensor, "N T V"] | None = None
    """How much each joint in each frame was attended to: >= 0, each sequence sums to 1, no
    gradient. Only there when it was asked for."""


class Prediction(NamedTuple):
    """What a head makes of the tokens of a clip."""

    logits: Float[Tensor, "B K"]
    embedding: Float[Tensor, "B E"]
    """The features that contrastive losses read (never the logits)."""
    importance: Float[Tensor, "N T V"] | None = None
