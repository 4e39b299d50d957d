"""Accuracy on clean and corrupted clips, all levels in one pass over the data."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maskclr_pl.evaluation.corruptions import Corruption, clip_rng
from maskclr_pl.types import Batch

Predict = Callable[[Float[Tensor, "B M T V C"], Batch], Float[Tensor, "B K"]]


@torch.inference_mode()
def robustness(
    predict: Predict,
    batches: Iterable[Batch],
    names: Sequence[str],
    corruptions: Sequence[Corruption],
    draws: int = 3,
    seed: int = 0,
    coordinates: Literal[2, 3] = 2,
) -> list[dict[str, Any]]:
    """Top-1 and top-5 accuracy per corruption, level and draw.

    Args:
        predict: Clips (corrupted or not) and their batch to logits.
        batches: On the device of the model.
        names: Names of the clips, by `batch["index"]`.
        corruptions: What to apply.
        draws: Independent draws of the random parts.
        seed: Of the draws.
        coordinates: 2 for clips in the image, 3 in space.

    Returns:
        Rows with corruption, level, draw, top1, top5 (percent). The first is `clean`; each
        corruption starts with its level 0, which is the clean one.
    """
    correct: dict[tuple[str, float, int], Tensor] = {}
    clips = 0

    def count(key: tuple[str, float, int], logits: Tensor, label: Tensor) -> None:
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == label.unsqueeze(1)
        hits = torch.stack((best[:, :1].sum(), best.sum()))
        correct[key] = correct.get(key, 0) + hits

    for batch in batches:
        clip, label = batch["clip"], batch["label"]
        clips += len(label)
        chosen = [names[index] for index in batch["index"].tolist()]
        count(("clean", 0.0, 0), predict(clip, batch), label)
        for corruption in corruptions:
            for draw in range(draws):
                noise = _draws(corruption, batch, chosen, seed, draw, coordinates)
                for level in corruption.levels:
                    worse = corruption(clip, noise, batch["frame"], level)
                    count((corruption.name, level, draw), predict(worse, batch), label)
    return _rows(correct, clips, corruptions, draws)


def _draws(
    corruption: Corruption,
    batch: Batch,
    names: Sequence[str],
    seed: int,
    draw: int,
    coordinates: int,
) -> Tensor:
    sizes = int(batch["frame"].max()) + 1, batch["clip"].shape[3], coordinates
    drawn = [corruption.draw(clip_rng(seed, draw, corruption.name, name), *sizes) for name in names]
    return torch.from_numpy(np.stack(drawn)).to(batch["clip"].device)


def _rows(
    correct: dict[tuple[str, float, int], Tensor],
    clips: int,
    corruptions: Sequence[Corruption],
    draws: int,
) -> list[dict[str, Any]]:
    percent = {key: (100 * hits / max(clips, 1)).tolist() for key, hits in correct.items()}
    clean = percent["clean", 0.0, 0]
    keys = [("clean", 0.0, 0)] + [
        (corruption.name, level, draw)
        for corruption in corruptions
        for level in (0.0, *corruption.levels)
        for draw in range(draws)
    ]
    rows = []
    for name, level, draw in keys:
        top1, top5 = clean if level == 0 else percent[name, level, draw]
        rows.append(
            {"corruption": name, "level": level, "draw": draw}
            | {"top1": round(top1, 4), "top5": round(top5, 4)}
        )
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[float, tuple[float, float]]]:
    """Mean and standard deviation over draws of top-1: {corruption: {level: (mean, std)}}."""
    values: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        levels = values.setdefault(row["corruption"], {})
        levels.setdefault(float(row["level"]), []).append(float(row["top1"]))
    return {
        name: {level: (float(np.mean(v)), float(np.std(v))) for level, v in levels.items()}
        for name, levels in values.items()
    }


def mean_over_levels(levels: dict[float, tuple[float, float]]) -> float:
    """Mean top-1 over the levels above 0."""
    return float(np.mean([mean for level, (mean, _) in levels.items() if level > 0]))
