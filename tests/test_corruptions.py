from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from maskclr_pl.evaluation.corruptions import (
    Corruption,
    FrameDrop,
    JointOcclusion,
    SpatialNoise,
    SpatiotemporalNoise,
    clip_rng,
)
from maskclr_pl.evaluation.robustness import mean_over_levels, robustness, summarise
from maskclr_pl.types import Batch

ALL = [SpatialNoise, SpatiotemporalNoise, JointOcclusion, FrameDrop]
NOISE = [SpatialNoise, SpatiotemporalNoise]
V = 10


def batch(clips: int, recorded: int = 30, length: int = 8, seed: int = 0, first: int = 0) -> Batch:
    """Two persons, the second absent in odd clips; every third joint is missing."""
    rng = torch.Generator().manual_seed(seed)
    clip = torch.rand(clips, 2, length, V, 3, generator=rng) - 0.5
    clip[..., 2] += 0.6
    clip[..., ::3, :] = 0
    clip[1::2, 1] = 0
    present = clip[..., 2].flatten(2).any(2)
    frame = torch.arange(length) * recorded // length
    return {
        "clip": clip,
        "present": present,
        "sequence": present.flatten().nonzero().squeeze(1),
        "frame": frame.expand(clips, -1).contiguous(),
        "label": torch.arange(clips) % 3,
        "index": torch.arange(first, first + clips),
    }


def random_parts(
    corruption: Corruption, names: Sequence[str], data: Batch, draw: int = 0
) -> Tensor:
    frames = int(data["frame"].max()) + 1
    sizes = frames, data["clip"].shape[3], 2
    return torch.from_numpy(
        np.stack(
            [corruption.draw(clip_rng(0, draw, corruption.name, name), *sizes) for name in names]
        )
    )


def apply(corruption: Corruption, data: Batch, level: float, draw: int = 0) -> Tensor:
    names = [f"clip{i}" for i in data["index"].tolist()]
    draws = random_parts(corruption, names, data, draw)
    return corruption(data["clip"], draws, data["frame"], level)


@pytest.mark.parametrize("make", ALL)
def test_level_0_is_the_identity(make):
    data = batch(4)
    assert torch.equal(apply(make(), data, 0.0), data["clip"])


@pytest.mark.parametrize("make", ALL)
def test_a_level_above_0_is_not(make):
    data = batch(4)
    before = data["clip"].clone()
    for level in make().levels:
        assert level > 0
        assert not torch.equal(apply(make(), data, level), data["clip"])
    assert torch.equal(data["clip"], before)


@pytest.mark.parametrize("make", ALL)
def test_what_is_not_there_stays_away(make):
    data = batch(6)
    out = apply(make(), data, make().levels[-1])
    assert not out[1::2, 1].any()
    assert not out[..., ::3, :].any()


@pytest.mark.parametrize("make", ALL)
def test_a_clip_does_not_depend_on_its_batch(make):
    data = batch(5, first=3)
    together = apply(make(), data, make().levels[0])
    for i in range(5):
        alone = {key: value[i : i + 1] for key, value in data.items() if key != "sequence"}
        # a shorter recording beside it must not matter either
        assert torch.equal(apply(make(), alone, make().levels[0])[0], together[i])


@pytest.mark.parametrize("make", [SpatiotemporalNoise, FrameDrop])
def test_the_random_part_does_not_depend_on_the_longest_recording(make):
    short, long = (make().draw(clip_rng(0, 0, "c", "x"), frames, V, 2) for frames in (9, 40))
    np.testing.assert_array_equal(short, long[:9])


@pytest.mark.parametrize("make", ALL)
def test_draws_and_clips_differ_and_repeat(make):
    data = batch(1)
    first = random_parts(make(), ["a"], data)
    assert torch.equal(random_parts(make(), ["a"], data), first)
    assert not torch.equal(random_parts(make(), ["b"], data), first)
    assert not torch.equal(random_parts(make(), ["a"], data, draw=1), first)


