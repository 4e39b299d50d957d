"""Corruptions of time."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskclr_pl.robustness.corruptions import (
    FrameDrop,
    FrameRate,
    TimeCrop,
)
from maskclr_pl.robustness.corruptions.base import time_window
from tests.helpers.robustness_tools import FLAT, batch


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
def test_frame_drop_stretches_the_remaining_frames(level, length, recorded, padding, seed):
    data = with_steps(length, recorded, padding, seed)
    draws = torch.rand(3, recorded, generator=torch.Generator().manual_seed(seed))
    out = FrameDrop()(data["clip"], draws, data["frame"], level, FLAT)
    for i, shown in enumerate(steps_of(out, length)):
        scores = draws[i, data["frame"][i, :length]]
        kept = [t for t in range(length) if scores[t] >= level]
        kept = kept or [t for t in range(length) if scores[t] == scores.max()]
        assert shown == [kept[j * len(kept) // length] for j in range(length)]


@given(*(st.floats(0, 1), st.integers(1, 20), st.floats(0, 1, exclude_max=True, width=32)))
def test_frame_rate_repeats_poses(level, length, phase):
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
def test_time_crop_keeps_a_contiguous_part(level, length, padding, seed):
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


def test_frame_drop_drops_the_share_of_its_level():
    draws = FrameDrop().draw(np.random.default_rng(0), 20_000, FLAT)
    for level in FrameDrop().levels:
        # 5 standard deviations of 20000 draws
        assert abs((draws < level).mean() - level) < 5 * 0.5 / 20_000**0.5
