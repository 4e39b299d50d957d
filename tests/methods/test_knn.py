import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.methods import KNN
from maskclr_pl.methods.protocols.knn import vote
from tests.helpers.protocol_tools import (
    Coordinates,
    Noisy,
    shared,
    state_of,
    toy_data,
    toy_store,
    trainer,
)


def naive(query, bank, label, classes, k, temperature):
    """Shares of the vote, clip by clip."""
    shares = []
    for q in query:
        similarity = [
            sum(a * b for a, b in zip(q, row, strict=True))
            / (math.sqrt(sum(a * a for a in q)) * math.sqrt(sum(b * b for b in row)))
            for row in bank
        ]
        votes = [0.0] * classes
        for i in sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]:
            votes[label[i]] += math.exp(similarity[i] / temperature)
        shares.append([v / sum(votes) for v in votes])
    return np.array(shares)


@given(
    st.integers(1, 9), st.integers(1, 12), st.sampled_from([0.05, 0.5, 3.0]), st.integers(0, 2**20)
)
def test_votes_equal_a_loop(clips, k, temperature, seed):
    rng = np.random.default_rng(seed)
    query, bank = rng.normal(size=(3, 4)), rng.normal(size=(clips, 4))
    label = rng.integers(0, 5, clips)
    actual = vote(
        *(torch.from_numpy(query), torch.from_numpy(bank), torch.from_numpy(label)),
        *(5, k, temperature),
    )
    expected = naive(query.tolist(), bank.tolist(), label.tolist(), 5, k, temperature)
    # float32 cosines, divided by the temperature: 1e-7 / 0.05
    np.testing.assert_allclose(actual.exp().numpy(), expected, atol=1e-5)
    assert actual.isfinite().all()


def test_low_temperatures_stay_finite():
    bank = torch.eye(3)
    actual = vote(bank, bank, torch.arange(3), 3, 3, 1e-4)
    assert actual.argmax(1).tolist() == [0, 1, 2]
    assert actual.isfinite().all()


def test_clip_without_persons_gives_finite_scores():
    actual = vote(torch.zeros(1, 3), torch.eye(3), torch.arange(3), 3, 2, 0.1)
    assert actual.isfinite().all()


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path)


def test_bank_holds_the_features_of_the_training_clips(store, tmp_path):
    """Without training; the checkpoint alone gives the same answers."""
    method, data = KNN(Coordinates(), 3, k=5, **shared()), toy_data(store)
    run = trainer(0)
    run.validate(method, data, verbose=False)
    assert run.callback_metrics["val/top1"] == 100
    assert method.bank.label.tolist() == data.train.labels.tolist()
    run.save_checkpoint(tmp_path / "knn.ckpt")
    again = KNN(Coordinates(), 3, k=5, **shared())
    content = torch.load(tmp_path / "knn.ckpt", weights_only=True)
    again.load_state_dict(content["state_dict"])
    assert torch.equal(again.bank.features, method.bank.features)
    [metrics] = run.test(again, data, verbose=False)
    assert metrics["test/top1"] == 100


def test_knn_changes_no_parameter(store):
    torch.manual_seed(0)
    method = KNN(Noisy(), 3, **shared())
    before = state_of(method.backbone)
    trainer(0).validate(method, toy_data(store), verbose=False)
    assert not any(parameter.requires_grad for parameter in method.parameters())
    for name, value in method.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("options", [{"k": 0}, {"temperature": 0.0}, {"temperature": -1.0}])
def test_invalid_arguments_are_refused(options):
    with pytest.raises(ValueError, match="positive"):
        KNN(Coordinates(), 3, **options, **shared())