@pytest.mark.parametrize("make", NOISE)
def test_noise_has_the_standard_deviation_of_its_level(make):
    data = batch(400)
    data["clip"][..., :2] *= 0.5  # far from the border of the image
    sigma = 0.01
    noise = (apply(make(), data, sigma) - data["clip"])[:, 0, :, 1::3]
    assert not noise[..., 2].any()
    # per joint and coordinate: 400 clips (spatial) or 3200 frames; 6 standard errors of the
    # standard deviation of 400 draws are 6 / sqrt(800)
    spread = noise[..., :2].flatten(0, 1).std(0)
    torch.testing.assert_close(spread, torch.full_like(spread, sigma), rtol=0.21, atol=0)
    centre = noise[..., :2].flatten(0, 1).mean(0)
    torch.testing.assert_close(centre, torch.zeros_like(centre), rtol=0, atol=6 * sigma / 20)
    between = torch.corrcoef(noise[:, 0, :, :2].flatten(1).T) - torch.eye(6)
    assert between.abs().max() < 6 / 20  # joints and coordinates are independent


@pytest.mark.parametrize("make", NOISE)
def test_persons_share_the_noise(make):
    data = batch(2)
    data["clip"][:, 1] = data["clip"][:, 0]
    out = apply(make(), data, 0.01)
    assert torch.equal(out[:, 0], out[:, 1])


def test_spatial_noise_is_constant_over_time_and_spatiotemporal_is_not():
    data = batch(2)
    data["clip"][:] = data["clip"][:, :, :1]
    data["frame"][:, 3] = data["frame"][:, 2]  # a frame that is shown twice
    still, moving = (apply(make(), data, 0.01) for make in NOISE)
    assert torch.equal(still, still[:, :, :1].expand_as(still))
    assert torch.equal(moving[:, :, 3], moving[:, :, 2])
    assert not torch.equal(moving[:, :, 4], moving[:, :, 2])


@pytest.mark.parametrize("make", NOISE)
def test_levels_of_a_draw_are_the_same_noise_scaled(make):
    data = batch(3)
    data["clip"][..., :2] *= 0.5
    weak, strong = (apply(make(), data, sigma) - data["clip"] for sigma in (0.002, 0.008))
    torch.testing.assert_close(strong, 4 * weak, rtol=0, atol=1e-6)  # float32 near 0.25


@pytest.mark.parametrize("make", NOISE)
def test_noise_stays_inside_the_image(make):
    data = batch(20)
    data["clip"][..., 0] = data["clip"][..., 0].sign()
    out = apply(make(), data, 0.01)
    assert out.abs().max() <= 1.2  # confidences reach 1.1
    assert out[..., :2].abs().max() == 1


@given(st.integers(0, 10))
def test_occlusion_hides_the_same_joints_of_everyone_in_every_frame(tenths):
    level, data = tenths / 10, batch(5)
    data["clip"][:] = 1
    out = apply(JointOcclusion(), data, level)
    hidden = (out == 0).all(-1)
    assert torch.equal((out == 0).any(-1), hidden)
    assert (hidden.sum(-1) == round(level * V)).all()
    assert torch.equal(hidden, hidden[:, :1, :1].expand_as(hidden))


@pytest.mark.parametrize("make", [JointOcclusion])
def test_occlusion_grows_with_the_level(make):
    data = batch(4)
    seen = [apply(make(), data, level)[..., 2] > 0 for level in (0.1, 0.3, 0.5)]
    assert not (seen[1] & ~seen[0]).any()
    assert not (seen[2] & ~seen[1]).any()


