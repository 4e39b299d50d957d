"""Transforms from 3D clips to corrupted 2D ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.transforms import CropScale, CropScale3D, DropJoints, Mirror, PoseNoise, project
from tests.transforms.test_transforms_3d import bodies, seeds

PAIRS = [(1, 2), (3, 4)]
JOINTS = 5


def flat_clip(clips=1, frames=60, joints=4):
    """(x, y, confidence), all joints visible."""
    clip = torch.rand(clips, 1, frames, joints, 3) * 0.5
    clip[..., 2] = 1
    return clip


def some(seed):
    """3D clips of two persons with joints and frames missing."""
    return bodies(3, 2, 6, JOINTS, seed=seed, hidden=0.1, away=0.1)


def visible(clip):
    return (clip != 0).any(-1)


@given(seeds, st.floats(0.25, 1))
def test_crop_matches_loops(seed, ratio):
    clip = some(seed)
    out = CropScale3D((ratio, ratio))(clip)
    for before, after in zip(clip.double().numpy(), out.numpy(), strict=True):
        points = [p for p in before.reshape(-1, 3) if p.any()]
        low, high = np.min(points, axis=0), np.max(points, axis=0)
        side = max(high[0] - low[0], high[1] - low[1]) / ratio
        for p, q in zip(before.reshape(-1, 3), after.reshape(-1, 3), strict=True):
            expected = np.zeros(3)
            if p.any():
                x, y = (p[:2] - (low + high)[:2] / 2) * 2 / side
                expected = np.array([x, -y, 2 * p[2] / side])
            np.testing.assert_allclose(q, expected, atol=1e-5)  # metres in float32
        assert np.abs(after[..., :2]).max() == pytest.approx(ratio, abs=1e-5)


def test_crop_matches_the_crop_of_2d_clips():
    """The 2D recipes of the same ratio see the pre-trained backbone's units (2 / S there)."""
    clip = some(3)
    flat = project(clip)
    flat[..., 1] *= -1
    out = project(CropScale3D((0.5, 0.5))(clip))
    torch.testing.assert_close(out, CropScale((2.0, 2.0))(flat), atol=1e-5, rtol=0)


def test_clips_without_a_box_are_empty():
    clip = torch.zeros(3, 2, 4, JOINTS, 3)
    clip[1, 0, 0, :3] = torch.rand(3, 3)  # three points
    clip[2, 0] = 1.0  # no extent
    out = CropScale3D()(clip)
    assert not out.any()
    assert out.isfinite().all()


@given(seeds)
def test_mirror_is_its_own_inverse(seed):
    clip = some(seed)
    mirror, never = Mirror(PAIRS, p=1.0), Mirror(PAIRS, p=0.0)
    once = mirror(clip)
    for left, right in PAIRS:
        expected = clip[..., right, :] * torch.tensor([-1.0, 1.0, 1.0])
        assert torch.equal(once[..., left, :], expected)
    assert torch.equal(once[..., 0, 1:], clip[..., 0, 1:])
    assert torch.equal(mirror(once), clip)
    assert torch.equal(never(clip), clip)


def test_half_of_the_clips_are_mirrored():
    torch.manual_seed(0)
    clip = some(0)[:1].expand(4000, -1, -1, -1, -1)
    changed = (Mirror(PAIRS)(clip) != clip).flatten(1).any(1).float().mean()
    assert abs(changed - 0.5) < 5 * 0.5 / 4000**0.5


@given(seeds)
def test_projection_keeps_xy_and_visibility(seed):
    clip = some(seed)
    out = project(clip)
    assert torch.equal(out[..., :2], clip[..., :2])
    assert torch.equal(out[..., 2] == 1, visible(clip))
    assert torch.equal(out[..., 2] == 0, ~visible(clip))


@given(seeds)
def test_missing_joints_stay_missing(seed):
    clip = project(some(seed))
    for corrupt in (PoseNoise(), DropJoints()):
        out = corrupt(clip)
        assert out.shape == clip.shape
        assert not out[clip[..., 2] == 0].any()
        assert not out[out[..., 2] == 0].any()
        assert ((out[..., 2] >= 0) & (out[..., 2] <= 1)).all()
        assert torch.equal(corrupt(clip[:0]), clip[:0])


