"""Masked joints during training, and the stages of a mask."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from maskclr_pl.figures.style import new_figure, save, shorten
from maskclr_pl.skeletons.skeleton import Skeleton

_MAX_CLASSES = 60
_HATCHED: dict[str, Any] = {"facecolor": "0.93", "hatch": "////", "edgecolor": "0.7"}


def masked_over_epochs(
    history: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    skeleton: Skeleton,
    path: Path,
    title: str = "Masked joints during training",
) -> list[Path]:
    """Draw the masked share of each joint's tokens per epoch as a heat map.

    `history` maps joints to (epochs from 1, shares in [0, 1]). Epochs without masking are hatched.
    """
    order, lines = _order_by_part(skeleton)
    last = max(epoch for epochs, _ in history.values() for epoch in epochs)
    shares = np.full((len(skeleton), last), np.nan)
    for joint, (epochs, values) in history.items():
        shares[skeleton.joints.index(joint), np.array(epochs) - 1] = values
    figure = new_figure(min(3.6 + 0.16 * last, 10), 1.3 + 0.19 * len(skeleton))
    figure.suptitle(title, size=11)
    axes = figure.subplots()
    image = _draw_heat_map(axes, shares[order], (0.5, last + 0.5))
    _label_joints(axes, skeleton, order, lines)
    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    mean = np.nanmean(shares)
    figure.colorbar(image, ax=axes, label=f"masked share (mean {mean:.2f})", pad=0.02)
    _explain_hatching(figure, shares, "no masking in this epoch")
    return save(figure, path)


def masked_classes(
    shares: Float[np.ndarray, "K V"],
    class_names: Sequence[str],
    skeleton: Skeleton,
    path: Path,
    title: str = "Masked joints during training, by class",
) -> list[Path]:
    """Draw the masked share (K, V) of each joint's tokens per class as a heat map.

    Classes without clips are NaN and hatched. Of more than 60 classes, those that differ most from
    the mean are shown.
    """
    order, lines = _order_by_part(skeleton)
    mean = np.nanmean(shares, axis=0)
    shown = list(range(len(shares)))
    if len(shares) > _MAX_CLASSES:
        deviation = np.nan_to_num(np.abs(shares - mean).max(1))
        shown = sorted(np.argsort(-deviation, kind="stable")[:_MAX_CLASSES].tolist())
        title += f"\nthe {_MAX_CLASSES} of {len(shares)} classes that differ most from the mean"
    rows = np.vstack([mean, shares[shown]])[:, order]
    names = ["mean of all classes", *(shorten(class_names[k], 34) for k in shown)]
    figure = new_figure(3.6 + 0.24 * len(skeleton), 2.2 + 0.17 * len(rows))
    figure.suptitle(title, size=10)
    axes = figure.subplots()
    image = _draw_heat_map(axes, rows, (-0.5, len(skeleton) - 0.5))
    axes.axhline(0.5, color="white", linewidth=2)
    axes.set_yticks(range(len(names)), names, size=7, parse_math=False)
    labels = [skeleton.joints[joint].replace("_", " ") for joint in order]
    axes.set_xticks(range(len(labels)), labels, size=7, rotation=90, parse_math=False)
    for line in lines:
        axes.axvline(line, color="white", linewidth=1.5)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("masked share of the joint's tokens", size=7)
    _explain_hatching(figure, rows, "no clip of this class")
    return save(figure, path)


def masking_stages(
    scores: Float[np.ndarray, "S V"],
    probabilities: Float[np.ndarray, "S V"],
    mask: Bool[np.ndarray, "S V"],
    skeleton: Skeleton,
    path: Path,
    title: str,
    uniform: float,
    stride: int = 1,
) -> list[Path]:
    """Draw attention-guided masking of one person's clip: scores, probabilities, mask.

    Args:
        scores: Importance of each token.
        probabilities: Probabilities of tokens to be drawn first; they sum to 1 per pool.
        mask: True = masked.
        skeleton: Joint layout.
        path: PNG file to write (next to an SVG file).
        title: Title of the figure: clip and settings.
        uniform: Probability of a token under uniform sampling, for comparison.
        stride: Frames per token.
    """
    order, lines = _order_by_part(skeleton)
    span = -0.5, len(mask) * stride - 0.5
    figure = new_figure(12, 1.5 + 0.2 * len(skeleton))
    figure.suptitle(shorten(title, 150), size=10, parse_math=False)
    panels = figure.subplots(1, 3, sharey=True)
    stages = {
        "1. scores: attention received / maximum": scores / max(scores.max(), 1e-12),
        f"2. probability to be drawn first (uniform: {uniform:.2g})": probabilities,
    }
    for axes, (label, values) in zip(panels, stages.items(), strict=False):
        image = _draw_heat_map(axes, values.T[order], span)
        axes.set_title(label, size=9)
        figure.colorbar(image, ax=axes, pad=0.02).ax.tick_params(labelsize=7)
    panels[2].imshow(
        mask.T[order],
        cmap=ListedColormap(["0.93", "0.15"]),
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        extent=(*span, len(order) - 0.5, -0.5),
    )
    count = f"{mask.sum()} of {mask.size} tokens ({100 * mask.mean():.0f} %)"
    panels[2].set_title(f"3. mask: {count} masked (dark)", size=9)
    for axes in panels:
        axes.set_xlabel("frame of the clip", size=8)
        _label_joints(axes, skeleton, order, lines)
    return save(figure, path)


def _order_by_part(skeleton: Skeleton) -> tuple[Int[np.ndarray, " V"], list[float]]:
    """Return joints sorted by body part, and the borders between parts."""
    parts = list(skeleton.parts.values())
    return np.concatenate(parts), list(np.cumsum([len(part) for part in parts])[:-1] - 0.5)


def _draw_heat_map(
    axes: Axes, values: Float[np.ndarray, "R X"], span: tuple[float, float]
) -> AxesImage:
    """Draw values as colors; NaN is hatched."""
    axes.patch.set(**_HATCHED)
    return axes.imshow(
        values,
        cmap="cividis",
        aspect="auto",
        interpolation="nearest",
        extent=(*span, len(values) - 0.5, -0.5),
    )


def _explain_hatching(figure: Figure, values: Float[np.ndarray, "R X"], meaning: str) -> None:
    """Add a legend if any value is NaN."""
    if np.isnan(values).any():
        place: dict[str, Any] = {"loc": "outside lower left", "frameon": False}
        figure.legend(handles=[Patch(**_HATCHED, label=meaning)], fontsize=8, **place)


def _label_joints(
    axes: Axes, skeleton: Skeleton, order: np.ndarray, lines: Sequence[float]
) -> None:
    labels = [skeleton.joints[joint].replace("_", " ") for joint in order]
    axes.set_yticks(range(len(labels)), labels, size=7, parse_math=False)
    axes.tick_params(axis="x", labelsize=7)
    for line in lines:
        axes.axhline(line, color="white", linewidth=1.5)
