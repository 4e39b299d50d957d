"""Figures of the HTML report."""

from collections.abc import Mapping
from pathlib import Path

from maskclr_pl.analysis.features import read_features
from maskclr_pl.figures.class_scores import class_score_dots
from maskclr_pl.figures.curves import robustness_curves, training_curves
from maskclr_pl.figures.features import Projection, draw_features
from maskclr_pl.reporting.html import Image
from maskclr_pl.reporting.published_noise import PublishedCurves
from maskclr_pl.reporting.sections import ComparisonGroup
from maskclr_pl.robustness.corruptions import UNITS
from maskclr_pl.robustness.runner import summarize
from maskclr_pl.robustness.tables import POSTER_NOISE, class_scores
from maskclr_pl.runs.read import epoch_markers, read_curves, read_robustness
from maskclr_pl.runs.results import read_table


def draw_group(
    group: ComparisonGroup, folder: Path, suffix: str, published: PublishedCurves | None
) -> Mapping[str, list[Image]]:
    """Draw the figures of models that were tested on the same clips.

    Args:
        group: The models.
        folder: Folder of the figures.
        suffix: Suffix of file names.
        published: Published noise curves to draw.

    Returns:
        Section title -> figures.
    """
    return {
        "Training": _draw_training(group, folder, suffix),
        "Classes": _draw_noisy_classes(group, folder, suffix),
        "Features": _draw_features(group, folder, suffix),
        "Robustness": _draw_robustness(group, folder, suffix, published),
    }


def _draw_training(group: ComparisonGroup, folder: Path, suffix: str) -> list[Image]:
    """Draw loss and accuracy over epochs of the first seeds."""
    curves = {model.label: read_curves(model.runs[0]) for model in group.models}
    if not any(values for run in curves.values() for _, values in run.values()):
        return []
    path = folder / f"training_curves{suffix}.png"
    marks = {model.label: epoch_markers(model.runs[0]) for model in group.models}
    training_curves(curves, path, marks=marks)
    alt = f"Training loss and validation accuracy over epochs: {', '.join(curves)}"
    return [Image(path, alt, f"{alt} (first seed of each).")]


def _draw_robustness(
    group: ComparisonGroup, folder: Path, suffix: str, published: PublishedCurves | None
) -> list[Image]:
    """Draw accuracy over the level of each corruption."""
    summaries = {
        model.label: summarize(row for run in model.runs for row in read_robustness(run))
        for model in group.models
    }
    if not any(len(summary) > 1 for summary in summaries.values()):
        return []
    path = folder / f"robustness{suffix}.png"
    robustness_curves(summaries, UNITS, path, published=published)
    alt = f"Top-1 over the level of each corruption: {', '.join(summaries)}"
    caption = f"{alt}. Error bars: standard deviation over seeds and draws."
    if published:
        caption += (
            " Dashed: digitized from the published figure of MaskCLR, on NTU60-XSub, not on these "
            "data."
        )
    return [Image(path, alt, caption)]


def _draw_noisy_classes(group: ComparisonGroup, folder: Path, suffix: str) -> list[Image]:
    """Draw accuracy per class under noise of the first two models that have it (first seeds)."""
    scores = {}
    for model in group.models:
        table = model.runs[0] / "robustness_classes.csv"
        if table.is_file() and (values := class_scores(read_table(table), *POSTER_NOISE)):
            scores[model.label] = values
    scores = dict(list(scores.items())[:2])
    if len(scores) < 2:
        return []
    path, (noise, sigma) = folder / f"noisy_classes{suffix}.png", POSTER_NOISE
    title = f"Classes under {noise.replace('_', ' ')}, sigma {sigma:g}"
    class_score_dots(scores, path, title)
    alt = f"{title}: {' and '.join(scores)}"
    return [Image(path, alt, f"{alt} (first seed of each).")]


def _draw_features(group: ComparisonGroup, folder: Path, suffix: str) -> list[Image]:
    """Draw the features of up to two models, if `embed` has written them (first seeds)."""
    files = {model.label: model.runs[0] / "features.h5" for model in group.models}
    existing = [(label, file) for label, file in files.items() if file.is_file()][:2]
    clips = {label: read_features(file) for label, file in existing}
    if not clips:
        return []
    class_names = next(iter(clips.values())).attributes["class_names"]
    runs = {label: (run.features, run.label) for label, run in clips.items()}
    images = []
    projections: dict[Projection, str] = {"tsne": "t-SNE", "pca": "Principal components"}
    for projection, name in projections.items():
        path = folder / f"{projection}{suffix}.png"
        draw_features(runs, class_names, path, projection)
        alt = f"{name} of the features of {' and '.join(clips)}"
        images.append(Image(path, alt, f"{alt} (first seed of each)."))
    return images
