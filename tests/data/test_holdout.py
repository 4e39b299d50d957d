"""The clips that are held out for validation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.data.holdout import check_fraction, hold_out, hold_out_notes
from maskclr_pl.types import InputError

FRACTIONS = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**31)
NAMES = [f"class {i}" for i in range(8)]
CLIPS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5)), min_size=2, max_size=120)


@given(CLIPS, st.sampled_from(["all", "some", "none"]), FRACTIONS, SEEDS)
def test_parts_are_disjoint_and_complete_and_all_classes_are_trained_on(
    clips, known, fraction, seed
):
    """Kind: validation clips that training cannot do without (a class done by one subject)."""
    labels, subjects = np.array(clips).T
    if known == "some":
        subjects[0] = -1
    subjects = None if known == "none" else subjects
    kept, held = hold_out(labels, subjects, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert set(labels[kept]) == set(labels)
    assert len(held) or max(np.bincount(labels)) == 1, (
        "whoever has two clips of a class can validate"
    )
    again = hold_out(labels.copy(), subjects, fraction, seed)
    assert np.array_equal(again[0], kept)
    assert np.array_equal(again[1], held)
    hold_out_notes(labels, subjects, kept, held, NAMES)


def test_splits_of_earlier_versions_stay():
    """Computed with version 15b7e28: a run that is continued trains on the same clips."""
    labels, subjects = np.tile(np.arange(3), 10), np.repeat(np.arange(5), 6)
    assert hold_out(labels, subjects, 0.2, seed=7)[1].tolist() == [18, 19, 20, 21, 22, 23]
    assert hold_out(labels, None, 0.2, seed=7)[1].tolist() == [0, 1, 11, 16, 26, 27]


@given(st.integers(3, 12), st.integers(1, 6), FRACTIONS, SEEDS)
def test_subjects_who_all_do_the_same_are_held_out_whole(count, clips, fraction, seed):
    """As many of them as come nearest from above, but one stays."""
    labels = np.tile(np.arange(4), count * clips)
    subjects = np.repeat(np.arange(count), 4 * clips)
    kept, held = hold_out(labels, subjects, fraction, seed)
    assert not set(subjects[kept]) & set(subjects[held])
    expected = min(int(np.ceil(fraction * count - 1e-9)), count - 1)
    if expected > max(1.5 * fraction * count, 1):  # the next one would overshoot by more than half
        expected -= 1
    assert len(set(subjects[held])) == max(1, expected)


@given(st.lists(st.integers(2, 30), min_size=1, max_size=6), FRACTIONS, SEEDS)
def test_without_subjects_each_class_gives_its_share(sizes, fraction, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    _, held = hold_out(labels, None, fraction, seed)
    shares = [min(max(1, round(fraction * size)), size - 1) for size in sizes]
    assert np.bincount(labels[held], minlength=len(sizes)).tolist() == shares


def test_a_subject_who_does_a_class_alone_stays_in_training():
    """Kind: as above; which classes validation does not measure is said."""
    labels = np.array([0, 1, 0, 1, 0, 1, 2, 2, 2])
    subjects = np.array([1, 1, 2, 2, 3, 3, 3, 3, 3])
    for seed in range(20):
        kept, held = hold_out(labels, subjects, 0.3, seed)
        assert set(subjects[held]) <= {1, 2}
        assert len(held)
        assert hold_out_notes(labels, subjects, kept, held, NAMES) == [
            "no validation clips of 1 class (class 2), performed by one subject only"
        ]


def test_clips_are_held_out_where_no_subject_can_be():
    """Kind: as above, where every subject does a class of its own."""
    labels = subjects = np.repeat(np.arange(4), 5)
    kept, held = hold_out(labels, subjects, 0.2, seed=0)
    assert np.bincount(labels[held]).tolist() == [1] * 4
    [note] = hold_out_notes(labels, subjects, kept, held, NAMES)
    assert note.startswith("validation and training clips share subjects: a class depends")


def test_two_subjects_are_said():
    labels, subjects = np.tile([0, 1], 10), np.repeat([1, 2], 10)
    kept, held = hold_out(labels, subjects, 0.2, seed=0)
    [note] = hold_out_notes(labels, subjects, kept, held, NAMES)
    assert note.endswith("there are only two subjects")


@pytest.mark.parametrize("value", [-0.5, float("nan"), 1.0, 1.7, True, "half", None])
def test_fractions_that_are_none(value):
    """Kind: a setting that was accepted whatever its value."""
    with pytest.raises(InputError, match=rf"^data\.val_fraction={value}: expected the share"):
        check_fraction(value)
