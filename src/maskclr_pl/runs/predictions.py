"""Ensembles: the weighted sum of the logits of several runs for the same test clips.

Late fusion of streams on raw logits, as in AimCLR, CrosSCLR and STTFormer; clips are matched by
name, where the released scripts match them by position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from maskclr_pl.heads import count_non_finite_as_wrong
from maskclr_pl.reading import read_arrays
from maskclr_pl.types import InputError


@dataclass(frozen=True)
class Predictions:
    """Predictions of a run for n test clips."""

    run: str
    name: np.ndarray
    label: Int[np.ndarray, " n"]
    logits: Float[np.ndarray, "n K"]


def read_predictions(folder: Path) -> Predictions:
    """Read `predictions.npz`.

    Raises:
        InputError: If it is missing or damaged.
    """
    path = folder / "predictions.npz"
    if not path.is_file():
        raise InputError(f"{folder}: no predictions.npz; is it the folder of a tested run?")
    name, label, logits = read_arrays(path, ("name", "label", "logits")).values()
    consistent = logits.ndim == 2 and logits.size and name.shape == label.shape == logits.shape[:1]
    if not consistent or (name.dtype.kind, label.dtype.kind, logits.dtype.kind) != ("U", "i", "f"):
        raise InputError(f"{path}: inconsistent shapes or types of name, label and logits")
    if label.min() < 0 or label.max() >= logits.shape[1]:
        raise InputError(f"{path}: labels outside of the {logits.shape[1]} classes of its logits")
    finite = count_non_finite_as_wrong(torch.from_numpy(logits), torch.from_numpy(label)).numpy()
    return Predictions(str(folder), name, label, finite)


def ensemble(runs: Sequence[Predictions], weights: Sequence[float]) -> Predictions:
    """Weighted sum of logits, with the clips in the order of the first run.

    Args:
        runs: At least one.
        weights: One per run (AimCLR and STTFormer: 0.6 joint, 0.6 bone, 0.4 motion).

    Raises:
        InputError: If the runs were not tested on the same clips with the same labels.
    """
    if len(runs) != len(weights):
        raise InputError(f"{len(runs)} runs but {len(weights)} weights; pass one weight per run")
    first = runs[0]
    total = np.zeros(first.logits.shape, np.float64)
    for run, weight in zip(runs, weights, strict=True):
        total += weight * run.logits[_match_clips(first, run)]
    return Predictions(first.run, first.name, first.label, total.astype(np.float32))


def _match_clips(first: Predictions, other: Predictions) -> Int[np.ndarray, " n"]:
    """Positions of the first run's clips in another run."""
    for run in (first, other):
        if len(np.unique(run.name)) < len(run.name):
            raise InputError(f"{run.run}: several test clips have the same name")
    missing = np.setxor1d(first.name, other.name)
    if len(missing):
        raise InputError(
            f"{first.run} and {other.run} were tested on different clips: {len(missing)} are in "
            f"only one of them, the first is {str(missing[0])!r}"
        )
    if first.logits.shape[1] != other.logits.shape[1]:
        raise InputError(
            f"{first.run} has {first.logits.shape[1]} classes, {other.run} has "
            f"{other.logits.shape[1]}"
        )
    place = np.argsort(other.name)[np.argsort(np.argsort(first.name))]
    wrong = np.flatnonzero(other.label[place] != first.label)
    if len(wrong):
        raise InputError(
            f"{first.run} and {other.run} have different labels for {len(wrong)} clips, the first "
            f"is {str(first.name[wrong[0]])!r}; use runs of the same data"
        )
    return place


def accuracy(predictions: Predictions) -> dict[str, float]:
    """Top-1 and top-5 accuracy in percent, as {"test/top1", "test/top5"}."""
    order = np.argsort(-predictions.logits, axis=1, kind="stable")
    hit = order == predictions.label[:, None]
    return {f"test/top{k}": 100 * float(hit[:, :k].any(1).mean()) for k in (1, 5)}
