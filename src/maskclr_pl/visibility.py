"""The rules for visible joints and for units of coordinates."""

from typing import Literal, TypeVar

import numpy as np
from torch import Tensor

Coordinates = Literal["pixels", "metres"]
"""Pixels: (x, y) in an image, y down, with a score. Meters: (x, y, z) in space, y up, no score."""
DIMENSIONS: dict[str, Literal[2, 3]] = {"pixels": 2, "metres": 3}
"""Number of coordinates of a joint."""
_Array = TypeVar("_Array", np.ndarray, Tensor)


def visible_joints(points: _Array, score: _Array | None = None) -> _Array:
    """Return which joints are visible.

    A joint is visible if its score is above 0. In 3D, and without scores, it is visible unless it
    lies exactly at the origin, because zeros mark missing joints.

    Args:
        points: (..., C) coordinates.
        score: (...) scores; None if there are none.

    Returns:
        (...) bool.

    Example:
        >>> visible_joints(np.array([[3.0, 4.0], [0.0, 0.0]]))
        array([ True, False])
    """
    if score is not None and points.shape[-1] != 3:
        return score > 0
    nonzero: _Array = (points != 0).any(-1)
    return nonzero if score is None else nonzero & (score > 0)


def visible_in_clip(clip: _Array, coordinates: str) -> _Array:
    """Return which joints of a clip are visible.

    Args:
        clip: (..., 3), either (x, y, score) or (x, y, z).
        coordinates: See `Coordinates`.

    Returns:
        (...) bool.
    """
    return clip[..., 2] > 0 if coordinates == "pixels" else visible_joints(clip)
