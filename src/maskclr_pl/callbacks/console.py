"""Lines about the progress of a training, for log files and terminals without a progress bar."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import lightning as L

from maskclr_pl.methods.stages import planned_epochs

log = logging.getLogger("maskclr_pl")

_SECONDS = 60.0
"""Between two lines within an epoch, at least."""
_LINES = 10
"""Within an epoch, at most about."""


class ProgressLog(L.Callback):
    """Says after each epoch what a reader of the log wants to know, and how far a long one is.

    Args:
        level: Logging level of the lines (DEBUG keeps them off a terminal with a progress bar).
    """

    def __init__(self, level: int = logging.INFO):
        self._level = level
        self._start = self._spoke = self._epoch_start = 0.0
        self._first = self._epochs = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start, self._first = time.monotonic(), trainer.current_epoch
        batches, accumulate = trainer.num_training_batches, trainer.accumulate_grad_batches
        limits = trainer.max_epochs, trainer.max_steps
        self._epochs = planned_epochs(*limits, batches, accumulate)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_start = self._spoke = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Of an epoch that takes minutes, how far it is: once a minute, or ten times an epoch."""
        now = time.monotonic()
        if now - self._spoke < _SECONDS or not trainer.is_global_zero:
            return
        done, batches = batch_idx + 1, int(trainer.num_training_batches)
        whole = (now - self._epoch_start) / done * batches
        if now - self._spoke < whole / _LINES or done == batches:
            return
        self._spoke = now
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        shown = ""
        if loss is not None and trainer.world_size == 1:  # the loss of one rank says little
            shown = f"   loss {float(loss):.3f}"  # waits for the device, seldom
        left = self._left(trainer.current_epoch + done / batches)
        parts = [self._name(trainer), f"batch {done}/{batches}{shown}", left]
        log.log(self._level, "   ".join(parts))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Epoch, losses, validation accuracy, the joints hidden most, time left."""
        found = trainer.callback_metrics  # asked for on all ranks: they reduce it together
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in found.items()}
        parts = [self._name(trainer)]
        names = sorted(name for name in values if name.startswith("train/loss_"))
        terms = " ".join(f"{name.removeprefix('train/loss_')} {values[name]:.3f}" for name in names)
        loss = f"loss {values.get('train/loss', float('nan')):.3f}"
        parts.append(f"{loss} ({terms})" if terms else loss)
        if "val/top1" in values:
            parts.append(f"val top1 {values['val/top1']:.1f}")
        hidden = {name: value for name, value in values.items() if name.startswith("masked/")}
        if hidden and pl_module.masking is not None:
            most = sorted(hidden, key=hidden.__getitem__, reverse=True)[:3]
            shown = " ".join(f"{name.removeprefix('masked/')} {hidden[name]:.2f}" for name in most)
            parts.append(f"hidden most: {shown}")
        parts.append(self._left(trainer.current_epoch + 1))
        log.log(self._level, "   ".join(parts))

    def _name(self, trainer: L.Trainer) -> str:
        return f"epoch {trainer.current_epoch + 1:>{len(str(self._epochs))}}/{self._epochs}"

    def _left(self, epochs: float) -> str:
        """Time left after so many epochs of the training."""
        done = max(epochs - self._first, 1e-9)
        left = (time.monotonic() - self._start) / done * max(0.0, self._epochs - epochs)
        return f"left {int(left // 60)}:{int(left % 60):02d}"
