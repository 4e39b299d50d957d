import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskclr_pl.robustness.corruptions import (
    PARTS,
    UNITS,
    BodyScale,
    ConfidenceDropout,
    Corruption,
    FrameDrop,
    FrameMasking,
    FrameRate,
    JointOcclusion,
    KeypointOcclusion,
    PartOcclusion,
    Poses,
    SideSwap,
    SpatialNoise,
    SpatiotemporalNoise,
    TimeCrop,
    clip_rng,
)
from maskclr_pl.robustness.corruptions.base import time_window
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.transforms import Convert
from maskclr_pl.types import InputError
from tests.helpers.robustness_tools import BODY, FLAT, SPACE, V, batch, corrupted, draws_of

NOISE = [SpatialNoise, SpatiotemporalNoise]
HIDING = [JointOcclusion, KeypointOcclusion, FrameMasking]
HIDING += [partial(PartOcclusion, part=part) for part in PARTS]
TIMING = [FrameDrop, FrameRate, TimeCrop]
ALL = [*NOISE, *HIDING, *TIMING, ConfidenceDropout, SideSwap, BodyScale]
IN_SPACE = [make for make in ALL if make is not ConfidenceDropout]
Make = Callable[..., Corruption]


def name_of(make: object) -> str:
    return make().name if callable(make) else str(make)


each = pytest.mark.parametrize("make", ALL, ids=name_of)
KINDS = [(make, FLAT) for make in ALL] + [(make, SPACE) for make in IN_SPACE]
each_kind = pytest.mark.parametrize(
    ("make", "poses"), KINDS, ids=[f"{name_of(m)}-{p.coordinates}d" for m, p in KINDS]
)


@each_kind
@given(
    *(st.integers(1, 3), st.integers(1, 2), st.integers(1, 9), st.integers(0, 3)),
    *(st.integers(1, 12), st.integers(0, 1000)),
)
def test_what_every_corruption_keeps(make, poses, clips, persons, length, padding, recorded, seed):
    """Shapes; level 0 changes no bit; what is zero stays zero; the input stays as it is."""
    data = batch(clips, recorded, length, seed, persons=persons, padding=padding)
    before = data["clip"].clone()
    corruption = make()
    assert torch.equal(corrupted(corruption, data, 0.0, poses=poses), before)
    for level in (*corruption.levels, corruption.highest):
        out = corrupted(corruption, data, min(level, 5.0), poses=poses)
        assert out.shape == before.shape
        assert out.dtype == before.dtype
        assert torch.isfinite(out).all()
        assert not out[:, :, length:].any()
        assert not out[~data["present"]].any()
        missing = (before == 0).all(-1)
        if make in TIMING:  # other frames of the same person; joints are missing in all of them
            assert not out[..., ::3, :].any()
        elif make is not SideSwap:  # there, a missing joint changes sides, too
            assert not out[missing].any()
    assert torch.equal(data["clip"], before)


@each
def test_a_level_above_0_changes_the_clip(make):
    data = batch(4)
    for level in make().levels:
        assert not torch.equal(corrupted(make(), data, level), data["clip"])


@each
def test_a_clip_does_not_depend_on_its_batch(make):
    data = batch(5, first=3)
    data["frame"][2] //= 3  # a shorter recording beside the others
    together = corrupted(make(), data, make().levels[0])
    for i in range(5):
        alone = {key: value[i : i + 1] for key, value in data.items() if key != "sequence"}
        assert torch.equal(corrupted(make(), alone, make().levels[0])[0], together[i])


@each
def test_the_random_part_does_not_depend_on_the_longest_recording(make):
    short, long = (make().draw(clip_rng(0, 0, "c", "x"), frames, FLAT) for frames in (9, 40))
    assert short.dtype == np.float32
    np.testing.assert_array_equal(short, long[: len(short)])


@each
def test_draws_and_clips_differ_and_repeat(make):
    data = batch(1)
    names = [f"clip{i}" for i in range(8)]  # of a coin, eight clips fall alike once in 128 times
    first = [draws_of(make(), [name], data) for name in names]
    again = [draws_of(make(), [name], data) for name in names]
    other = [draws_of(make(), [name], data, draw=1) for name in names]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not all(torch.equal(first[0], one) for one in first)


