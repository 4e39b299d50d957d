"""Passes over clean and corrupted clips."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from maskclr_pl.robustness.corruptions import (
    BodyScale,
    ConfidenceDropout,
    FrameDrop,
    FrameMasking,
    FrameRate,
    JointOcclusion,
    KeypointOcclusion,
    PartOcclusion,
    SideSwap,
    SpatialNoise,
    SpatiotemporalNoise,
    TimeCrop,
)
from maskclr_pl.robustness.runner import (
    mean_over_levels,
    measure_robustness,
    summarize,
)
from maskclr_pl.types import Batch
from tests.helpers.robustness_tools import FLAT, batch

ALL = [SpatialNoise, SpatiotemporalNoise, JointOcclusion, KeypointOcclusion, FrameMasking]
ALL += [FrameDrop, FrameRate, TimeCrop, ConfidenceDropout, SideSwap, BodyScale]
ALL += [partial(PartOcclusion, part="left_arm")]


def fragile(clip: Tensor, batch: Batch) -> Tensor:
    """Right on the clean clip, and wrong as soon as a joint is hidden."""
    hidden = ((clip[..., 2] == 0) & (batch["clip"][..., 2] != 0)).flatten(1).any(1)
    logits = nn.functional.one_hot(batch["label"], 7).float()
    return torch.where(hidden.unsqueeze(1), -logits, logits)


NAMES = [f"clip{i}" for i in range(7)]


def test_rows_contain_all_corruptions_levels_and_draws():
    corruptions = [SpatialNoise((0.01,)), JointOcclusion((0.5, 0.9))]
    batches = [batch(3, first=4), batch(4)]  # in another order than the clips
    result = measure_robustness(fragile, batches, NAMES, corruptions, FLAT, draws=2)
    assert result.name.tolist() == NAMES
    assert result.label.tolist() == [0, 1, 2, 0, 0, 1, 2]
    rows = result.rows()
    assert rows[0] == {"corruption": "clean", "level": 0, "draw": 0, "top1": 100, "top5": 100}
    keys = [(row["corruption"], row["level"], row["draw"]) for row in rows[1:]]
    assert keys == [
        (corruption.name, level, draw)
        for corruption in corruptions
        for level in (0.0, *corruption.levels)
        for draw in range(2)
    ]
    for row in rows[1:]:
        wrong = row["corruption"] == "joint_occlusion" and row["level"] > 0
        assert row["top1"] == (0 if wrong else 100)
    summary = summarize(rows)
    assert summary["joint_occlusion"] == {0: (100, 0), 0.5: (0, 0), 0.9: (0, 0)}
    assert mean_over_levels(summary["spatial_noise"]) == 100
    assert mean_over_levels(summary["joint_occlusion"]) == 0


def test_top5_with_few_and_many_classes():
    def ranked(clip: Tensor, batch: Batch) -> Tensor:
        scores = -torch.arange(9.0).expand(len(clip), 9).clone()
        return scores.roll(-2, 1)  # best: 7, then 8, 0, 1, 2

    result = measure_robustness(ranked, [batch(7)], NAMES, [], FLAT)
    assert result.rows()[0] | {"top1": 0, "top5": 100} == result.rows()[0]
    few = measure_robustness(lambda clip, b: ranked(clip, b)[:, :3], [batch(7)], NAMES, [], FLAT)
    assert few.correct_top5.all()


def recording(clips: list[Tensor]) -> Callable[[Tensor, Batch], Tensor]:
    """A model that remembers what it was asked."""

    def predict(clip: Tensor, batch: Batch) -> Tensor:
        clips.append(clip)
        return torch.zeros(len(clip), 3)

    return predict


def test_results_do_not_depend_on_batching():
    def measure(batches: list[Batch]) -> list[Tensor]:
        seen: list[Tensor] = []
        corruptions = [make(levels=(0.5,)) for make in ALL]
        measure_robustness(recording(seen), batches, NAMES, corruptions, FLAT, draws=2)
        per_batch = len(seen) // len(batches)
        return [torch.cat(seen[i::per_batch]) for i in range(per_batch)]

    whole = batch(6)
    whole["frame"][2] //= 3  # a shorter recording
    parts = [
        {key: value[rows] for key, value in whole.items() if key != "sequence"}
        for rows in (slice(0, 2), slice(2, 3), slice(3, 6))
    ]
    for one, several in zip(measure([whole]), measure(parts), strict=True):
        assert torch.equal(one, several)


def test_all_models_see_the_same_clips_in_one_pass():
    """Draws depend on seed, draw, corruption and name; not on the model or on other corruptions."""
    first: list[Tensor] = []
    other: list[Tensor] = []
    reads = iter([batch(7)])  # a second pass over the data would find nothing
    corruptions = [make(levels=(0.5,)) for make in ALL]
    measure_robustness(recording(first), reads, NAMES, corruptions, FLAT, draws=1)
    measure_robustness(recording(other), [batch(7)], NAMES, corruptions[::-1], FLAT, draws=1)
    assert len(first) == 1 + len(ALL)
    for one, two in zip(first[1:], other[:0:-1], strict=True):
        assert torch.equal(one, two)
    seeded: list[Tensor] = []
    measure_robustness(recording(seeded), [batch(7)], NAMES, corruptions, FLAT, draws=1, seed=1)
    assert not torch.equal(seeded[1], first[1])
