"""Progress of a training as log lines, for log files and terminals without a progress bar."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import lightning as L

from maskclr_pl.methods.stages import planned_epochs

log = logging.getLogger("maskclr_pl")

_MIN_SECONDS = 60.0
"""Minimum time between two lines within an epoch."""
_MAX_LINES = 10
"""Approximate maximum number of lines within an epoch."""


class ProgressLog(L.Callback):
    """Logs losses, validation accuracy and remaining time of each epoch, and progress in long ones.

    Args:
        level: Logging level of the lines (DEBUG keeps them off a terminal with a progress bar).
    """

    def __init__(self, level: int = logging.INFO):
        self._level = level
        self._start = self._last_line = self._epoch_start = 0.0
        self._first_epoch = self._epochs = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start, self._first_epoch = time.monotonic(), trainer.current_epoch
        self._epochs = planned_epochs(
            trainer.max_epochs,
            trainer.max_steps,
            trainer.num_training_batches,
            trainer.accumulate_grad_batches,
        )

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_start = self._last_line = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log the progress within a long epoch: at most once a minute, about ten times in all."""
        now = time.monotonic()
        if now - self._last_line < _MIN_SECONDS or not trainer.is_global_zero:
            return
        done, batches = batch_idx + 1, int(trainer.num_training_batches)
        epoch_seconds = (now - self._epoch_start) / done * batches
        if now - self._last_line < epoch_seconds / _MAX_LINES or done == batches:
            return
        self._last_line = now
        progress = f"batch {done}/{batches}"
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None and trainer.world_size == 1:  # the loss of one rank means little
            progress += f"   loss {float(loss):.3f}"  # synchronizes with the device, rarely
        remaining = self._remaining(trainer.current_epoch + done / batches)
        log.log(self._level, "   ".join([self._epoch_label(trainer), progress, remaining]))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log losses, validation accuracy, the joints masked most, and the remaining time."""
        metrics = trainer.callback_metrics  # read on all ranks: it is reduced across them
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in metrics.items()}
        parts = [self._epoch_label(trainer), _format_loss(values)]
        if "val/top1" in values:
            parts.append(f"val top1 {values['val/top1']:.1f}")
        masked = {
            name.removeprefix("masked/"): share
            for name, share in values.items()
            if name.startswith("masked/")
        }
        if masked and pl_module.masking is not None:
            most = sorted(masked, key=masked.__getitem__, reverse=True)[:3]
            shares = " ".join(f"{joint} {masked[joint]:.2f}" for joint in most)
            parts.append(f"masked most: {shares}")
        parts.append(self._remaining(trainer.current_epoch + 1))
        log.log(self._level, "   ".join(parts))

    def _epoch_label(self, trainer: L.Trainer) -> str:
        return f"epoch {trainer.current_epoch + 1:>{len(str(self._epochs))}}/{self._epochs}"

    def _remaining(self, epochs: float) -> str:
        """Remaining time after a number of epochs."""
        done = max(epochs - self._first_epoch, 1e-9)
        seconds = (time.monotonic() - self._start) / done * max(0.0, self._epochs - epochs)
        return f"left {int(seconds // 60)}:{int(seconds % 60):02d}"


def _format_loss(values: Mapping[str, float]) -> str:
    prefix = "train/loss_"
    terms = sorted(name for name in values if name.startswith(prefix))
    text = " ".join(f"{name.removeprefix(prefix)} {values[name]:.3f}" for name in terms)
    loss = f"loss {values.get('train/loss', float('nan')):.3f}"
    return f"{loss} ({text})" if text else loss
