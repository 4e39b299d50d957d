"""Accuracy on clean and corrupted clips, all levels in one pass over the data."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskclr_pl.finite import answered
from maskclr_pl.robustness.adversarial import NO_ATTACK, Adversarial, Predict
from maskclr_pl.robustness.corruptions import Corruption, Poses, clip_rng
from maskclr_pl.types import Batch

Key = tuple[str, float, int]
"""Corruption, level and draw of a pass over the clips."""

Levels = Mapping[float, tuple[float, float]]
"""Level -> mean and standard deviation over draws of top-1, in percent."""

_CLEAN: Key = ("clean", 0.0, 0)


@dataclass(frozen=True)
class Passes:
    """Which of n clips were recognised in each of R passes over them; the first is clean."""

    name: np.ndarray
    label: Int[np.ndarray, " n"]
    keys: Sequence[Key]
    correct: Bool[np.ndarray, "R n"]
    """The right class has the largest score."""
    among5: Bool[np.ndarray, "R n"]
    """The right class has one of the five largest scores."""
    unanswered: int = 0
    """Clips whose clean scores are not numbers; they count as wrong."""

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `robustness.csv`: corruption, level, draw, top1, top5 (percent).

        The first is `clean`. Each corruption starts with its level 0, which is the clean pass.
        """
        numbered = list(enumerate(self.keys))
        rows = numbered[:1]
        for name in dict.fromkeys(name for name, _, _ in self.keys[1:]):
            own = [(r, key) for r, key in numbered if key[0] == name]
            draws = dict.fromkeys(draw for _, (_, _, draw) in own)
            rows += [(0, (name, 0.0, draw)) for draw in draws] + own
        percent = 100 * np.stack((self.correct.mean(1), self.among5.mean(1)), axis=1)
        return [
            dict(zip(("corruption", "level", "draw"), key, strict=True))
            | dict(zip(("top1", "top5"), percent[r].round(4).tolist(), strict=True))
            for r, key in rows
        ]


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
    """Which clips are recognised: clean, and per corruption, level and draw.

    Args:
        predict: The model, in eval mode.
        batches: On the device of the model.
        names: Names of the clips, by `batch["index"]`.
        corruptions: What to apply, each of another name; all fit the poses.
        poses: What the clips consist of.
        draws: Independent draws of the random parts.
        seed: Of the draws.
        adversarial: Further passes, over clips that are perturbed for this model.
    """
    keys = [_CLEAN]
    for corruption in corruptions:
        keys += [(corruption.name, level, d) for level in corruption.levels for d in range(draws)]
    keys += [(adversarial.name, level, 0) for level in adversarial.levels]
    hits: dict[Key, list[Tensor]] = defaultdict(list)
    seen, unanswered = [], torch.zeros((), dtype=torch.long)
    for batch in batches:
        seen.append(torch.stack((batch["index"], batch["label"])))
        mine = [names[i] for i in batch["index"].tolist()]
        clean = predict(batch["clip"], batch)
        unanswered = unanswered + (~answered(clean)).sum()  # no wait for the device
        hits[_CLEAN].append(correct_top1_top5(clean, batch))
        for key, clip in _corrupted(batch, mine, corruptions, poses, draws, seed):
            hits[key].append(correct_top1_top5(predict(clip, batch), batch))
        for level in adversarial.levels:
            clip = adversarial(predict, batch, level, poses)
            hits[adversarial.name, level, 0].append(correct_top1_top5(predict(clip, batch), batch))
    index, label = torch.cat(seen, 1).cpu()
    order = index.argsort()
    found = torch.stack([torch.cat(hits[key], 1) for key in keys]).cpu()[..., order].numpy()
    name = np.array([names[i] for i in index[order].tolist()])
    return Passes(name, label[order].numpy(), keys, found[:, 0], found[:, 1], int(unanswered))


def correct_top1_top5(logits: Float[Tensor, "B K"], batch: Batch) -> Bool[Tensor, "2 B"]:
    """Whether the right class has the largest score, and one of the five largest.

    Neither is so where the scores are not numbers.
    """
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == batch["label"].unsqueeze(1)
    return torch.stack((best[:, 0], best.any(1))) & answered(logits)


def _corrupted(
    batch: Batch,
    names: Sequence[str],
    corruptions: Sequence[Corruption],
    poses: Poses,
    draws: int,
    seed: int,
) -> Iterator[tuple[Key, Float[Tensor, "B M T V C"]]]:
    """The clips of a batch with every corruption, draw and level."""
    clip, frame = batch["clip"], batch["frame"]
    frames = int(frame.max()) + 1
    for corruption in corruptions:
        for draw in range(draws):
            drawn = [
                corruption.draw(clip_rng(seed, draw, corruption.name, name), frames, poses)
                for name in names
            ]
            noise = torch.from_numpy(np.stack(drawn)).to(clip.device)
            for level in corruption.levels:
                yield (
                    (corruption.name, level, draw),
                    corruption(clip, noise, frame, level, poses),
                )


def summarize(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[float, tuple[float, float]]]:
    """Mean and standard deviation over draws of top-1: {corruption: {level: (mean, std)}}.

    Args:
        rows: Of `robustness.csv`, of one run or several; as measured or as read back. The
            deviation of a single row is 0.
    """
    values: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        levels = values.setdefault(row["corruption"], {})
        levels.setdefault(float(row["level"]), []).append(float(row["top1"]))
    return {
        name: {level: (float(np.mean(v)), spread(v)) for level, v in levels.items()}
        for name, levels in values.items()
    }


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def mean_over_levels(levels: Levels) -> float:
    """Mean top-1 over the levels above 0."""
    return float(np.mean([mean for level, (mean, _) in levels.items() if level > 0]))


def area(levels: Levels) -> float:
    """Area under top-1 over the level, from 0 to the highest, divided by that level (percent)."""
    points = sorted((level, mean) for level, (mean, _) in levels.items())
    pairs = itertools.pairwise(points)
    return sum((b - a) * (left + right) / 2 for (a, left), (b, right) in pairs) / points[-1][0]
