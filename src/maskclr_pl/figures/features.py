"""Features of clips in the plane."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes

from maskclr_pl.figures.style import COLORS, new_figure, save, short
from maskclr_pl.types import InputError

Kind = Literal["tsne", "pca"]
_CLASSES = 20  # that can be told apart by colour and marker
_NEIGHBOURS = 10
_LONGEST = 42  # characters of a name
_MARKERS = "osD"


class Layout(NamedTuple):
    """Points in the plane, and what is measured in the space that they come from."""

    points: Float[np.ndarray, "n 2"]
    axes: tuple[str, str]
    agreement: float
    """Share of the 10 nearest other clips that are of the same class, mean over clips."""
    silhouette: float
    """Rousseeuw 1987: in [-1, 1], near 1 where classes are apart; NaN if it is not defined."""


def lay_out(
    features: Float[np.ndarray, "n D"],
    label: Int[np.ndarray, " n"],
    kind: Kind = "tsne",
    seed: int = 0,
) -> Layout:
    """Features in the plane, by t-SNE (van der Maaten and Hinton 2008) or principal components.

    Features are scaled to length 1, as nearest neighbours compare them; agreement and silhouette
    are of these, not of the plane.

    Args:
        features: At least 10 rows.
        label: Their classes.
        kind: `tsne` keeps neighbours and nothing else: distances between groups, their sizes and
            the axes mean nothing. `pca` is a linear projection.
        seed: Of t-SNE, which starts from the principal components.

    Raises:
        InputError: If there are fewer rows, or values that are no numbers.
    """
    # sklearn takes a second to import, and only this needs it
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    if len(features) < _NEIGHBOURS or not np.isfinite(features).all():
        raise InputError(
            f"features of {len(features)} clips, expected finite ones of {_NEIGHBOURS} or more"
        )
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    if kind == "pca":
        pca = PCA(2, random_state=seed)
        points = pca.fit_transform(unit)
        shares = 100 * pca.explained_variance_ratio_
        axes = tuple(
            f"component {i + 1} ({share:.0f} % of variance)" for i, share in enumerate(shares)
        )
    else:
        perplexity = min(30, (len(unit) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit)
        axes = ("", "")
    # without an argument a clip is no neighbour of its own
    nearest = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(unit) - 1)).fit(unit).kneighbors
    agreement = float((label[nearest(return_distance=False)] == label[:, None]).mean())
    classes = len(np.unique(label))
    defined = 1 < classes < len(unit)
    silhouette = float(silhouette_score(unit, label)) if defined else float("nan")
    return Layout(points, (axes[0], axes[1]), agreement, silhouette)


def features_plane(
    runs: Mapping[str, tuple[Float[np.ndarray, "n D"], Int[np.ndarray, " n"]]],
    class_names: Sequence[str],
    path: Path,
    kind: Kind = "tsne",
    seed: int = 0,
) -> list[Path]:
    """Features of one or more models side by side, a colour and marker for each class.

    Of more than 20 classes the 20 with most clips are coloured and the others grey, which the
    title says; all take part in the layout.

    Args:
        runs: Label -> (features, class of each clip).
        class_names: One name per class.
        path: PNG to write (an SVG goes beside it).
        kind: See `lay_out`.
        seed: See `lay_out`.

    Raises:
        InputError: See `lay_out`.
    """
    labels = np.concatenate([label for _, label in runs.values()])
    counts = np.bincount(labels, minlength=len(class_names))
    there = np.flatnonzero(counts)
    shown = np.sort(there[np.argsort(-counts[there], kind="stable")[:_CLASSES]])
    longest = max(len(short(class_names[k], _LONGEST)) for k in shown)
    figure = new_figure(4.5 * len(runs) + 0.6 + 0.06 * longest, 4.9)
    method = "t-SNE" if kind == "tsne" else "Principal components"
    part = "" if len(shown) == len(there) else f" ({len(shown)} of {len(there)} in colour)"
    figure.suptitle(f"{method} of features of test clips, {len(there)} classes{part}", size=11)
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (name, (features, label)) in zip(panels, runs.items(), strict=True):
        found = lay_out(features, label, kind, seed)
        _scatter(axes, found.points, label, shown, class_names)
        axes.set_title(
            f"{short(name, 40)}\n{_measured(found, features.shape[1])}", size=8, parse_math=False
        )
        axes.set(xlabel=found.axes[0], ylabel=found.axes[1])
    handles, names = panels[0].get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="outside right center", fontsize=7, markerscale=1.4)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return save(figure, path)


def _measured(found: Layout, width: int) -> str:
    return (
        f"in all {width} dimensions: silhouette {found.silhouette:.2f},\n"
        f"{100 * found.agreement:.1f} % of the {_NEIGHBOURS} nearest clips are of the same class"
    )


def _scatter(
    axes: Axes,
    points: Float[np.ndarray, "n 2"],
    label: Int[np.ndarray, " n"],
    shown: Int[np.ndarray, " C"],
    class_names: Sequence[str],
) -> None:
    size = float(np.clip(4000 / max(len(points), 1), 6, 26))
    others = ~np.isin(label, shown)
    axes.scatter(points[others, 0], points[others, 1], s=0.5 * size, color="0.8", linewidths=0)
    for i, k in enumerate(shown):
        colour, marker = COLORS[i % len(COLORS)], _MARKERS[i // len(COLORS)]
        look: dict[str, Any] = {"color": colour, "marker": marker, "s": size}
        look |= {"edgecolors": "white", "linewidths": 0.4, "label": short(class_names[k], _LONGEST)}
        axes.scatter(points[label == k, 0], points[label == k, 1], **look)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.04)
