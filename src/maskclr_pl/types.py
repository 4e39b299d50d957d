"""The values that pass between the parts of the package.

Axes, everywhere: B clips, M persons, N person sequences (the persons that are present), T frames,
V joints, C channels, S = T / stride token steps, D width, K classes, E embedding.
"""

from typing import NamedTuple, TypedDict

from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskclr_pl.errors import InputError, printable

__all__ = ["Batch", "Features", "InputError", "Prediction", "printable"]


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
