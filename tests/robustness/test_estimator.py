"""Confidence, sides and body size."""

import pytest
import torch

from maskclr_pl.robustness.corruptions import (
    BodyScale,
    ConfidenceDropout,
    SideSwap,
)
from tests.helpers.robustness_tools import BODY, FLAT, SPACE, batch, corrupted


def test_confidence_dropout_keeps_positions_and_visibility():
    data = batch(6)
    out = corrupted(ConfidenceDropout(), data, 0.5)
    assert torch.equal(out[..., :2], data["clip"][..., :2])
    assert torch.equal(out[..., 2] > 0, data["clip"][..., 2] > 0)
    ratio = (out[..., 2] / data["clip"][..., 2])[data["clip"][..., 2] > 0]
    low = ratio < 0.5
    torch.testing.assert_close(ratio[low], torch.full_like(ratio[low], 0.01))
    assert (ratio[~low] == 1).all()
    assert 0.3 < low.float().mean() < 0.7  # hundreds of draws


def test_sides_are_swapped_in_whole_frames():
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
def test_bodies_are_scaled_about_their_center(poses):
    data = batch(12)
    C, clip = poses.coordinates, data["clip"]
    visible = (clip != 0).any(-1, keepdim=True)
    signs = set()
    for i in range(12):
        alone = {key: value[i : i + 1] for key, value in data.items() if key != "sequence"}
        out = corrupted(BodyScale(), alone, 0.25, poses=poses)[0]
        weight = visible[i].float()
        middle = (clip[i, ..., :C] * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)
        arm, longer = (clip[i, ..., :C] - middle)[:1], (out[..., :C] - middle)[:1]
        seen = visible[i, :1].expand_as(arm)
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
