from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.data.splits import draw_labeled
from maskclr_pl.types import InputError
from tests.helpers.protocol_tools import toy_data, toy_store

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=80).map(np.array)
SHARES = st.floats(0.001, 1.0)
SEEDS = st.integers(0, 2**31)


@given(LABELS, SHARES, SEEDS)
def test_each_class_has_its_share(labels, share, seed):
    chosen = draw_labeled(labels, share, seed)
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    counts, whole = Counter(labels[chosen].tolist()), Counter(labels.tolist())
    assert counts == {label: max(1, round(share * n)) for label, n in whole.items()}


@given(LABELS, SHARES, SEEDS)
def test_the_draw_depends_on_the_seed_alone(labels, share, seed):
    np.random.seed(0)  # noqa: NPY002  # somebody else's
    first = draw_labeled(labels, share, seed)
    np.random.random(7)  # noqa: NPY002
    assert np.array_equal(draw_labeled(labels, share, seed), first)


@given(LABELS, SHARES, SHARES, SEEDS)
def test_a_larger_share_contains_the_smaller(labels, a, b, seed):
    small, large = (draw_labeled(labels, share, seed) for share in sorted((a, b)))
    assert set(small.tolist()) <= set(large.tolist())


def test_seeds_draw_other_clips():
    labels = np.zeros(1000, np.int64)
    drawn = [set(draw_labeled(labels, 0.1, seed).tolist()) for seed in (0, 1)]
    assert len(drawn[0] & drawn[1]) < 30  # 10 expected, standard deviation below 3


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path)


def test_a_share_of_the_training_clips(store):
    whole, part = toy_data(store, seed=3), toy_data(store, seed=3, label_fraction=0.2)
    assert set(part.train.names) < set(whole.train.names)
    assert part.val.names == whole.val.names
    assert part.test.names == whole.test.names
    assert Counter(part.train.labels.tolist()) == {0: 1, 1: 1, 2: 1}
    assert part.notes == ["3 of 18 training clips are labeled and used"]
    assert part.train.train


def test_a_file_gives_the_same_clips_back(store, tmp_path):
    """Whatever the seed holds out: a clip that is named is trained on."""
    drawn = toy_data(store, seed=3, label_fraction=0.5)
    file = tmp_path / "labeled.txt"
    file.write_text("\n".join(drawn.train.names) + "\n\n")
    for seed in range(6):
        again = toy_data(store, seed=seed, label_fraction=str(file))
        assert sorted(again.train.names) == sorted(drawn.train.names)
        assert not set(again.train.names) & set(again.val.names)


def test_files_that_name_other_clips(store, tmp_path):
    test = toy_data(store).test.names[0]
    file = tmp_path / "names.txt"
    for text, why in (
        (f"c00\n{test}\n", f"1 of 2 names are not in split 'train', for example '{test}'"),
        ("\n \n", "is empty"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=why):
            toy_data(store, label_fraction=str(file))
    file.write_bytes(b"\xff\xfe")
    for path in (file, tmp_path / "gone", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            toy_data(store, label_fraction=str(path))


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan"), True])
def test_shares_that_are_none(store, share):
    with pytest.raises(InputError, match=r"^data\.label_fraction=.*: expected a share in \(0, 1\]"):
        toy_data(store, label_fraction=share)


def test_no_validation_part(store):
    data = toy_data(store, val_fraction=0)
    assert len(data.train) == 24
    assert data.val_dataloader() == []
