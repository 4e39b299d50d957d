"""Values of joints, shown on a skeleton."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import SubFigure

from maskclr_pl.figures.drawing import torso
from maskclr_pl.figures.style import new_figure, save
from maskclr_pl.skeletons.skeleton import Skeleton


def joint_shares(
    shares: Mapping[str, float],
    skeleton: Skeleton,
    pose: Float[np.ndarray, "V 2"],
    path: Path,
    title: str,
    what: str = "share of the tokens of the joint that was hidden",
    limit: float | None = 1,
) -> list[Path]:
    """A value per joint as colours on a pose, and as sorted bars with the mean as a line.

    Args:
        shares: Joint name -> share in [0, 1].
        skeleton: Layout of the pose.
        pose: Image-plane positions (y down) of one person.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure.
        what: The value is; the label of its axis.
        limit: Right end of the axis; None is that of the largest value.
    """
    figure = new_figure(9, 4.6)
    figure.suptitle(title)
    panels = figure.subfigures(1, 2, width_ratios=(1, 1.3), squeeze=False)
    left, right = panels[0]
    values = np.array([shares[joint] for joint in skeleton.joints])
    _on_pose(left, values, skeleton, pose, what)
    order = np.argsort(values)
    axes = right.subplots()
    axes.barh(range(len(order)), values[order], color="#0072B2")
    names = [skeleton.joints[i].replace("_", " ") for i in order]
    axes.set_yticks(range(len(order)), names, parse_math=False)
    axes.tick_params(axis="y", labelsize=8)
    mean = values.mean()
    axes.axvline(mean, color="black", linestyle="--", label=f"mean {mean:.3g}")
    axes.set(xlabel=what, xlim=(0, limit))
    axes.legend(loc="lower right")
    return save(figure, path)


def _on_pose(
    figure: SubFigure, values: np.ndarray, skeleton: Skeleton, pose: np.ndarray, what: str
) -> None:
    axes = figure.subplots()
    for child, parent in (*skeleton.bones, *torso(skeleton)):
        axes.plot(*pose[[child, parent]].T, color="0.6", linewidth=2, zorder=1)
    span = max(abs(values - values.mean()).max(), 0.05 * values.mean(), 1e-6)
    dots = axes.scatter(
        pose[:, 0],
        pose[:, 1],
        c=values,
        s=90,
        cmap="coolwarm",
        vmin=values.mean() - span,
        vmax=values.mean() + span,
        edgecolors="black",
        linewidths=0.6,
        zorder=2,
    )
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.margins(0.15)
    axes.axis("off")
    figure.colorbar(dots, ax=axes, shrink=0.7).set_label(what, size=8)
