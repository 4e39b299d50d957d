"""Accuracy on clean and corrupted clips, with all corruptions in one pass over the data."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskclr_pl.heads import is_finite_prediction
from maskclr_pl.robustness.adversarial import NO_ATTACK, Adversarial, Predict
from maskclr_pl.robustness.corruptions import Corruption, Poses, clip_rng
from maskclr_pl.types import Batch

LevelScores = Mapping[float, tuple[float, float]]
"""Level -> mean and standard deviation over draws of top-1, in percent."""


class PassKey(NamedTuple):
    """One evaluation of all clips."""

    corruption: str
    level: float
    draw: int


CLEAN_PASS = PassKey("clean", 0.0, 0)


@dataclass(frozen=True)
class Passes:
    """Correct clips of R passes over the same n clips; the first pass is clean."""

    name: np.ndarray
    label: Int[np.ndarray, " n"]
    keys: Sequence[PassKey]
    correct: Bool[np.ndarray, "R n"]
    """True where the true class has the largest score."""
    correct_top5: Bool[np.ndarray, "R n"]
    """True where the true class has one of the five largest scores."""
    not_finite: int = 0
    """Number of clips whose clean scores are not finite; they count as wrong."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of `robustness.csv`: corruption, level, draw, top1, top5 (percent).

        The first row is `clean`. Each corruption starts with level 0, the result of the clean pass.
        """
        indexed = list(enumerate(map(PassKey._make, self.keys)))
        order = indexed[:1]
        for name in dict.fromkeys(key.corruption for _, key in indexed[1:]):
            passes = [(i, key) for i, key in indexed if key.corruption == name]
            draws = dict.fromkeys(key.draw for _, key in passes)
            order += [(0, PassKey(name, 0.0, draw)) for draw in draws] + passes
        top1 = np.round(100 * self.correct.mean(1), 4).tolist()
        top5 = np.round(100 * self.correct_top5.mean(1), 4).tolist()
        return [{**key._asdict(), "top1": top1[i], "top5": top5[i]} for i, key in order]


@torch.no_grad()
def measure_robustness(
    predict: Predict,
    batches: Iterable[Batch],
    names: Sequence[str],
    corruptions: Sequence[Corruption],
    poses: Poses,
    draws: int = 3,
    seed: int = 0,
    adversarial: Adversarial = NO_ATTACK,
) -> Passes:
    """Evaluate a model on clean clips and for each corruption, level and draw.

    Args:
        predict: The model in eval mode.
        batches: Batches on the device of the model.
        names: Names of the clips, indexed by `batch["index"]`.
        corruptions: Corruptions with different names that apply to the poses.
        poses: Format of the poses.
        draws: Number of independent draws of each corruption.
        seed: Seed of the draws.
        adversarial: Adversarial perturbations of this model, as additional passes.
    """
    keys = [CLEAN_PASS]
    for corruption in corruptions:
        keys += [
            PassKey(corruption.name, level, draw)
            for level in corruption.levels
            for draw in range(draws)
        ]
    keys += [PassKey(adversarial.name, level, 0) for level in adversarial.levels]
    hits: dict[PassKey, list[Tensor]] = defaultdict(list)
    clips, not_finite = [], torch.zeros((), dtype=torch.long)
    for batch in batches:
        clips.append(torch.stack((batch["index"], batch["label"])))
        clip_names = [names[i] for i in batch["index"].tolist()]
        logits = predict(batch["clip"], batch)
        not_finite = not_finite + (~is_finite_prediction(logits)).sum()
        hits[CLEAN_PASS].append(correct_top1_top5(logits, batch))
        for key, clip in _corrupted_clips(batch, clip_names, corruptions, poses, draws, seed):
            hits[key].append(correct_top1_top5(predict(clip, batch), batch))
        for level in adversarial.levels:
            clip = adversarial(predict, batch, level, poses)
            key = PassKey(adversarial.name, level, 0)
            hits[key].append(correct_top1_top5(predict(clip, batch), batch))
    index, label = torch.cat(clips, 1).cpu()
    order = index.argsort()
    correct = torch.stack([torch.cat(hits[key], 1) for key in keys]).cpu()  # (R, 2, n)
    correct_array = correct[..., order].numpy()
    return Passes(
        name=np.array([names[i] for i in index[order].tolist()]),
        label=label[order].numpy(),
        keys=keys,
        correct=correct_array[:, 0],
        correct_top5=correct_array[:, 1],
        not_finite=int(not_finite),
    )


def correct_top1_top5(logits: Float[Tensor, "B K"], batch: Batch) -> Bool[Tensor, "2 B"]:
    """Return whether the true class has the largest and one of the five largest scores.

    Both are false where scores are not finite.
    """
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == batch["label"].unsqueeze(1)
    return torch.stack((best[:, 0], best.any(1))) & is_finite_prediction(logits)


def _corrupted_clips(
    batch: Batch,
    names: Sequence[str],
    corruptions: Sequence[Corruption],
    poses: Poses,
    draws: int,
    seed: int,
) -> Iterator[tuple[PassKey, Float[Tensor, "B M T V C"]]]:
    """Yield the clips of a batch under every corruption, draw and level."""
    clip, frame = batch["clip"], batch["frame"]
    frames = int(frame.max()) + 1
    for corruption in corruptions:
        for draw in range(draws):
            rngs = [clip_rng(seed, draw, corruption.name, name) for name in names]
            arrays = np.stack([corruption.draw(rng, frames, poses) for rng in rngs])
            random = torch.from_numpy(arrays).to(clip.device)
            for level in corruption.levels:
                key = PassKey(corruption.name, level, draw)
                yield key, corruption(clip, random, frame, level, poses)


def summarize(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[float, tuple[float, float]]]:
    """Return mean and standard deviation of top-1: {corruption: {level: (mean, std)}}.

    Args:
        rows: Rows of `robustness.csv` of one or several runs. The deviation of one value is 0.
    """
    values: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        levels = values.setdefault(row["corruption"], {})
        levels.setdefault(float(row["level"]), []).append(float(row["top1"]))
    return {
        name: {level: (float(np.mean(v)), sample_std(v)) for level, v in levels.items()}
        for name, levels in values.items()
    }


def sample_std(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def mean_over_levels(levels: LevelScores) -> float:
    """Return the mean top-1 over the levels above 0."""
    return float(np.mean([mean for level, (mean, _) in levels.items() if level > 0]))


def normalized_auc(levels: LevelScores) -> float:
    """Return the area under top-1 over level from 0 to the highest level, divided by the latter."""
    points = sorted((level, mean) for level, (mean, _) in levels.items())
    segments = itertools.pairwise(points)
    area = sum((b - a) * (left + right) / 2 for (a, left), (b, right) in segments)
    return area / points[-1][0]