@pytest.mark.parametrize(
    ("weight", "variance"),
    [(1.0, 0.01**2), (0.0, 0.06**2 / 12), (0.7, 0.7 * 0.01**2 + 0.3 * 0.06**2 / 12)],
)
def test_noise_at_key_frames_has_the_expected_moments(weight, variance):
    torch.manual_seed(0)
    clip = flat_clip(1000, frames=11, joints=3)
    # as many key frames as frames: nothing is interpolated
    noise = PoseNoise(std=0.01, weight=weight, key_frames=11, jitter=0.0)
    noisy = noise(clip)
    shift = noisy[..., :2] - clip[..., :2]
    shift[noisy[..., 2] == 0] = 0
    count = shift.numel()
    assert abs(shift.mean()) < 5 * math.sqrt(variance / count)
    # of a normal distribution the largest kurtosis here: 2 / n of the variance squared
    assert shift.var().item() == pytest.approx(variance, rel=5 * math.sqrt(4 / count))
    # axes and joints are independent
    assert abs((shift[..., 0] * shift[..., 1]).mean()) < 5 * variance / math.sqrt(count / 2)


def test_displacement_is_linear_between_key_frames():
    torch.manual_seed(0)
    noise = PoseNoise(key_frames=4, jitter=0.0)
    like = torch.zeros(2, 5, 1, 16, 3)  # a key frame every five
    shift = noise.displacement(like)
    assert shift.shape == like.shape
    for key in range(3):
        ends = shift[..., 5 * key, :], shift[..., 5 * key + 5, :]
        for step in range(6):
            expected = torch.lerp(*ends, torch.tensor(step / 5))
            torch.testing.assert_close(shift[..., 5 * key + step, :], expected, atol=1e-7, rtol=0)
    assert not torch.allclose(
        shift[..., 4, :] - shift[..., 3, :], shift[..., 6, :] - shift[..., 5, :]
    )


def test_jitter_is_independent_in_every_frame():
    torch.manual_seed(0)
    clip = flat_clip(400, frames=40)
    shift = PoseNoise(std=0.0, weight=1.0, jitter=0.002)(clip)[..., :2] - clip[..., :2]
    assert shift.std().item() == pytest.approx(0.002, rel=0.02)  # 128,000 values
    change = shift.diff(dim=2)
    assert change.var().item() == pytest.approx(2 * 0.002**2, rel=0.04)


@pytest.mark.parametrize("distance", [0.0, 0.005, 0.02, 0.05])
def test_confidence_falls_with_the_distance(distance):
    """Against draws of the published fit, clipped."""
    torch.manual_seed(0)
    score = PoseNoise.confidence(torch.full((100_000,), distance))
    fit = 0.028 / (distance + 0.028) + 1.1 * distance
    draws = np.random.default_rng(0).normal(fit - 0.00459, 0.1431, 100_000).clip(0, 1)
    for statistic in (np.mean, np.std, np.median):
        # 5 standard errors of a difference of two means are 0.0032; less than half of the steps
        assert abs(statistic(score.numpy()) - statistic(draws)) < 0.0045


def test_joints_and_frames_are_dropped_at_their_rates():
    torch.manual_seed(0)
    kept = DropJoints(joint_p=0.05, frame_p=0.1)(flat_clip(200, 50, 8))[..., 2] > 0
    frames = kept.any(-1)
    count = frames.numel()
    assert abs((~frames).float().mean() - 0.1) < 5 * math.sqrt(0.09 / count)
    left = kept[frames]
    assert abs((~left).float().mean() - 0.05) < 5 * math.sqrt(0.05 * 0.95 / left.numel())
    persons = torch.ones(1, 3, 50, 8, 3)
    lost = ~(DropJoints(joint_p=0.0, frame_p=0.5)(persons)[..., 2] > 0).any(-1)[0]
    assert lost.any()
    assert torch.equal(lost, lost[:1].expand_as(lost))  # of all persons