@each
def test_persons_share_the_disturbance(make):
    data = batch(2)
    data["clip"][:, 1] = data["clip"][:, 0]
    out = corrupted(make(), data, make().levels[-1])
    assert torch.equal(out[:, 0], out[:, 1])


@each
@pytest.mark.parametrize("levels", [(), (0.0, 0.5), (0.5, 0.2), (0.1, 0.1), (-1,), (float("nan"),)])
def test_levels_that_make_no_sense_are_refused(make, levels):
    with pytest.raises(InputError, match=r"levels .* expected ascending levels above 0"):
        make(levels=levels)


def test_a_share_above_1_is_refused():
    with pytest.raises(InputError, match=r"frame_drop: levels \[1\.5\].* at most 1 \(share of fr"):
        FrameDrop((1.5,))


def test_names_and_units_of_all():
    names = [make().name for make in ALL]
    assert len(set(names)) == len(names)
    assert {make().name: make().unit for make in ALL}.items() <= UNITS.items()


def test_corruptions_do_not_share_their_random_numbers():
    states = {
        clip_rng(seed, draw, name, clip).integers(1 << 62)
        for seed in (0, 1)
        for draw in (0, 1)
        for name in ("spatial_noise", "frame_drop")
        for clip in ("a", "b")
    }
    assert len(states) == 16


# noise


@pytest.mark.parametrize("make", NOISE)
def test_noise_has_the_standard_deviation_of_its_level(make):
    data = batch(400)
    data["clip"][..., :2] *= 0.5  # far from the border of the image
    sigma = 0.01
    noise = (corrupted(make(), data, sigma) - data["clip"])[:, 0, :, 1::3]
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
def test_noise_after_the_joints_are_converted(make):
    """COCO to Human3.6M: a joint that is the mean of two has 0.71 of sigma, the belly 0.50."""
    coco, h36m, clips, sigma = SKELETONS["coco17"], SKELETONS["h36m17"], 800, 0.01
    clip = torch.rand(clips, 1, 2, len(coco), 3) - 0.5
    clip[..., 2] = 1
    frame = torch.arange(2).expand(clips, 2)
    poses = Poses(coco, 2)
    draws = np.stack([make().draw(clip_rng(0, 0, "n", str(i)), 2, poses) for i in range(clips)])
    convert = Convert(coco, h36m)
    noisy = make()(clip, torch.from_numpy(draws), frame, sigma, poses)
    noise = (convert(noisy) - convert(clip))[:, 0, :, :, :2]
    expected = torch.ones(17)
    for joint, factor in {
        "root": 0.5**0.5,
        "neck": 0.5**0.5,
        "head": 0.5**0.5,
        "belly": 0.5,
    }.items():
        expected[h36m.joints.index(joint)] = factor
    # x and y of 800 clips: 5 standard errors of the standard deviation are 5 / sqrt(3200)
    found = noise[:, 0].transpose(1, 2).flatten(0, 1).std(0) / sigma
    torch.testing.assert_close(found, expected, rtol=0.09, atol=0)
    constant = torch.equal(noise[:, 0], noise[:, 1])
    still = (noise[:, 0] - noise[:, 1]).abs().max() < 1e-6  # float32 of sums near 1
    assert (constant or still) == (make is SpatialNoise)


def test_spatial_noise_is_constant_over_time_and_spatiotemporal_is_not():
    data = batch(2)
    data["clip"][:] = data["clip"][:, :, :1]
    data["frame"][:, 3] = data["frame"][:, 2]  # a frame that is shown twice
    still, moving = (corrupted(make(), data, 0.01) for make in NOISE)
    assert torch.equal(still, still[:, :, :1].expand_as(still))
    assert torch.equal(moving[:, :, 3], moving[:, :, 2])
    assert not torch.equal(moving[:, :, 4], moving[:, :, 2])


