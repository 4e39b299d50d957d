"""Lines after each epoch."""

import lightning as L
import pytest
import torch

from maskclr_pl.callbacks import EpochLines


class Rank(L.Trainer):
    """Notes that its metrics were asked for, which in DDP is a collective call."""

    is_global_zero = True
    current_epoch = 0
    max_epochs = 2

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
    monkeypatch.setattr("maskclr_pl.callbacks.progress.log.propagate", True)
    rank, lines = Rank(first), EpochLines()
    with caplog.at_level("INFO", "maskclr_pl"):
        lines.on_train_start(rank, Masked())
        lines.on_train_epoch_end(rank, Masked())
    assert rank.asked == 1
    assert ("epoch 1/2   loss 0.500   hidden most: nose 0.20" in caplog.text) == first
