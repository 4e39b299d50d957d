"""Values that are passed between the parts of the package.

Axes, everywhere: B clips, M persons, N person sequences (the persons that are present), T frames,
V joints, C channels, S = T / stride token steps, D width, K classes, E embedding.
"""

from typing import NamedTuple, TypedDict

from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskclr_pl.errors import InputError, printable

__all__ = ["Batch", "Features", "InputError", "Prediction", "printable"]


class Batch(TypedDict):
    """A batch of clips from the data module."""

    clip: Float[Tensor, "B M T V C"]
    """(x, y, confidence) or (x, y, z). Absent persons and missing joints are zeros."""
    present: Bool[Tensor, "B M"]
    """Persons who are visible in the clip, before any transform."""
    sequence: Int[Tensor, " N"]
    """Indices of the present persons among the B * M flattened ones, computed on the CPU so that
    packing persons on a GPU needs no synchronization."""
    frame: Int[Tensor, "B T"]
    """Frame of the recording that each frame of the clip was taken from; -1 for padding."""
    label: Int[Tensor, " B"]
    index: Int[Tensor, " B"]
    """Row in the split."""


class Features(NamedTuple):
    """Output of a backbone."""

    tokens: Float[Tensor, "N S V D"]
    importance: Float[Tensor, "N T V"] | None = None
    """Attention that each joint received in each frame: >= 0, each sequence sums to 1, no gradient;
    None unless requested."""


class Prediction(NamedTuple):
    """Output of a head."""

    logits: Float[Tensor, "B K"]
    embedding: Float[Tensor, "B E"]
    """Features that contrastive losses read (never the logits)."""
    importance: Float[Tensor, "N T V"] | None = None