@pytest.mark.parametrize("make", NOISE)
def test_levels_of_a_draw_are_the_same_noise_scaled(make):
    data = batch(3)
    data["clip"][..., :2] *= 0.5
    weak, strong = (corrupted(make(), data, sigma) - data["clip"] for sigma in (0.002, 0.008))
    torch.testing.assert_close(strong, 4 * weak, rtol=0, atol=1e-6)  # float32 near 0.25


@pytest.mark.parametrize("make", NOISE)
def test_noise_stays_inside_the_image(make):
    data = batch(20)
    data["clip"][..., 0] = data["clip"][..., 0].sign()
    data["clip"][..., 1, 0] *= 1.5  # a joint outside of the image may stay there
    out = corrupted(make(), data, 0.01)[..., :2]
    before = data["clip"][..., :2]
    assert (out.abs() <= before.abs().clamp(min=1)).all()
    assert (out != before).any()


def test_in_space_the_third_coordinate_is_no_confidence():
    data = batch(2)
    there = (data["clip"] != 0).any(-1)
    flat, space = (corrupted(SpatialNoise(), data, 0.5, poses=poses) for poses in (FLAT, SPACE))
    assert torch.equal(flat[..., 2], data["clip"][..., 2])
    assert (space[there] != data["clip"][there]).all()
    assert space.abs().max() > 1.2  # also beyond [-1, 1]; 1.1 is the largest confidence


# what is hidden


def hidden(make: Make, level: float) -> Tensor:
    """(B, M, T, V) of clips in which every joint is there."""
    data = batch(5)
    data["clip"][:] = 1
    out = corrupted(make(), data, level)
    gone = (out == 0).all(-1)
    assert torch.equal((out == 0).any(-1), gone)  # coordinates and confidence go together
    assert torch.equal(gone[:, :1].expand_as(gone), gone)
    return gone[:, 0]


@given(st.integers(0, 10))
def test_occlusion_hides_the_same_joints_in_every_frame(tenths):
    gone = hidden(JointOcclusion, tenths / 10)
    assert (gone.sum(-1) == round(tenths / 10 * V)).all()
    assert torch.equal(gone, gone[:, :1].expand_as(gone))


def test_masked_frames_are_empty_and_keypoints_are_hidden_one_by_one():
    frames, keypoints = hidden(FrameMasking, 0.4), hidden(KeypointOcclusion, 0.4)
    assert torch.equal(frames.any(-1), frames.all(-1))
    assert frames.any()
    # 400 draws: 5 standard deviations
    assert abs(keypoints.float().mean() - 0.4) < 5 * 0.5 / 20
    assert (keypoints.any(-1) != keypoints.all(-1)).any()


@pytest.mark.parametrize("make", HIDING, ids=name_of)
def test_what_is_hidden_grows_with_the_level(make):
    levels = (0.1, 0.3, 0.5, 0.9, 1.0)
    gone = [hidden(make, level) for level in levels]
    for less, more in itertools.pairwise(gone):
        assert not (less & ~more).any()
    assert gone[0].sum() < gone[-1].sum()


@pytest.mark.parametrize("part", PARTS)
@given(st.integers(0, 8))
def test_a_part_is_hidden_in_a_window(part, eighths):
    gone = hidden(partial(PartOcclusion, part=part), eighths / 8)
    joints = [joint for one in PARTS[part] for joint in BODY.parts[one]]
    others = [joint for joint in range(V) if joint not in joints]
    assert not gone[..., others].any()
    frames = gone[..., joints].any(-1)
    assert torch.equal(gone[..., joints].all(-1), frames)
    assert (frames.sum(-1) == eighths).all()
    starts = frames[:, :1].int().sum(-1) + (frames[:, 1:] & ~frames[:, :-1]).sum(-1)
    assert (starts == min(eighths, 1)).all()