@given(st.floats(0, 0.999), st.integers(1, 20), st.integers(1, 40), st.integers(0, 50))
def test_frame_drop_stretches_what_is_left(level, length, recorded, seed):
    data = batch(3, recorded, length, seed)
    data["clip"][:, :, :, :, 0] = torch.arange(length).view(-1, 1)  # every frame knows its step
    fate = torch.rand(3, recorded, generator=torch.Generator().manual_seed(seed))
    out = FrameDrop()(data["clip"], fate, data["frame"], level)
    for i in range(3):
        mine = fate[i, data["frame"][i]]
        kept = [t for t in range(length) if mine[t] >= level]
        kept = kept or [t for t in range(length) if mine[t] == mine.max()]
        expected = [kept[j * len(kept) // length] for j in range(length)]
        assert torch.equal(out[i], data["clip"][i][:, expected])


@given(st.floats(0, 0.999), st.integers(1, 20), st.integers(0, 9), st.integers(0, 50))
def test_padding_changes_no_corruption(level, length, padding, seed):
    """What happens to a clip does not depend on how long the others of its batch are."""
    data = batch(3, length, length, seed)
    data["frame"][:] = torch.arange(length)
    padded = functional.pad(data["clip"], (0, 0, 0, 0, 0, padding))
    frame = functional.pad(data["frame"], (0, padding), value=-1)
    fate = torch.rand(3, length, generator=torch.Generator().manual_seed(seed))
    noise = torch.randn(3, length, V, 2, generator=torch.Generator().manual_seed(seed))
    for corruption, draws in ((FrameDrop(), fate), (SpatiotemporalNoise(), noise)):
        expected = corruption(data["clip"], draws, data["frame"], level)
        found = corruption(padded, draws, frame, level)
        assert torch.equal(found[:, :, :length], expected)
        assert not found[:, :, length:].any()


def test_frame_drop_loses_the_share_of_its_level():
    rng = np.random.default_rng(0)
    fate = FrameDrop().draw(rng, 20_000, V, 2)
    for level in FrameDrop().levels:
        # 5 standard deviations of 20000 draws
        assert abs((fate < level).mean() - level) < 5 * 0.5 / 20_000**0.5


def test_corruptions_do_not_share_their_random_numbers():
    states = {
        clip_rng(seed, draw, name, clip).integers(1 << 62)
        for seed in (0, 1)
        for draw in (0, 1)
        for name in ("spatial_noise", "frame_drop")
        for clip in ("a", "b")
    }
    assert len(states) == 16


def fragile(clip: Tensor, batch: Batch) -> Tensor:
    """Right on the clean clip, and wrong as soon as a joint is hidden."""
    hidden = ((clip[..., 2] == 0) & (batch["clip"][..., 2] != 0)).flatten(1).any(1)
    logits = torch.nn.functional.one_hot(batch["label"], 7).float()
    return torch.where(hidden.unsqueeze(1), -logits, logits)


def test_robustness_table():
    batches = [batch(4), batch(3, first=4)]
    names = [f"clip{i}" for i in range(7)]
    corruptions = [SpatialNoise((0.01,)), JointOcclusion((0.5, 0.9))]
    rows = robustness(fragile, batches, names, corruptions, draws=2)
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
    summary = summarise(rows)
    assert summary["joint_occlusion"] == {0: (100, 0), 0.5: (0, 0), 0.9: (0, 0)}
    assert mean_over_levels(summary["spatial_noise"]) == 100
    assert mean_over_levels(summary["joint_occlusion"]) == 0


def test_in_space_the_third_coordinate_is_no_confidence():
    data, seen = batch(2), []

    def predict(clip: Tensor, batch: Batch) -> Tensor:
        seen.append(clip)
        return torch.zeros(len(clip), 3)

    for coordinates in (2, 3):
        robustness(predict, [data], ["a", "b"], [SpatialNoise((0.5,))], 1, coordinates=coordinates)
    clean, flat, _, space = seen
    there = (clean != 0).any(-1)
    assert torch.equal(flat[..., 2], clean[..., 2])
    assert (space[there] != clean[there]).all()  # also beyond [-1, 1]
    assert space.abs().max() > 1.2  # 1.1 is the largest confidence
    assert not space[~there].any()


def test_robustness_does_not_depend_on_the_batches():
    def measure(batches: list[Batch]) -> list[Tensor]:
        seen: list[Tensor] = []

        def predict(clip: Tensor, batch: Batch) -> Tensor:
            seen.append(clip)
            return torch.zeros(len(clip), 3)

        robustness(predict, batches, names, [make((0.5,)) for make in ALL], draws=2)
        per_batch = len(seen) // len(batches)
        return [torch.cat(seen[i::per_batch]) for i in range(per_batch)]

    names = [f"clip{i}" for i in range(6)]
    whole = batch(6)
    whole["frame"][2] //= 3  # a shorter recording
    parts = [
        {key: value[rows] for key, value in whole.items() if key != "sequence"}
        for rows in (slice(0, 2), slice(2, 3), slice(3, 6))
    ]
    for one, several in zip(measure([whole]), measure(parts), strict=True):
        assert torch.equal(one, several)
