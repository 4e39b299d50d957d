"""What was hidden in training, and how a mask comes about."""

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

from maskclr_pl.figures.style import new_figure, save, short
from maskclr_pl.skeletons.skeleton import Skeleton

_ROWS = 60  # classes that are shown at most
_HATCHED: dict[str, Any] = {"facecolor": "0.93", "hatch": "////", "edgecolor": "0.7"}


def masked_over_epochs(
    history: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    skeleton: Skeleton,
    path: Path,
    title: str = "What was hidden in training",
) -> list[Path]:
    """The share of each joint's tokens that was hidden in each epoch, as a heat map.

    Epochs without masking are hatched.

    Args:
        history: Joint -> (epochs from 1, shares in [0, 1]).
        skeleton: Joints and their order.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure.
    """
    order, lines = _by_part(skeleton)
    last = max(epoch for epochs, _ in history.values() for epoch in epochs)
    shares = np.full((len(skeleton), last), np.nan)
    for joint, (epochs, values) in history.items():
        shares[skeleton.joints.index(joint), np.array(epochs) - 1] = values
    figure = new_figure(min(3.6 + 0.16 * last, 10), 1.3 + 0.19 * len(skeleton))
    figure.suptitle(title, size=11)
    axes = figure.subplots()
    image = _heat(axes, shares[order], (0.5, last + 0.5))
    _joints(axes, skeleton, order, lines)
    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    mean = np.nanmean(shares)
    figure.colorbar(image, ax=axes, label=f"share hidden (mean {mean:.2f})", pad=0.02)
    _hatch_key(figure, shares, "no masking in this epoch")
    return save(figure, path)


def masked_classes(
    shares: Float[np.ndarray, "K V"],
    class_names: Sequence[str],
    skeleton: Skeleton,
    path: Path,
    title: str = "What was hidden in training, by class",
) -> list[Path]:
    """The share of each joint's tokens that was hidden in the clips of each class.

    Of more than 60 classes those that differ most from the mean of all are shown, which the title
    then says. Classes without a clip are hatched.

    Args:
        shares: In [0, 1]; NaN where a class was never seen.
        class_names: One name per class.
        skeleton: The joints.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure.
    """
    order, lines = _by_part(skeleton)
    mean = np.nanmean(shares, axis=0)
    chosen = list(range(len(shares)))
    if len(shares) > _ROWS:
        far = np.nan_to_num(np.abs(shares - mean).max(1))
        chosen = sorted(np.argsort(-far, kind="stable")[:_ROWS].tolist())
        title = f"{title}\nthe {_ROWS} of {len(shares)} classes that differ most from the mean"
    rows = np.vstack([mean, shares[chosen]])[:, order]
    names = ["mean of all classes", *(short(class_names[k], 34) for k in chosen)]
    figure = new_figure(3.6 + 0.24 * len(skeleton), 2.2 + 0.17 * len(rows))
    figure.suptitle(title, size=10)
    axes = figure.subplots()
    image = _heat(axes, rows, (-0.5, len(skeleton) - 0.5))
    axes.axhline(0.5, color="white", linewidth=2)
    axes.set_yticks(range(len(names)), names, size=7, parse_math=False)
    labels = [skeleton.joints[joint].replace("_", " ") for joint in order]
    axes.set_xticks(range(len(labels)), labels, size=7, rotation=90, parse_math=False)
    for line in lines:
        axes.axvline(line, color="white", linewidth=1.5)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("share of the joint's tokens that was hidden", size=7)
    _hatch_key(figure, rows, "no clip of this class")
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
    """Attention-guided masking of one person's clip: scores, probabilities, mask.

    Args:
        scores: Importance of each item that can be hidden, on its tokens.
        probabilities: Of the items of a pool to be drawn first; their sum over a pool is 1.
        mask: True is hidden.
        skeleton: The joints.
        path: PNG to write (an SVG goes beside it).
        title: Above the figure: clip and settings.
        uniform: The probability of an item if all were alike, for comparison.
        stride: Frames of a token.
    """
    order, lines = _by_part(skeleton)
    frames = len(mask) * stride
    figure = new_figure(12, 1.5 + 0.2 * len(skeleton))
    figure.suptitle(short(title, 150), size=10, parse_math=False)
    panels = figure.subplots(1, 3, sharey=True)
    relative = scores / max(scores.max(), 1e-12)
    labels = (
        "1. scores: attention received / maximum",
        f"2. probability to be drawn first (uniform: {uniform:.2g})",
    )
    for axes, values, label in zip(panels, (relative, probabilities), labels, strict=False):
        image = _heat(axes, values.T[order], (-0.5, frames - 0.5))
        axes.set_title(label, size=9)
        figure.colorbar(image, ax=axes, pad=0.02).ax.tick_params(labelsize=7)
    two = ListedColormap(["0.93", "0.15"])
    span = (-0.5, frames - 0.5, len(order) - 0.5, -0.5)
    look: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "extent": span}
    panels[2].imshow(mask.T[order], cmap=two, vmin=0, vmax=1, **look)
    count = f"{mask.sum()} of {mask.size} tokens ({100 * mask.mean():.0f} %)"
    panels[2].set_title(f"3. mask: {count} hidden (dark)", size=9)
    for axes in panels:
        axes.set_xlabel("frame of the clip", size=8)
        _joints(axes, skeleton, order, lines)
    return save(figure, path)


def _by_part(skeleton: Skeleton) -> tuple[Int[np.ndarray, " V"], list[float]]:
    """Joints in the order of the body's parts, and where a part ends."""
    parts = list(skeleton.parts.values())
    return np.concatenate(parts), list(np.cumsum([len(part) for part in parts])[:-1] - 0.5)


def _heat(axes: Axes, values: Float[np.ndarray, "R X"], span: tuple[float, float]) -> AxesImage:
    """Colours from the smallest to the largest value; hatched where there is none."""
    axes.patch.set(**_HATCHED)
    return axes.imshow(
        values,
        cmap="cividis",
        aspect="auto",
        interpolation="nearest",
        extent=(*span, len(values) - 0.5, -0.5),
    )


def _hatch_key(figure: Figure, values: Float[np.ndarray, "R X"], meaning: str) -> None:
    """What hatching means, where there is any."""
    if np.isnan(values).any():
        place: dict[str, Any] = {"loc": "outside lower left", "frameon": False}
        figure.legend(handles=[Patch(**_HATCHED, label=meaning)], fontsize=8, **place)


def _joints(axes: Axes, skeleton: Skeleton, order: np.ndarray, lines: Sequence[float]) -> None:
    labels = [skeleton.joints[joint].replace("_", " ") for joint in order]
    axes.set_yticks(range(len(labels)), labels, size=7, parse_math=False)
    axes.tick_params(axis="x", labelsize=7)
    for line in lines:
        axes.axhline(line, color="white", linewidth=1.5)
