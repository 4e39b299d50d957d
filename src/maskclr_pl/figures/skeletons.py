"""Values of joints, drawn on a skeleton."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import SubFigure

from maskclr_pl.figures.drawing import torso
from maskclr_pl.figures.style import COLORS, new_figure, save
from maskclr_pl.skeletons.skeleton import Skeleton


def joint_shares(
    shares: Mapping[str, float],
    skeleton: Skeleton,
    pose: Float[np.ndarray, "V 2"],
    path: Path,
    title: str,
    label: str = "masked share of the joint's tokens",
    limit: float | None = 1,
) -> list[Path]:
    """Draw a value per joint as colors on a pose, and as sorted bars with their mean.

    `pose` has image coordinates (y down) of one person. `label` names the values, and `limit` is
    the upper end of their axis (None: the largest value).
    """
    figure = new_figure(9, 4.6)
    figure.suptitle(title)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.3), squeeze=False)[0]
    values = np.array([shares[joint] for joint in skeleton.joints])
    _draw_pose(left, values, skeleton, pose, label)
    order = np.argsort(values)
    axes = right.subplots()
    axes.barh(range(len(order)), values[order], color=COLORS[0])
    names = [skeleton.joints[i].replace("_", " ") for i in order]
    axes.set_yticks(range(len(order)), names, parse_math=False)
    axes.tick_params(axis="y", labelsize=8)
    mean = values.mean()
    axes.axvline(mean, color="black", linestyle="--", label=f"mean {mean:.3g}")
    axes.set(xlabel=label, xlim=(0, limit))
    axes.legend(loc="lower right")
    return save(figure, path)


def _draw_pose(
    figure: SubFigure, values: np.ndarray, skeleton: Skeleton, pose: np.ndarray, label: str
) -> None:
    axes = figure.subplots()
    for child, parent in (*skeleton.bones, *torso(skeleton)):
        axes.plot(*pose[[child, parent]].T, color="0.6", linewidth=2, zorder=1)
    mean = values.mean()
    span = max(abs(values - mean).max(), 0.05 * mean, 1e-6)
    dots = axes.scatter(
        pose[:, 0],
        pose[:, 1],
        c=values,
        s=90,
        cmap="coolwarm",
        vmin=mean - span,
        vmax=mean + span,
        edgecolors="black",
        linewidths=0.6,
        zorder=2,
    )
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.margins(0.15)
    axes.axis("off")
    figure.colorbar(dots, ax=axes, shrink=0.7).set_label(label, size=8)
