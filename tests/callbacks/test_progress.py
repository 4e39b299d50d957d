"""Lines after each epoch."""

import lightning as L
import pytest
import torch

from maskclr_pl.callbacks import ProgressLog


class Rank(L.Trainer):
    """Notes that its metrics were asked for, which in DDP is a collective call."""

    is_global_zero = True
    current_epoch = 0
    max_epochs, max_steps = 2, -1
    num_training_batches, accumulate_grad_batches = 100, 1
    world_size = 1

    def __init__(self, first: bool):
        self.is_global_zero, self.asked = first, 0

    @property
    def callback_metrics(self) -> dict[str, torch.Tensor]:
        self.asked += 1
        return {"train/loss": torch.tensor(0.5), "masked/nose": torch.tensor(0.2)}


class Masked(L.LightningModule):
    masking = "some"


@pytest.mark.parametrize("first", [True, False])
def test_every_rank_asks_for_the_metrics_and_one_speaks(
    first: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the ranks wait for each other for ever, where a method gathers at the epoch's end."""
    monkeypatch.setattr("maskclr_pl.callbacks.console.log.propagate", True)
    rank, lines = Rank(first), ProgressLog()
    with caplog.at_level("INFO", "maskclr_pl"):
        lines.on_train_start(rank, Masked())
        lines.on_train_epoch_end(rank, Masked())
    assert rank.asked == 1
    assert ("epoch 1/2   loss 0.500   masked most: nose 0.20" in caplog.text) == first


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.5, []),
        (1.0, [60]),
        (6.0, [10, 20, 30, 40, 50, 60, 70, 80, 90]),
        (600.0, range(10, 91, 10)),
    ],
)
def test_progress_within_a_long_epoch(
    seconds: float,
    expected: list[int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hours without a line. At most ten an epoch, and none in one that takes a minute."""
    monkeypatch.setattr("maskclr_pl.callbacks.console.log.propagate", True)
    clock = Clock()
    monkeypatch.setattr("maskclr_pl.callbacks.console.time", clock)
    rank, lines = Rank(True), ProgressLog()
    lines.on_train_start(rank, Masked())
    lines.on_train_epoch_start(rank, Masked())
    with caplog.at_level("INFO", "maskclr_pl"):
        for index in range(100):
            clock.now += seconds
            lines.on_train_batch_end(rank, Masked(), {"loss": torch.tensor(0.25)}, None, index)
    # another test may have left a handler that captures each line once more
    spoken = [line for line in dict.fromkeys(caplog.messages) if "batch" in line]
    assert [int(line.split("batch ")[1].split("/")[0]) for line in spoken] == list(expected)
    if expected:
        left = (200 - expected[0]) * seconds  # of two epochs
        minutes = f"left {int(left // 60)}:{int(left % 60):02d}"
        assert spoken[0] == f"epoch 1/2   batch {expected[0]}/100   loss 0.250   {minutes}"
