"""Gaussian noise."""

import numpy as np
import pytest
import torch

from maskclr_pl.robustness.corruptions import (
    Poses,
    SpatialNoise,
    SpatiotemporalNoise,
    clip_rng,
)
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.transforms import Convert
from tests.helpers.robustness_tools import FLAT, SPACE, batch, corrupted

NOISE = [SpatialNoise, SpatiotemporalNoise]


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
def test_averaged_joints_have_less_noise(make):
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
    result = noise[:, 0].transpose(1, 2).flatten(0, 1).std(0) / sigma
    torch.testing.assert_close(result, expected, rtol=0.09, atol=0)
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
def test_levels_scale_the_same_noise(make):
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


def test_3d_noise_changes_the_third_coordinate():
    data = batch(2)
    visible = (data["clip"] != 0).any(-1)
    flat, space = (corrupted(SpatialNoise(), data, 0.5, poses=poses) for poses in (FLAT, SPACE))
    assert torch.equal(flat[..., 2], data["clip"][..., 2])
    assert (space[visible] != data["clip"][visible]).all()
    assert space.abs().max() > 1.2  # also beyond [-1, 1]; 1.1 is the largest confidence
