"""Occlusion of joints, parts and frames."""

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskclr_pl.robustness.corruptions import (
    PARTS,
    FrameMasking,
    JointOcclusion,
    KeypointOcclusion,
    PartOcclusion,
    Poses,
    SideSwap,
)
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.types import InputError
from tests.helpers.robustness_tools import (
    ALL,
    BODY,
    OCCLUSIONS,
    Make,
    V,
    batch,
    corrupted,
    name_of,
)


def occluded_joints(make: Make, level: float) -> Tensor:
    """(B, M, T, V) of clips in which every joint is visible."""
    data = batch(5)
    data["clip"][:] = 1
    out = corrupted(make(), data, level)
    occluded = (out == 0).all(-1)
    assert torch.equal((out == 0).any(-1), occluded)  # coordinates and confidence go together
    assert torch.equal(occluded[:, :1].expand_as(occluded), occluded)
    return occluded[:, 0]


@given(st.integers(0, 10))
def test_joint_occlusion_is_constant_over_time(tenths):
    occluded = occluded_joints(JointOcclusion, tenths / 10)
    assert (occluded.sum(-1) == round(tenths / 10 * V)).all()
    assert torch.equal(occluded, occluded[:, :1].expand_as(occluded))


def test_masked_frames_are_empty_and_keypoints_are_independent():
    frames, keypoints = occluded_joints(FrameMasking, 0.4), occluded_joints(KeypointOcclusion, 0.4)
    assert torch.equal(frames.any(-1), frames.all(-1))
    assert frames.any()
    # 400 draws: 5 standard deviations
    assert abs(keypoints.float().mean() - 0.4) < 5 * 0.5 / 20
    assert (keypoints.any(-1) != keypoints.all(-1)).any()


@pytest.mark.parametrize("make", OCCLUSIONS, ids=name_of)
def test_higher_levels_occlude_more(make):
    levels = (0.1, 0.3, 0.5, 0.9, 1.0)
    occluded = [occluded_joints(make, level) for level in levels]
    for less, more in itertools.pairwise(occluded):
        assert not (less & ~more).any()
    assert occluded[0].sum() < occluded[-1].sum()


@pytest.mark.parametrize("part", PARTS)
@given(st.integers(0, 8))
def test_parts_are_occluded_in_a_window(part, eighths):
    occluded = occluded_joints(partial(PartOcclusion, part=part), eighths / 8)
    joints = [joint for one in PARTS[part] for joint in BODY.parts[one]]
    others = [joint for joint in range(V) if joint not in joints]
    assert not occluded[..., others].any()
    frames = occluded[..., joints].any(-1)
    assert torch.equal(occluded[..., joints].all(-1), frames)
    assert (frames.sum(-1) == eighths).all()
    starts = frames[:, :1].int().sum(-1) + (frames[:, 1:] & ~frames[:, :-1]).sum(-1)
    assert (starts == min(eighths, 1)).all()


def test_parts_of_known_layouts():
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
def test_known_layouts_have_all_parts_and_sides(layout):
    poses = Poses(SKELETONS[layout], 3)
    for corruption in (*(PartOcclusion(part=part) for part in PARTS), SideSwap()):
        assert corruption.skip_reason(poses) is None


def test_inapplicable_corruptions_give_reasons():
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


def test_unknown_parts_are_refused():
    with pytest.raises(InputError, match="part=tail: expected left_arm, right_arm"):
        PartOcclusion(part="tail")
