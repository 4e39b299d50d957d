import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import maskclr_pl.masking.base
import maskclr_pl.masking.uniform
from maskclr_pl.masking import (
    AttentionGuidedMasking,
    PartMasking,
    RandomMasking,
    TopMasking,
    gumbel,
    mean_over_steps,
    sample_mask,
)
from tests.reference import masking as oracle

POOLED = [AttentionGuidedMasking, TopMasking, RandomMasking]
PARTS = [[0, 1], [2], [3, 4]]
# The share of N independent draws is within 5 standard deviations of its probability, sqrt(p q / N)
# each: fails by chance once in two million; the generators are seeded anyway.
SEQUENCES = 20_000
FIVE_SIGMA = 5 * 0.5 / SEQUENCES**0.5


def sequences(n: int, t: int, v: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clips (N, T, V, 3) and importance (N, T, V) that sums to 1."""
    rng = torch.Generator().manual_seed(seed)
    importance = torch.rand(n, t, v, generator=rng) ** 3
    return torch.randn(n, t, v, 3, generator=rng), importance / importance.sum((1, 2), True)


@st.composite
def cases(draw):
    """Strategy, sequences, importance, stride, tokens per pool."""
    stride, steps, joints = (draw(st.integers(1, high)) for high in (3, 7, 6))
    scope = draw(st.sampled_from(["clip", "frame", "tube"]))
    tube = draw(st.none() | st.integers(1, 9)) if scope == "tube" else None
    strategy = draw(st.sampled_from(POOLED))(
        ratio=draw(st.floats(0, 1)), scope=scope, tube_length=tube
    )
    x, importance = sequences(
        draw(st.integers(0, 4)), stride * steps, joints, draw(st.integers(0, 99))
    )
    return strategy, x, importance, stride


@given(cases())
def test_exact_number_is_masked_in_every_pool(case):
    strategy, x, importance, stride = case
    mask = strategy(x, importance, stride)
    n, steps, joints = len(x), x.shape[1] // stride, x.shape[2]
    assert mask.dtype == torch.bool
    assert mask.shape == (n, steps, joints)
    if strategy.scope == "clip":
        assert (mask.sum((1, 2)) == round(strategy.ratio * steps * joints)).all()
    else:  # per step, and constant over the steps of a tube
        assert (mask.sum(2) == round(strategy.ratio * joints)).all()
    if strategy.scope == "tube":
        length = strategy.tube_length or steps
        for begin in range(0, steps, length):
            tube = mask[:, begin : begin + length]
            assert torch.equal(tube, tube[:, :1].expand_as(tube))


@given(cases())
def test_ratio_0_masks_nothing_and_1_everything(case):
    strategy, x, importance, stride = case
    assert not dataclasses.replace(strategy, ratio=0.0)(x, importance, stride).any()
    assert dataclasses.replace(strategy, ratio=1.0)(x, importance, stride).all()


@given(cases())
def test_inputs_are_not_modified(case):
    strategy, x, importance, stride = case
    before = x.clone(), importance.clone()
    strategy(x, importance, stride)
    assert torch.equal(x, before[0])
    assert torch.equal(importance, before[1])


@given(cases(), st.randoms(use_true_random=False))
def test_permuting_the_batch_permutes_the_masks(case, random):
    """With each sequence's noise; so no sequence depends on the others, or on their number."""
    strategy, x, importance, stride = case
    order = random.sample(range(len(x)), len(x))
    uses_gumbel = isinstance(strategy, AttentionGuidedMasking)
    module, name = (
        (maskclr_pl.masking.base, "gumbel")
        if uses_gumbel
        else (maskclr_pl.masking.uniform, "uniform")
    )
    draw, noise = getattr(module, name), []

    def first_draw(*args, **kwargs):
        noise.append(draw(*args, **kwargs))
        return noise[0].clone()

    def same_noise_permuted(*args, **kwargs):
        return noise[0][order]

    masks = []
    for fake, rows in ((first_draw, list(range(len(x)))), (same_noise_permuted, order)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, fake)
            masks.append(strategy(x[rows], importance[rows], stride))
    assert torch.equal(masks[1], masks[0][order])
    assert len(noise) == (0 if isinstance(strategy, TopMasking) else 1)


@pytest.mark.parametrize("make", POOLED)
@pytest.mark.parametrize(("n", "t"), [(1, 1), (1, 5), (0, 5), (3, 1)])
def test_one_frame_one_person_no_person(make, n, t):
    x, importance = sequences(n, t, 6)
    for scope in ("clip", "frame", "tube"):
        mask = make(ratio=0.5, scope=scope)(x, importance, 1)
        assert mask.shape == (n, t, 6)
        assert (mask.sum((1, 2)) == 3 * t).all()


@pytest.mark.parametrize(("normalize", "temperature"), [("max", 0.4), ("zscore", 0.75)])
def test_first_draw_has_the_probabilities_of_the_formula(normalize, temperature):
    importance = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05, 0.0])
    strategy = AttentionGuidedMasking(
        ratio=1 / 6, scope="frame", temperature=temperature, normalize=normalize
    )
    pools = importance.expand(SEQUENCES, 1, 6)
    expected = oracle.probabilities(importance.double().numpy(), temperature, normalize)
    chances = strategy.logits(pools[:1], 1).flatten().softmax(0)
    np.testing.assert_allclose(chances.numpy(), expected, atol=1e-6)  # float32
    mask = strategy(torch.zeros(SEQUENCES, 1, 6, 3), pools, 1, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(mask.float().mean((0, 1)).numpy(), expected, atol=FIVE_SIGMA)


def test_zscore_is_invariant_to_the_peakedness_of_attention():
    _, importance = sequences(4, 3, 5)
    strategy = AttentionGuidedMasking(normalize="zscore")
    flat = 1 / 15 + 0.01 * importance
    torch.testing.assert_close(
        strategy.logits(flat, 1),
        strategy.logits(importance, 1),
        rtol=0,
        atol=1e-3,  # 1 / 15 has seven digits in float32, of which the variation is in the last four
    )
    published = AttentionGuidedMasking()
    assert published.logits(flat, 1).std() < 0.1 * published.logits(importance, 1).std()


@pytest.mark.parametrize("count", [2, 4])
def test_draws_are_without_replacement(count):
    importance = torch.tensor([[0.3, 0.05], [0.25, 0.0], [0.3, 0.1]])  # T = 3, V = 2
    strategy = AttentionGuidedMasking(ratio=count / 6, scope="clip", temperature=0.5)
    mask = strategy(
        torch.zeros(SEQUENCES, 3, 2, 3),
        importance.expand(SEQUENCES, 3, 2),
        1,
        torch.Generator().manual_seed(1),
    )
    chances = oracle.probabilities(importance.flatten().numpy(), 0.5)
    np.testing.assert_allclose(
        mask.flatten(1).float().mean(0).numpy(), oracle.inclusion(chances, count), atol=FIVE_SIGMA
    )


@pytest.mark.parametrize("normalize", ["max", "zscore"])
@pytest.mark.parametrize("scope", ["clip", "frame", "tube"])
def test_dominant_joint_is_masked_more_often(scope, normalize):
    """Pooling over the batch per joint, as the released code does, gives every joint the ratio."""
    importance = torch.ones(400, 5, 17)
    importance[:, :, 3] = 50
    strategy = AttentionGuidedMasking(ratio=0.5, scope=scope, normalize=normalize)
    mask = strategy(torch.zeros(400, 5, 17, 3), importance, 1, torch.Generator().manual_seed(0))
    share = mask.float().mean((0, 1))
    others = share[torch.arange(17) != 3]
    # about 0.85 against 0.48; chance stays within 5 sqrt(0.25 / 400) = 0.125 of either
    assert share[3] > others.max() + 0.125


def test_temperature_interpolates_between_top_and_uniform():
    x, importance = sequences(200, 4, 5)
    rng = torch.Generator().manual_seed(0)
    cold = AttentionGuidedMasking(temperature=1e-4)(x, importance, 1, rng)
    top = TopMasking()(x, importance, 1)
    # importances closer than about 1e-3 of the maximum may still change places
    assert (cold == top).float().mean() > 0.98
    hot = AttentionGuidedMasking(temperature=1e4)(x, importance, 1, rng)
    assert 0.4 < (hot == top).float().mean() < 0.6  # 4000 tokens: 12 standard deviations


def test_top_masks_the_most_attended():
    x, importance = sequences(6, 4, 5)
    mask = TopMasking(ratio=0.35)(x, importance, 1)
    for row, hidden in zip(importance, mask, strict=True):
        assert row[hidden].min() >= row[~hidden].max()


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 99))
def test_tubes_with_a_remainder(frames, length, seed):
    x, importance = sequences(2, frames, 4, seed)
    pools = mean_over_steps(importance, length)
    for row, pooled in zip(importance, pools, strict=True):
        expected = oracle.stretches(row.double().numpy(), length)
        np.testing.assert_allclose(pooled.numpy(), expected, atol=1e-7)  # float32 means below 1
    mask = TopMasking(ratio=0.5, scope="tube", tube_length=length)(x, importance, 1)
    for begin in range(0, frames, length):
        hidden = mask[:, begin : begin + length]
        best = pools[:, begin // length].topk(2).indices
        expected = torch.zeros(2, 4, dtype=torch.bool).scatter_(1, best, True)
        assert torch.equal(hidden, expected[:, None].expand_as(hidden))


def test_stride_averages_the_frames_of_a_token():
    importance = torch.zeros(1, 6, 3)
    importance[0, 4, 1] = 1  # frame 4 belongs to step 2 of a stride of 2
    mask = TopMasking(ratio=1 / 9)(torch.zeros(1, 6, 3, 3), importance, 2)
    assert mask.nonzero().tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("make", [AttentionGuidedMasking, RandomMasking])
def test_draws_come_from_the_generator(make):
    x, importance = sequences(8, 5, 6)
    state = torch.get_rng_state()
    first, same, other = (
        make()(x, importance, 1, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("scope", ["clip", "tube"])
def test_random_masking_is_uniform(scope):
    strategy = RandomMasking(ratio=0.4, scope=scope)
    x = torch.zeros(SEQUENCES, 2, 5, 3)
    mask = strategy(x, None, 1, torch.Generator().manual_seed(0))
    share = mask.float().mean(0)
    np.testing.assert_allclose(share.numpy(), np.full((2, 5), 0.4), atol=FIVE_SIGMA)


def test_constant_importance_gives_finite_logits():
    x = torch.zeros(2, 3, 4, 3)
    for level in (0.0, 1 / 12):
        importance = torch.full((2, 3, 4), level)
        for normalize in ("max", "zscore"):
            strategy = AttentionGuidedMasking(normalize=normalize)
            assert strategy.logits(importance, 1).isfinite().all()
            assert (strategy(x, importance, 1).sum((1, 2)) == 6).all()
        mask = PartMasking(parts=[[0, 1], [2, 3]], ratio=0.5)(x, importance, 1)
        assert (mask.sum((1, 2)) == 6).all()


def test_low_precision_importance():
    x, importance = sequences(3, 4, 5)
    for strategy in (AttentionGuidedMasking(), TopMasking(), PartMasking(parts=PARTS)):
        assert strategy(x, importance.bfloat16(), 1).shape == (3, 4, 5)


def test_masks_carry_no_gradient():
    x, importance = sequences(2, 3, 5)
    importance.requires_grad_()
    for strategy in (AttentionGuidedMasking(), TopMasking(), PartMasking(parts=PARTS)):
        assert not strategy(x, importance, 1).requires_grad


@pytest.mark.parametrize("ratio", [0.0, 1 / 3, 2 / 3, 1.0])
def test_parts_are_masked_completely(ratio):
    x, importance = sequences(50, 4, 5)
    mask = PartMasking(parts=PARTS, ratio=ratio)(x, importance, 2)
    assert mask.shape == (50, 2, 5)
    assert torch.equal(mask[:, 0], mask[:, 1])
    hidden = torch.stack([mask[:, 0, part].all(1) for part in PARTS], dim=1)
    seen = torch.stack([~mask[:, 0, part].any(1) for part in PARTS], dim=1)
    assert (hidden ^ seen).all()
    assert (hidden.sum(1) == round(ratio * 3)).all()


def test_parts_are_drawn_by_their_mean_importance():
    importance = torch.tensor([0.1, 0.1, 0.4, 0.05, 0.05]).expand(SEQUENCES, 1, 5)
    strategy = PartMasking(parts=PARTS, ratio=1 / 3, temperature=0.5)
    x = torch.zeros(SEQUENCES, 1, 5, 3)
    mask = strategy(x, importance, 1, torch.Generator().manual_seed(0))
    expected = oracle.probabilities(np.array([0.1, 0.4, 0.05]), 0.5)
    share = mask[:, 0].float().mean(0)[[0, 2, 3]]
    np.testing.assert_allclose(share.numpy(), expected, atol=FIVE_SIGMA)
    chance = dataclasses.replace(strategy, temperature=float("inf"))
    mask = chance(x, importance, 1, torch.Generator().manual_seed(0))
    share = mask[:, 0].float().mean(0)[[0, 2, 3]]
    np.testing.assert_allclose(share.numpy(), np.full(3, 1 / 3), atol=FIVE_SIGMA)


def test_sample_mask_takes_the_highest():
    scores = torch.tensor([[0.1, 3.0, -1.0], [5.0, -2.0, 4.0]])
    assert sample_mask(scores, 1).tolist() == [[False, True, False], [True, False, False]]
    assert not sample_mask(scores, 0).any()


def test_gumbel_noise_has_its_mean_and_variance():
    noise = gumbel((200_000,), torch.zeros(1), torch.Generator().manual_seed(0))
    assert noise.isfinite().all()
    # Euler's constant and pi^2 / 6; 5 standard errors are 0.015 and 0.04
    assert abs(noise.mean() - 0.57722) < 0.015
    assert abs(noise.var() - 1.64493) < 0.04


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (RandomMasking, {"ratio": 1.1}),
        (TopMasking, {"ratio": -0.1}),
        (RandomMasking, {"tube_length": 3}),
        (RandomMasking, {"scope": "tube", "tube_length": 0}),
        (AttentionGuidedMasking, {"temperature": 0.0}),
        (RandomMasking, {"scope": "frame", "tube_length": 2}),
        (PartMasking, {"parts": []}),
        (PartMasking, {"parts": [[0], []]}),
        (PartMasking, {"parts": PARTS, "ratio": 2.0}),
        (PartMasking, {"parts": PARTS, "temperature": 0.0}),
    ],
)
def test_values_out_of_range_are_refused(make, settings):
    with pytest.raises(ValueError, match="masking"):
        make(**settings)