def test_parts_of_the_layouts_in_the_spec():
    groups = {
        "h36m17": {
            "left_arm": {11, 12, 13},
            "right_arm": {14, 15, 16},
            "left_leg": {4, 5, 6},
            "right_leg": {1, 2, 3},
            "trunk": {0, 7, 8, 9, 10},
        },
        "coco17": {
            "left_arm": {5, 7, 9},
            "right_arm": {6, 8, 10},
            "left_leg": {11, 13, 15},
            "right_leg": {12, 14, 16},
            "trunk": {0, 1, 2, 3, 4},
        },
    }
    for layout, parts in groups.items():
        both = {side: parts[f"left_{side}"] | parts[f"right_{side}"] for side in ("arm", "leg")}
        for part, joints in {**parts, "arms": both["arm"], "legs": both["leg"]}.items():
            skeleton = SKELETONS[layout]
            clip = torch.ones(1, 1, 1, len(skeleton), 3)
            corruption = PartOcclusion(part=part)
            zero = torch.zeros(1, 1)
            out = corruption(clip, zero, zero.long(), 1.0, Poses(skeleton, 2))
            assert set((out[0, 0, 0] == 0).all(-1).nonzero().flatten().tolist()) == joints


@pytest.mark.parametrize("layout", SKELETONS)
def test_every_named_layout_has_all_parts_and_sides(layout):
    poses = Poses(SKELETONS[layout], 3)
    for corruption in (*(PartOcclusion(part=part) for part in PARTS), SideSwap()):
        assert corruption.skip_reason(poses) is None


def test_what_does_not_apply_says_why():
    chain = Poses(Skeleton("chain", ("a", "b"), (-1, 0)), 3)
    reasons = {make().name: make().skip_reason(chain) for make in ALL}
    assert {name: reason for name, reason in reasons.items() if reason} == {
        **{
            f"occlusion_{part}": f"chain has no joints named as {PARTS[part][0].replace('_', ' ')}"
            for part in PARTS
            if part != "trunk"
        },
        "occlusion_trunk": "chain has no other joints",
        "confidence_dropout": "3D joints have no confidence",
        "side_swap": "chain has no pairs of left and right joints",
    }


def test_an_unknown_part_is_refused():
    with pytest.raises(InputError, match="part=tail: expected left_arm, right_arm"):
        PartOcclusion(part="tail")


# time


def with_steps(length: int, recorded: int = 30, padding: int = 0, seed: int = 0):
    """Clips in which every frame knows its step, from 1."""
    data = batch(3, recorded, length, seed, padding=padding)
    data["clip"][:, :, :length, :, 0] = torch.arange(1, length + 1).view(-1, 1).float()
    return data


def steps_of(out: Tensor, length: int) -> list[list[int]]:
    """The steps that each clip shows, from 0; the same for all joints and persons."""
    shown = out[:, :, :length, :, 0]
    assert torch.equal(shown, shown[:, :1, :, :1].expand_as(shown))
    return (shown[:, 0, :, 0] - 1).int().tolist()


