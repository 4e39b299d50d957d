from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_accuracy

from maskclr_pl.runs.predictions import Predictions, accuracy, ensemble, read_predictions
from maskclr_pl.runs.results import write_predictions
from maskclr_pl.types import InputError

CLIPS, CLASSES = 12, 7


def run(seed: int, clips: int = CLIPS, classes: int = CLASSES) -> Predictions:
    """Names and labels are the same for every seed."""
    names = np.array([f"clip{(5 * i) % 31:02d}" for i in range(clips)])
    logits = np.random.default_rng(seed).normal(size=(clips, classes)).astype(np.float32)
    return Predictions(f"run{seed}", names, np.arange(clips) % classes, logits)


def shuffled(one: Predictions, seed: int) -> Predictions:
    order = np.random.default_rng(seed).permutation(len(one.name))
    return Predictions(one.run, one.name[order], one.label[order], one.logits[order])


def test_the_weighted_sum_of_raw_logits():
    a, b, c = run(0), run(1), run(2)
    total = ensemble([a, b, c], [0.6, 0.6, 0.4])
    for i in range(CLIPS):
        for k in range(CLASSES):
            expected = 0.6 * a.logits[i, k] + 0.6 * b.logits[i, k] + 0.4 * c.logits[i, k]
            assert total.logits[i, k] == pytest.approx(expected, abs=1e-6)  # float32 sums
    assert total.name.tolist() == a.name.tolist()


@given(st.integers(0, 2**20))
def test_clips_are_matched_by_name(seed):
    a, b = run(0), run(1)
    expected = ensemble([a, b], [1.0, 0.5])
    assert np.array_equal(ensemble([a, shuffled(b, seed)], [1.0, 0.5]).logits, expected.logits)


def test_labels_in_another_order_than_the_names_are_refused():
    a, b = run(0), run(1)
    wrong = Predictions("wrong", b.name, np.roll(b.label, 1), b.logits)
    with pytest.raises(InputError, match=r"different labels for 12 clips, .*'clip00'"):
        ensemble([a, wrong], [1.0, 1.0])


def test_other_clips_are_refused():
    a = run(0)
    with pytest.raises(InputError, match=r"tested on different clips: 2 are in only one"):
        ensemble([a, run(1, clips=CLIPS - 2)], [1.0, 1.0])
    twice = Predictions("twice", np.repeat(a.name[:6], 2), a.label, a.logits)
    with pytest.raises(InputError, match="twice: several test clips have the same name"):
        ensemble([a, twice], [1.0, 1.0])
    with pytest.raises(InputError, match="run0 has 7 classes, run1 has 9"):
        ensemble([a, run(1, classes=9)], [1.0, 1.0])
    with pytest.raises(InputError, match="2 runs but 1 weights"):
        ensemble([a, a], [1.0])


def test_accuracies_are_those_of_a_test():
    one = run(4)
    logits, label = torch.from_numpy(one.logits), torch.from_numpy(one.label)
    for k in (1, 5):
        expected = multiclass_accuracy(logits, label, CLASSES, top_k=k, average="micro")
        assert accuracy(one)[f"test/top{k}"] == pytest.approx(100 * expected.item())


def test_files_that_are_none(tmp_path: Path):
    one = run(0)
    write_predictions(tmp_path, one.name, one.label, one.logits)
    assert np.array_equal(read_predictions(tmp_path).logits, one.logits)
    with pytest.raises(InputError, match=r"gone: no predictions\.npz"):
        read_predictions(tmp_path / "gone")
    write_predictions(tmp_path, one.name[:3], one.label, one.logits)
    with pytest.raises(InputError, match="inconsistent shapes"):
        read_predictions(tmp_path)
    (tmp_path / "predictions.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"not an \.npz file of plain arrays"):
        read_predictions(tmp_path)
