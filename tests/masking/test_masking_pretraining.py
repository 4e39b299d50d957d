"""Masks of pre-training: motion-aware, and frames then joints."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.masking import (
    AttentionGuidedMasking,
    FrameJointMasking,
    MotionAwareMasking,
    PartMasking,
    RandomMasking,
    TopMasking,
    visible_tokens,
)
from tests.masking.test_masking import FIVE_SIGMA, SEQUENCES
from tests.reference import masking as oracle

MADE = [MotionAwareMasking, FrameJointMasking]


@st.composite
def cases(draw):
    """Strategy, sequences, stride."""
    stride, steps, joints = (draw(st.integers(1, high)) for high in (3, 7, 6))
    strategy = draw(st.sampled_from(MADE))(ratio=draw(st.floats(0, 1)))
    if isinstance(strategy, FrameJointMasking):
        strategy = dataclasses.replace(strategy, frame_ratio=draw(st.floats(0, 1)))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(draw(st.integers(0, 4)), stride * steps, joints, 3, generator=rng)
    return strategy, x, stride


def motion_loops(x: np.ndarray, stride: int) -> np.ndarray:
    """MAMP, section 3.2: |P[s] - P[s - 1]|, mean over the values of a patch."""
    n, frames, joints, channels = x.shape
    out = np.zeros((n, frames // stride, joints))
    for i in range(n):
        for s in range(1, frames // stride):
            for v in range(joints):
                for u in range(stride):
                    now, before = x[i, s * stride + u, v], x[i, (s - 1) * stride + u, v]
                    if now.any() and before.any():
                        out[i, s, v] += np.abs(now - before).sum()
        if frames // stride > 1:
            out[i, 0] = out[i, 1]
    return out / (stride * channels)


@given(cases())
def test_num_masked_matches_the_mask(case):
    strategy, x, stride = case
    before = x.clone()
    mask = strategy(x, None, stride)
    assert torch.equal(x, before)
    n, steps, joints = len(x), x.shape[1] // stride, x.shape[2]
    assert mask.shape == (n, steps, joints)
    assert (mask.sum((1, 2)) == strategy.num_masked(steps, joints)).all()
    if isinstance(strategy, MotionAwareMasking):
        assert strategy.num_masked(steps, joints) == round(strategy.ratio * steps * joints)
        return
    frames, rest = round(strategy.frame_ratio * steps), round(strategy.ratio * joints)
    for sequence in mask.sum(2).tolist():
        whole = sorted(sequence, reverse=True)
        assert whole == [joints] * frames + [rest] * (steps - frames)


@given(cases())
def test_ratio_0_and_1(case):
    strategy, x, stride = case
    assert dataclasses.replace(strategy, ratio=1.0)(x, None, stride).all()
    none = dataclasses.replace(strategy, ratio=0.0)
    if isinstance(none, FrameJointMasking):
        none = dataclasses.replace(none, frame_ratio=0.0)
    assert not none(x, None, stride).any()


@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_motion_against_loops(stride, steps, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, stride * steps, 4, 3, generator=rng)
    x *= torch.rand(x.shape[:3], generator=rng).gt(0.2).unsqueeze(-1)  # some are missing
    motion = MotionAwareMasking.motion(x, stride)
    expected = motion_loops(x.double().numpy(), stride)
    np.testing.assert_allclose(motion.numpy(), expected, atol=1e-6)  # float32 means near 1


def test_first_draw_has_the_probabilities_of_the_formula():
    x = torch.zeros(1, 3, 2, 1)
    x[0, :, :, 0] = torch.tensor([[1.0, 1.0], [1.5, 2.0], [1.5, 2.3]])
    motion = np.array([0.5, 1.0, 0.5, 1.0, 0.0, 0.3])  # the first step as the second
    strategy = MotionAwareMasking(ratio=1 / 6, temperature=0.4)
    expected = oracle.probabilities(motion, 0.4)
    chances = strategy.logits(x, 1)[0].softmax(0)
    np.testing.assert_allclose(chances.numpy(), expected, atol=1e-6)  # float32
    mask = strategy(x.expand(SEQUENCES, 3, 2, 1), None, 1, torch.Generator().manual_seed(0))
    share = mask.flatten(1).float().mean(0)
    np.testing.assert_allclose(share.numpy(), expected, atol=FIVE_SIGMA)


def test_motion_masking_of_still_clips_is_uniform():
    strategy = MotionAwareMasking(ratio=0.4)
    x = torch.zeros(SEQUENCES, 2, 5, 3)
    mask = strategy(x, None, 1, torch.Generator().manual_seed(0))
    share = mask.float().mean(0)
    np.testing.assert_allclose(share.numpy(), np.full((2, 5), 0.4), atol=FIVE_SIGMA)


def test_frames_and_joints_are_uniform_and_drawn_anew():
    strategy = FrameJointMasking(ratio=0.5, frame_ratio=0.25)
    x = torch.zeros(SEQUENCES, 4, 6, 3)
    mask = strategy(x, None, 1, torch.Generator().manual_seed(0))
    share = mask.float().mean(0)  # 0.25 + 0.75 * 0.5
    np.testing.assert_allclose(share.numpy(), np.full((4, 6), 0.625), atol=FIVE_SIGMA)
    # two joints of a frame that is left: 3 of 6 without replacement
    left = ~mask[:, 0].all(1)
    both = (mask[left, 0, 0] & mask[left, 0, 1]).float().mean()
    assert abs(both - 3 / 6 * 2 / 5) < 5 * 0.5 / left.sum().sqrt()
    # the same joint of two frames that are left: independent
    left = left & ~mask[:, 1].all(1)
    both = (mask[left, 0, 0] & mask[left, 1, 0]).float().mean()
    assert abs(both - 1 / 4) < 5 * 0.5 / left.sum().sqrt()


@pytest.mark.parametrize("make", MADE)
def test_draws_come_from_the_generator(make):
    x = torch.randn(8, 5, 6, 3, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    first, same, other = (
        make()(x, None, 1, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99), st.data())
def test_visible_tokens_complement_the_mask(n, steps, joints, seed, data):
    strategy = data.draw(
        st.sampled_from(
            [
                *(RandomMasking(scope=scope) for scope in ("clip", "frame", "tube")),
                *(TopMasking(), AttentionGuidedMasking(), MotionAwareMasking()),
                FrameJointMasking(),
            ]
        )
    )
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, steps, joints, 3, generator=rng)
    mask = strategy(x, torch.rand(n, steps, joints, generator=rng), 1)
    keep = visible_tokens(mask, strategy.num_masked(steps, joints))
    for hidden, kept in zip(mask.flatten(1).tolist(), keep.tolist(), strict=True):
        assert kept == [i for i, one in enumerate(hidden) if not one]


def test_part_masking_has_no_fixed_count():
    assert PartMasking(parts=[[0, 1], [2]]).num_masked(4, 3) is None


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (MotionAwareMasking, {"ratio": 1.1}),
        (MotionAwareMasking, {"temperature": 0.0}),
        (FrameJointMasking, {"ratio": -0.1}),
        (FrameJointMasking, {"frame_ratio": 1.1}),
    ],
)
def test_values_out_of_range_are_refused(make, settings):
    with pytest.raises(ValueError, match="masking"):
        make(**settings)