@given(
    *(st.floats(0, 1), st.integers(1, 20), st.integers(1, 40)),
    st.integers(0, 3),
    st.integers(0, 50),
)
def test_frame_drop_stretches_what_is_left(level, length, recorded, padding, seed):
    data = with_steps(length, recorded, padding, seed)
    fate = torch.rand(3, recorded, generator=torch.Generator().manual_seed(seed))
    out = FrameDrop()(data["clip"], fate, data["frame"], level, FLAT)
    for i, shown in enumerate(steps_of(out, length)):
        mine = fate[i, data["frame"][i, :length]]
        kept = [t for t in range(length) if mine[t] >= level]
        kept = kept or [t for t in range(length) if mine[t] == mine.max()]
        assert shown == [kept[j * len(kept) // length] for j in range(length)]


@given(*(st.floats(0, 1), st.integers(1, 20), st.floats(0, 1, exclude_max=True, width=32)))
def test_frame_rate_holds_a_pose_until_the_next(level, length, phase):
    data = with_steps(length)
    draws = torch.full((3, 1), phase)
    out = FrameRate()(data["clip"], draws, data["frame"], level, FLAT)
    expected, last = [], None
    for t in range(length):
        number = int(t * (1 - level) + float(draws[0, 0].double()))
        if number != last:
            pose, last = t, number
        expected.append(pose)
    assert steps_of(out, length) == [expected] * 3


@given(*(st.floats(0, 1), st.integers(1, 20), st.integers(0, 3), st.integers(0, 50)))
def test_time_crop_keeps_one_stretch(level, length, padding, seed):
    data = with_steps(length, padding=padding)
    place = torch.rand(3, 1, generator=torch.Generator().manual_seed(seed))
    out = TimeCrop()(data["clip"], place, data["frame"], level, FLAT)
    size = max(1, round((1 - level) * length))
    for i, shown in enumerate(steps_of(out, length)):
        start = int(float(place[i, 0].double()) * (length - size + 1))
        assert shown == [start + j * size // length for j in range(length)]


@given(
    *(st.integers(1, 30), st.integers(0, 4), st.floats(0, 1), st.floats(0, 1)),
    st.floats(0, 1, exclude_max=True, width=32),
)
def test_windows_are_nested(length, padding, one, other, place):
    frame = torch.cat((torch.arange(length), torch.full((padding,), -1))).unsqueeze(0)
    small, large = (
        time_window(frame, share, torch.tensor([[place]])) for share in sorted((one, other))
    )
    assert not (small & ~large).any()
    assert not large[:, length:].any()
    assert large.sum() == round(max(one, other) * length)


def test_frame_drop_loses_the_share_of_its_level():
    fate = FrameDrop().draw(np.random.default_rng(0), 20_000, FLAT)
    for level in FrameDrop().levels:
        # 5 standard deviations of 20000 draws
        assert abs((fate < level).mean() - level) < 5 * 0.5 / 20_000**0.5


# confidence, sides, size


def test_confidence_dropout_leaves_places_and_joints():
    data = batch(6)
    out = corrupted(ConfidenceDropout(), data, 0.5)
    assert torch.equal(out[..., :2], data["clip"][..., :2])
    assert torch.equal(out[..., 2] > 0, data["clip"][..., 2] > 0)
    ratio = (out[..., 2] / data["clip"][..., 2])[data["clip"][..., 2] > 0]
    low = ratio < 0.5
    torch.testing.assert_close(ratio[low], torch.full_like(ratio[low], 0.01))
    assert (ratio[~low] == 1).all()
    assert 0.3 < low.float().mean() < 0.7  # hundreds of draws


def test_sides_are_exchanged_in_whole_frames_and_in_more_at_a_higher_level():
    data = batch(6)
    clip = data["clip"]
    order = [BODY.joints.index(other_side(name)) for name in BODY.joints]
    before = torch.zeros(6, 8, dtype=torch.bool)
    for level in (0.2, 0.6, 1.0):
        out = corrupted(SideSwap(), data, level)
        swapped = (out != clip).flatten(3).any(-1)[:, 0]
        expected = torch.where(swapped[:, None, :, None, None], clip[..., order, :], clip)
        assert torch.equal(out, expected)
        assert not (before & ~swapped).any()
        before = swapped
    assert before.all()


def other_side(name: str) -> str:
    sides = {"left_": "right_", "right_": "left_"}
    for side, other in sides.items():
        if name.startswith(side):
            return other + name.removeprefix(side)
    return name


@pytest.mark.parametrize("poses", [FLAT, SPACE])
def test_bodies_grow_or_shrink_about_their_middle(poses):
    data = batch(12)
    C, clip = poses.coordinates, data["clip"]
    there = (clip != 0).any(-1, keepdim=True)
    signs = set()
    for i in range(12):
        alone = {key: value[i : i + 1] for key, value in data.items() if key != "sequence"}
        out = corrupted(BodyScale(), alone, 0.25, poses=poses)[0]
        weight = there[i].float()
        middle = (clip[i, ..., :C] * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)
        arm, longer = (clip[i, ..., :C] - middle)[:1], (out[..., :C] - middle)[:1]
        seen = there[i, :1].expand_as(arm)
        factor = longer[seen] / arm[seen]
        sign = 1 if factor.mean() > 1 else -1
        signs.add(sign)
        # float32 of coordinates below 1, relative to arms of at least a thousandth
        wide = arm[seen].abs() > 1e-3
        torch.testing.assert_close(
            factor[wide], torch.full_like(factor[wide], 1.25**sign), rtol=2e-3, atol=0
        )
        assert torch.equal(out[..., C:], clip[i, ..., C:])
    assert signs == {1, -1}
