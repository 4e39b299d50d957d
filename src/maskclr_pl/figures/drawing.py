"""Drawing of bodies, shared by all figures of poses."""

import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskclr_pl.skeletons.skeleton import Skeleton

_INNER_JOINTS = {
    "spine_mid",
    "spine",
    "torso",
    "belly",
    "chest",
    "hip_center",
    "root",
    "mid_hip",
}


def torso(skeleton: Skeleton) -> list[tuple[int, int]]:
    """Return the outline of the torso of a skeleton without joints between shoulders and hips."""
    corners = ("left_shoulder", "right_shoulder", "right_hip", "left_hip", "left_shoulder")
    if not set(corners) <= set(skeleton.joints) or not _INNER_JOINTS.isdisjoint(skeleton.joints):
        return []
    index = [skeleton.joints.index(name) for name in corners]
    edges = itertools.pairwise(index)
    return [(a, b) for a, b in edges if {(a, b), (b, a)}.isdisjoint(skeleton.bones)]


def fit(
    points: Float[np.ndarray, "*poses V 2"], visible: Bool[np.ndarray, "*poses V"], side: float
) -> Float[np.ndarray, "*poses V 2"]:
    """Center and scale points to a square with side `side`; invisible points become zeros first."""
    points = np.where(visible[..., None], points, 0)
    if not visible.any():
        return points
    low, high = points[visible].min(0), points[visible].max(0)
    scale = side / max(*(high - low), 1e-12)
    return (points - (low + high) / 2) * scale + side / 2


def page(width: float, height: float) -> tuple[Figure, Axes]:
    """Create an empty page with coordinates in inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Draw plain text, in which a dollar sign is not a formula."""
    axes.text(x, y, text, parse_math=False, **style)
