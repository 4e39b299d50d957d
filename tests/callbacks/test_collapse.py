import logging
import math
import re
from unittest.mock import Mock

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.callbacks import CollapseCallback
from maskclr_pl.callbacks.collapse import effective_rank, feature_std
from maskclr_pl.methods import FeatureQueue


class Owner(L.LightningModule):
    """A method, as far as the callback looks at it."""

    def __init__(self, queue: FeatureQueue | None = None):
        super().__init__()
        self.logged: dict[str, float] = {}
        if queue is not None:
            self.queue = queue

    def log(self, name, value):
        self.logged[name] = float(value)

    def log_dict(self, values, sync_dist):
        for name, value in values.items():
            self.log(name, value)


def epoch(callback, owner, batches, rank=0):
    trainer = Mock(spec=L.Trainer, current_epoch=2, is_global_zero=rank == 0)
    callback.on_train_epoch_start(trainer, owner)
    for i, embedding in enumerate(batches):
        outputs = {"loss": torch.zeros(())}
        outputs |= {} if embedding is None else {"embedding": embedding}
        callback.on_train_batch_end(trainer, owner, outputs, None, i)
    callback.on_train_epoch_end(trainer, owner)
    return owner.logged


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 99))
def test_values_against_loops(rows, width, seed):
    embedding = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    x = embedding.double().numpy()
    x = np.stack([row / math.sqrt(sum(v * v for v in row)) for row in x])
    spread = [math.sqrt(np.mean((x[:, c] - x[:, c].mean()) ** 2)) for c in range(width)]
    # relative to the largest possible: float64
    assert feature_std(embedding) == pytest.approx(np.mean(spread) * math.sqrt(width), abs=1e-9)
    eigen = np.linalg.eigvalsh(x.T @ x).clip(min=0)
    share = np.sqrt(eigen) / np.sqrt(eigen).sum()
    entropy = -sum(p * math.log(p) for p in share if p > 0)
    # the square root of an eigenvalue that should be zero is 1e-8
    assert effective_rank(embedding) == pytest.approx(math.exp(entropy), rel=1e-5)


def test_known_cases():
    axes = torch.cat((torch.eye(4), -torch.eye(4)))
    assert feature_std(axes) == pytest.approx(1)
    assert effective_rank(axes) == pytest.approx(4)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1)
    assert feature_std(3 * torch.ones(5, 3)) == pytest.approx(0, abs=1e-12)
    gaussian = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert feature_std(gaussian) == pytest.approx(1, abs=0.02)  # 64000 draws
    assert 15.9 < effective_rank(gaussian) <= 16


def test_degenerate_rows_have_values():
    for rows in (torch.zeros(3, 2), torch.ones(1, 4)):
        assert math.isfinite(effective_rank(rows))
        assert feature_std(rows) == 0


def test_what_is_logged(caplog):
    caplog.set_level(logging.WARNING, "maskclr_pl")
    batches = torch.randn(6, 8, 5, generator=torch.Generator().manual_seed(0))
    queue = FeatureQueue(8, (5,))
    queue.enqueue(torch.zeros(2, 5))
    found = epoch(CollapseCallback(samples=20), Owner(queue), list(batches))
    last = batches.flatten(0, 1)[-20:]
    assert found == pytest.approx(
        {
            "train/feature_std": feature_std(last),
            "train/effective_rank": effective_rank(last),
            "train/queue_age": 6 / 8,
        }
    )
    assert not caplog.records


def test_only_the_last_rows_are_kept():
    callback, owner = CollapseCallback(samples=20), Owner()
    epoch(callback, owner, [torch.randn(8, 5) for _ in range(50)])
    assert len(callback._last) == 3
    epoch(callback, Owner(), [None])
    assert not callback._last  # nothing of another epoch


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (torch.ones(8, 4), r"epoch 3: standard deviation 0\.000 .* effective rank 1\.0 of 4 "),
        # two opposite directions are spread out, but of one dimension
        (torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]] * 4), r"effective rank 1\.0 of 4"),
        (torch.full((8, 4), math.nan), "epoch 3 are not finite"),
    ],
    ids=["point", "line", "nan"],
)
def test_collapse_is_said_in_one_line(caplog, monkeypatch, rows, what):
    logger = logging.getLogger("maskclr_pl")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [])  # those of a command that ran in this process
    epoch(CollapseCallback(), Owner(), [rows])
    [record] = [record for record in caplog.records if record.name == logger.name]
    assert record.levelname == "WARNING"
    caplog.clear()
    assert re.search(what, record.getMessage())
    assert "\n" not in record.getMessage()
    epoch(CollapseCallback(), Owner(), [rows.nan_to_num(1.0)], rank=1)
    assert not caplog.records


def test_methods_without_embedding_are_left_alone():
    assert epoch(CollapseCallback(), Owner(), [None, torch.zeros(0, 4)]) == {}


def test_one_row_is_no_collapse(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("maskclr_pl"), "propagate", True)
    epoch(CollapseCallback(), Owner(), [torch.ones(1, 4)])
    assert not caplog.records


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="samples"):
        CollapseCallback(samples=1)
