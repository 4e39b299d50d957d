"""Clip features in the plane: t-SNE and principal components."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes

from maskclr_pl.figures.style import COLORS, new_figure, save, shorten
from maskclr_pl.types import InputError

Projection = Literal["tsne", "pca"]
_MAX_CLASSES = 20  # number of classes that color and marker can distinguish
_NEIGHBORS = 10
_NAME_LENGTH = 42
_MARKERS = "osD"


class Layout(NamedTuple):
    """Projected points, and cluster measures of the original features."""

    points: Float[np.ndarray, "n 2"]
    axes: tuple[str, str]
    agreement: float
    """Share of the 10 nearest clips have the same class, mean over clips."""
    silhouette: float
    """Silhouette (Rousseeuw 1987) in [-1, 1], near 1 for separate classes; NaN if undefined."""


def project(
    features: Float[np.ndarray, "n D"],
    label: Int[np.ndarray, " n"],
    projection: Projection = "tsne",
    seed: int = 0,
) -> Layout:
    """Project features to the plane by t-SNE (van der Maaten and Hinton 2008) or PCA.

    Features are scaled to unit length, as for nearest neighbors. Agreement and silhouette are
    measured on these, not in the plane.

    Args:
        features: At least 10 rows.
        label: Class of each row.
        projection: `tsne` preserves neighbors only: distances between clusters, their sizes and the
            axes have no meaning. `pca` is linear.
        seed: Seed of t-SNE, which is initialized with PCA.

    Raises:
        InputError: If there are fewer rows, or values are not finite.
    """
    # sklearn takes a second to import
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    if len(features) < _NEIGHBORS or not np.isfinite(features).all():
        raise InputError(
            f"features of {len(features)} clips: expected finite features of at least "
            f"{_NEIGHBORS} clips"
        )
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    axes = ("", "")
    if projection == "pca":
        pca = PCA(2, random_state=seed)
        points = pca.fit_transform(unit)
        first, second = 100 * pca.explained_variance_ratio_
        axes = (
            f"component 1 ({first:.0f} % of variance)",
            f"component 2 ({second:.0f} % of variance)",
        )
    else:
        perplexity = min(30, (len(unit) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit)
    # kneighbors() without queries excludes each point itself
    neighbors = NearestNeighbors(n_neighbors=min(_NEIGHBORS, len(unit) - 1)).fit(unit)
    nearest = neighbors.kneighbors(return_distance=False)
    agreement = float((label[nearest] == label[:, None]).mean())
    defined = 1 < len(np.unique(label)) < len(unit)
    silhouette = float(silhouette_score(unit, label)) if defined else float("nan")
    return Layout(points, axes, agreement, silhouette)


def draw_features(
    runs: Mapping[str, tuple[Float[np.ndarray, "n D"], Int[np.ndarray, " n"]]],
    class_names: Sequence[str],
    path: Path,
    projection: Projection = "tsne",
    seed: int = 0,
) -> list[Path]:
    """Draw features of one or several models, with a color and marker per class.

    `runs` maps labels to (features, class of each clip). Of more than 20 classes, the 20 with most
    clips are colored and the others are gray; all take part in the projection. See `project`.
    """
    labels = np.concatenate([label for _, label in runs.values()])
    counts = np.bincount(labels, minlength=len(class_names))
    present = np.flatnonzero(counts)
    colored = np.sort(present[np.argsort(-counts[present], kind="stable")[:_MAX_CLASSES]])
    longest = max(len(shorten(class_names[k], _NAME_LENGTH)) for k in colored)
    figure = new_figure(4.5 * len(runs) + 0.6 + 0.06 * longest, 4.9)
    method = "t-SNE" if projection == "tsne" else "Principal components"
    part = "" if len(colored) == len(present) else f" ({len(colored)} of {len(present)} in color)"
    figure.suptitle(f"{method} of features of test clips, {len(present)} classes{part}", size=11)
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (name, (features, label)) in zip(panels, runs.items(), strict=True):
        layout = project(features, label, projection, seed)
        _scatter(axes, layout.points, label, colored, class_names)
        measures = (
            f"in all {features.shape[1]} dimensions: silhouette {layout.silhouette:.2f},\n"
            f"{100 * layout.agreement:.1f} % of the {_NEIGHBORS} nearest clips have the same class"
        )
        axes.set_title(f"{shorten(name, 40)}\n{measures}", size=8, parse_math=False)
        axes.set(xlabel=layout.axes[0], ylabel=layout.axes[1])
    handles, names = panels[0].get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="outside right center", fontsize=7, markerscale=1.4)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return save(figure, path)


def _scatter(
    axes: Axes,
    points: Float[np.ndarray, "n 2"],
    label: Int[np.ndarray, " n"],
    colored: Int[np.ndarray, " C"],
    class_names: Sequence[str],
) -> None:
    size = float(np.clip(4000 / max(len(points), 1), 6, 26))
    others = ~np.isin(label, colored)
    axes.scatter(points[others, 0], points[others, 1], s=0.5 * size, color="0.8", linewidths=0)
    for i, k in enumerate(colored):
        axes.scatter(
            points[label == k, 0],
            points[label == k, 1],
            s=size,
            color=COLORS[i % len(COLORS)],
            marker=_MARKERS[i // len(COLORS)],
            edgecolors="white",
            linewidths=0.4,
            label=shorten(class_names[k], _NAME_LENGTH),
        )
    axes.set(xticks=[], yticks=[])
    axes.margins(0.04)
