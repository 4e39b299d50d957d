"""Confusion matrix and accuracy per class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from maskclr_pl.runs.predictions import Predictions
from maskclr_pl.runs.results import write_table


class ConfusedPair(NamedTuple):
    """Clips of one class that are predicted as another."""

    true: int
    predicted: int
    clips: int
    share: float
    """Share of the clips of the true class, in [0, 1]."""


def confusion(
    label: Int[np.ndarray, " n"], logits: Float[np.ndarray, "n K"]
) -> Int[np.ndarray, "K K"]:
    """Count clips by true class (rows) and predicted class (columns).

    The first of equal logits counts, as for `test/top1`.
    """
    classes = logits.shape[1]
    cell = label * classes + logits.argmax(1)
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def confused_pairs(counts: Int[np.ndarray, "K K"]) -> list[ConfusedPair]:
    """Return confused pairs of classes, sorted by share of the true class, clips and class."""
    totals = counts.sum(1)
    rows, columns = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    pairs = [
        ConfusedPair(int(i), int(j), int(counts[i, j]), float(counts[i, j] / totals[i]))
        for i, j in zip(rows, columns, strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair.share, -pair.clips))


def class_table(counts: Int[np.ndarray, "K K"], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per class, in percent; undefined values are empty.

    Args:
        counts: Confusion matrix, see `confusion`.
        class_names: Names of the classes.

    Returns:
        Rows with class, clips, top1 (recall), precision, confused_with (the most frequent wrong
        prediction) and confused (its share of the clips).
    """
    clips, predicted, correct = counts.sum(1), counts.sum(0), counts.diagonal()
    worst: dict[int, ConfusedPair] = {}
    for pair in confused_pairs(counts):
        worst.setdefault(pair.true, pair)
    rows = []
    for k, name in enumerate(class_names):
        confused = worst.get(k)
        rows.append(
            {
                "class": name,
                "clips": int(clips[k]),
                "top1": round(100 * correct[k] / clips[k], 2) if clips[k] else "",
                "precision": round(100 * correct[k] / predicted[k], 2) if predicted[k] else "",
                "confused_with": class_names[confused.predicted] if confused else "",
                "confused": round(100 * confused.share, 2) if confused else "",
            }
        )
    return rows


def write_class_table(
    folder: Path, predictions: Predictions, class_names: Sequence[str]
) -> Int[np.ndarray, "K K"]:
    """Write `per_class.csv` to a run folder and return the confusion matrix."""
    counts = confusion(predictions.label, predictions.logits)
    write_table(folder / "per_class.csv", class_table(counts, class_names))
    return counts
