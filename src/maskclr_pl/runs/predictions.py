"""Several runs as one: the weighted sum of what they say of the same test clips.

Late fusion of streams as AimCLR, CrosSCLR and STTFormer do it, on raw logits; but clips are matched
by name, where the released scripts match them by position.
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
    """What a run says of n test clips."""

    run: str
    name: np.ndarray
    label: Int[np.ndarray, " n"]
    logits: Float[np.ndarray, "n K"]


def read_predictions(folder: Path) -> Predictions:
    """`predictions.npz` of a run.

    Raises:
        InputError: If there is none, or it is damaged.
    """
    path = folder / "predictions.npz"
    if not path.is_file():
        raise InputError(f"{folder}: no predictions.npz; is it a run folder with a test?")
    name, label, logits = read_arrays(path, ("name", "label", "logits")).values()
    fits = logits.ndim == 2 and logits.size and name.shape == label.shape == logits.shape[:1]
    if not fits or (name.dtype.kind, label.dtype.kind, logits.dtype.kind) != ("U", "i", "f"):
        raise InputError(f"{path}: its arrays do not belong together")
    if label.min() < 0 or label.max() >= logits.shape[1]:
        raise InputError(f"{path}: labels beyond the {logits.shape[1]} classes of its logits")
    judged = count_non_finite_as_wrong(torch.from_numpy(logits), torch.from_numpy(label)).numpy()
    return Predictions(str(folder), name, label, judged)


def ensemble(runs: Sequence[Predictions], weights: Sequence[float]) -> Predictions:
    """The weighted sum of logits, clips in the order of the first run.

    Args:
        runs: At least one.
        weights: One for each (AimCLR and STTFormer: 0.6 joint, 0.6 bone, 0.4 motion).

    Raises:
        InputError: If the runs were not tested on the same clips with the same labels.
    """
    if len(runs) != len(weights):
        raise InputError(f"{len(runs)} runs but {len(weights)} weights; give one weight per run")
    first = runs[0]
    total = np.zeros(first.logits.shape, np.float64)
    for run, weight in zip(runs, weights, strict=True):
        total += weight * run.logits[_matching(first, run)]
    return Predictions(first.run, first.name, first.label, total.astype(np.float32))


def _matching(first: Predictions, other: Predictions) -> Int[np.ndarray, " n"]:
    """Where the clips of the first run stand in another."""
    for run in (first, other):
        if len(np.unique(run.name)) < len(run.name):
            raise InputError(f"{run.run}: two of its test clips have the same name")
    missing = np.setxor1d(first.name, other.name)
    if len(missing):
        raise InputError(
            f"{first.run} and {other.run} were tested on other clips: {len(missing)} are in one "
            f"alone, the first is {str(missing[0])!r}"
        )
    if first.logits.shape[1] != other.logits.shape[1]:
        raise InputError(
            f"{first.run} tells {first.logits.shape[1]} classes apart, {other.run} "
            f"{other.logits.shape[1]}"
        )
    place = np.argsort(other.name)[np.argsort(np.argsort(first.name))]
    wrong = np.flatnonzero(other.label[place] != first.label)
    if len(wrong):
        raise InputError(
            f"{first.run} and {other.run} give {len(wrong)} clips another label, the first is "
            f"{str(first.name[wrong[0]])!r}; they are not of the same data"
        )
    return place


def accuracy(predictions: Predictions) -> dict[str, float]:
    """{"test/top1", "test/top5"} in percent."""
    order = np.argsort(-predictions.logits, axis=1, kind="stable")
    hit = order == predictions.label[:, None]
    return {f"test/top{k}": 100 * float(hit[:, :k].any(1).mean()) for k in (1, 5)}
