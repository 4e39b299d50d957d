"""Bodies on a page: what the pictures of poses share."""

import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskclr_pl.skeletons.skeleton import Skeleton

_INNER = {"spine_mid", "spine", "torso", "belly", "chest", "hip_center", "root", "mid_hip"}


def torso(skeleton: Skeleton) -> list[tuple[int, int]]:
    """The outline of a torso that has no joint between shoulders and hips."""
    corners = ("left_shoulder", "right_shoulder", "right_hip", "left_hip", "left_shoulder")
    if not set(corners) <= set(skeleton.joints) or not _INNER.isdisjoint(skeleton.joints):
        return []
    index = [skeleton.joints.index(name) for name in corners]
    edges = itertools.pairwise(index)
    return [(a, b) for a, b in edges if {(a, b), (b, a)}.isdisjoint(skeleton.bones)]


def fit(
    points: Float[np.ndarray, "*poses V 2"], visible: Bool[np.ndarray, "*poses V"], side: float
) -> Float[np.ndarray, "*poses V 2"]:
    """Points with their common box in the middle of a square; zeros where nothing is visible.

    Args:
        points: In any unit.
        visible: The joints that are there.
        side: Of the square, in inches.
    """
    points = np.where(visible[..., None], points, 0)
    if not visible.any():
        return points
    low, high = points[visible].min(0), points[visible].max(0)
    scale = side / max(*(high - low), 1e-12)
    return (points - (low + high) / 2) * scale + side / 2


def page(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty page whose coordinates are inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def write(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    """A text as it stands: a dollar sign is no formula."""
    axes.text(x, y, text, parse_math=False, **look)
