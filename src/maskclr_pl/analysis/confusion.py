"""Which classes are recognised, and what they are taken for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from maskclr_pl.runs.predictions import Predictions
from maskclr_pl.runs.results import write_table


class Pair(NamedTuple):
    """Clips of one class that were taken for another."""

    true: int
    predicted: int
    clips: int
    share: float
    """Of the clips of the true class, in [0, 1]."""


def confusion(
    label: Int[np.ndarray, " n"], logits: Float[np.ndarray, "n K"]
) -> Int[np.ndarray, "K K"]:
    """Number of clips by true class (rows) and predicted class (columns).

    Of equal logits the first counts, as for `test/top1`.
    """
    classes = logits.shape[1]
    cell = label * classes + logits.argmax(1)
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def confused_pairs(counts: Int[np.ndarray, "K K"]) -> list[Pair]:
    """Pairs of classes that were confused, the largest share of the true class first.

    Of equal shares the one with more clips comes first, then the one with the smaller classes.
    """
    clips = counts.sum(1)
    rows, columns = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    pairs = [
        Pair(int(a), int(b), int(counts[a, b]), float(counts[a, b] / clips[a]))
        for a, b in zip(rows, columns, strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair.share, -pair.clips))


def per_class(counts: Int[np.ndarray, "K K"], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class, in percent; empty where nothing can be said.

    Args:
        counts: See `confusion`.
        class_names: One name per class.

    Returns:
        Rows with class, clips, top1 (share of its clips that are recognised; empty without clips),
        precision (share of the clips taken for it that are of it; empty if none was),
        confused_with (the class that its other clips are taken for most often; empty if there are
        none) and confused (the share of its clips).
    """
    clips, taken, right = counts.sum(1), counts.sum(0), counts.diagonal()
    worst: dict[int, Pair] = {}
    for pair in confused_pairs(counts):
        worst.setdefault(pair.true, pair)
    rows = []
    for k, name in enumerate(class_names):
        most = worst.get(k)
        rows.append(
            {
                "class": name,
                "clips": int(clips[k]),
                "top1": round(100 * right[k] / clips[k], 2) if clips[k] else "",
                "precision": round(100 * right[k] / taken[k], 2) if taken[k] else "",
                "confused_with": class_names[most.predicted] if most else "",
                "confused": round(100 * most.share, 2) if most else "",
            }
        )
    return rows


def write_per_class(
    folder: Path, predictions: Predictions, class_names: Sequence[str]
) -> Int[np.ndarray, "K K"]:
    """`per_class.csv` of a run folder; returns the confusion matrix that it was made from."""
    counts = confusion(predictions.label, predictions.logits)
    write_table(folder / "per_class.csv", per_class(counts, class_names))
    return counts
