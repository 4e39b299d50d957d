"""Batches of several devices and of continued epochs, by the samplers themselves."""

from itertools import chain, islice
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from maskclr_pl.data.samplers import (
    ClassBalancedBatches,
    EpochBatches,
    check_balanced,
    clips_per_rank,
)
from maskclr_pl.types import InputError

WORLDS = st.integers(1, 8)


def of_ranks(batches, world):
    """What each rank gets in one pass: world lists of lists of keys."""
    ranks = []
    for rank in range(world):
        with patch.object(EpochBatches, "_share", lambda self, rank=rank: (rank, world)):
            ranks.append(list(batches))
            assert len(ranks[-1]) == len(batches)
    return ranks


def steps(ranks):
    """The clips of each step, rank after rank."""
    return [[index for _, index in chain(*parts)] for parts in zip(*ranks, strict=True)]


@given(st.integers(2, 8), WORLDS, st.integers(1, 9), st.integers(0, 9), st.integers(0, 3))
def test_a_step_has_the_same_clips_on_any_number_of_devices(share, world, count, rest, epoch):
    """Kind: a batch size per device, which more devices multiplied without a word."""
    total = share * world
    batches = EpochBatches(total * count + rest, total, seed=3, shuffle=True)
    batches.set_epoch(epoch)
    alone, together = of_ranks(batches, 1), of_ranks(batches, world)
    assert steps(together) == steps(alone)
    assert {len(batch) for rank in together for batch in rank} == {share}
    assert {key[0] for key in chain(*chain(*together))} == {epoch}


@given(
    st.lists(st.integers(0, 9), min_size=24, max_size=90).map(np.array),
    st.integers(1, 4),
    st.integers(2, 6),
    st.sampled_from([1, 2, 3, 4]),
    st.integers(0, 3),
)
def test_class_balanced_steps_are_shared(labels, classes, samples, world, epoch):
    """Kind: draws of each rank by itself, so that one step had the same clip on several ranks."""
    assume(classes <= len(np.unique(labels)))
    assume(classes * samples % world == 0 and classes * samples >= 2 * world)
    batches = ClassBalancedBatches(labels, classes, samples, seed=5)
    batches.set_epoch(epoch)
    together = of_ranks(batches, world)
    assert steps(together) == steps(of_ranks(batches, 1))
    for step in steps(together):
        drawn = labels[step]
        assert sorted(np.bincount(drawn)[np.unique(drawn)]) == [samples] * classes
        for label in np.unique(drawn):
            clips = [index for index in step if labels[index] == label]
            if np.count_nonzero(labels == label) >= samples:
                assert len(set(clips)) == samples
    assert len({len(batch) for rank in together for batch in rank}) == 1


def test_no_clip_is_on_two_ranks_of_a_step():
    """Kind: as above, in the numbers of the issue (4 ranks, 128 clips a step)."""
    labels = np.repeat(np.arange(60), 20)
    ranks = of_ranks(ClassBalancedBatches(labels, classes=32, samples=4, seed=0), 4)
    assert len(ranks[0]) == 1200 // 128
    for step in steps(ranks):
        assert len(set(step)) == len(step) == 128


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_a_continued_epoch_has_the_batches_that_are_left(size, batch_size, data):
    """Kind: a run continued in the middle of an epoch repeats its first batches."""
    whole = EpochBatches(size, batch_size, seed=1, shuffle=True)
    done = data.draw(st.integers(0, len(whole)))
    rest = EpochBatches(size, batch_size, seed=1, shuffle=True, completed=lambda: done)
    for batches in (whole, rest):
        batches.set_epoch(4)
    assert list(rest) == list(islice(whole, done, None))
    assert len(rest) == len(whole), "the trainer counts from the start of the epoch"


def test_a_continued_class_balanced_epoch():
    """Kind: as above, where the batches are drawn one after the other."""
    labels = np.arange(60) % 6
    whole = ClassBalancedBatches(labels, 3, 2, seed=1)
    rest = ClassBalancedBatches(labels, 3, 2, seed=1, completed=lambda: 4)
    assert list(rest) == list(whole)[4:]


@given(st.integers(0, 30), st.integers(1, 12), WORLDS)
def test_every_test_clip_is_on_one_rank(size, batch_size, world):
    ranks = of_ranks(EpochBatches(size, batch_size, seed=0, shuffle=False), world)
    clips = [index for _, index in chain(*chain(*ranks))]
    assert sorted(clips) == list(range(size))
    assert all(len(batch) <= max(1, batch_size // world) for batch in chain(*ranks))


@pytest.mark.parametrize(
    ("batch_size", "ranks", "sizes"),
    [(32, 3, "30 or 33"), (4, 4, "8"), (1, 2, "4"), (31, 2, "30 or 32")],
)
def test_batches_that_devices_cannot_share(batch_size, ranks, sizes):
    """Kind: a number of devices that changes what a step learns from."""
    with pytest.raises(InputError, match=rf"{ranks} devices cannot share.* that gives {sizes},"):
        clips_per_rank(batch_size, ranks)


@pytest.mark.parametrize(
    "value", [{"classes": 2}, {"classes": 2, "samples": 1.5}, {"classes": 0, "samples": 1}, 4, "x"]
)
def test_balanced_batches_of_a_wrong_form(value):
    with pytest.raises(
        InputError, match=r"^data\.balanced=.*: expected \{classes: P, samples: K\}"
    ):
        check_balanced(value)
