"""Properties of all corruptions."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.robustness.corruptions import (
    UNITS,
    FrameDrop,
    PartOcclusion,
    SideSwap,
    clip_rng,
)
from maskclr_pl.types import InputError
from tests.helpers.robustness_tools import (
    ALL,
    FLAT,
    IN_SPACE,
    SPACE,
    TIMING,
    batch,
    corrupted,
    draws_of,
    name_of,
)

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
def test_shapes_zeros_and_level_0_are_preserved(
    make, poses, clips, persons, length, padding, recorded, seed
):
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
        elif make is not SideSwap:  # visible, a missing joint changes sides, too
            assert not out[missing].any()
    assert torch.equal(data["clip"], before)


@each
def test_levels_above_0_change_the_clip(make):
    data = batch(4)
    for level in make().levels:
        assert not torch.equal(corrupted(make(), data, level), data["clip"])


@each
def test_results_do_not_depend_on_batching(make):
    data = batch(5, first=3)
    data["frame"][2] //= 3  # a shorter recording beside the others
    together = corrupted(make(), data, make().levels[0])
    for i in range(5):
        alone = {key: value[i : i + 1] for key, value in data.items() if key != "sequence"}
        assert torch.equal(corrupted(make(), alone, make().levels[0])[0], together[i])


@each
def test_draws_do_not_depend_on_the_longest_recording(make):
    short, long = (make().draw(clip_rng(0, 0, "c", "x"), frames, FLAT) for frames in (9, 40))
    assert short.dtype == np.float32
    np.testing.assert_array_equal(short, long[: len(short)])


@each
def test_draws_are_reproducible_and_differ_between_clips(make):
    data = batch(1)
    names = [f"clip{i}" for i in range(8)]  # of a coin, eight clips fall alike once in 128 times
    first = [draws_of(make(), [name], data) for name in names]
    again = [draws_of(make(), [name], data) for name in names]
    other = [draws_of(make(), [name], data, draw=1) for name in names]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not all(torch.equal(first[0], one) for one in first)


@each
def test_persons_share_the_random_part(make):
    data = batch(2)
    data["clip"][:, 1] = data["clip"][:, 0]
    out = corrupted(make(), data, make().levels[-1])
    assert torch.equal(out[:, 0], out[:, 1])


@pytest.mark.parametrize("make", [FrameDrop, partial(PartOcclusion, part="trunk")])
@pytest.mark.parametrize("levels", [(), (0.0, 0.5), (0.5, 0.2), (0.1, 0.1), (-1,), (float("nan"),)])
def test_invalid_levels_are_refused(make, levels):
    with pytest.raises(InputError, match=r"levels .* expected ascending levels above 0"):
        make(levels=levels)


def test_shares_above_1_are_refused():
    with pytest.raises(InputError, match=r"frame_drop: levels \[1\.5\].* at most 1 \(share of fr"):
        FrameDrop((1.5,))


def test_all_corruptions_have_unique_names_and_units():
    names = [make().name for make in ALL]
    assert len(set(names)) == len(names)
    assert {make().name: make().unit for make in ALL}.items() <= UNITS.items()


def test_generators_are_independent():
    states = {
        clip_rng(seed, draw, name, clip).integers(1 << 62)
        for seed in (0, 1)
        for draw in (0, 1)
        for name in ("spatial_noise", "frame_drop")
        for clip in ("a", "b")
    }
    assert len(states) == 16
