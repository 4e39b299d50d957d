"""Checkpoints when a batch system announces the end of a job."""

import logging
import signal
import threading
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from maskclr_pl.runs.checkpoints import LAST
from maskclr_pl.signals import Terminated, requeue_job

log = logging.getLogger("maskclr_pl")

_SYNC_EVERY = 10
"""Batches between two exchanges of signals among several processes."""


class CheckpointOnSignal(Checkpoint):
    """Writes last.ckpt after the current batch when SIGTERM or SIGUSR1 arrives.

    After SIGTERM the training ends. After SIGUSR1 it continues; under Slurm, which ends such a job,
    the job is requeued. During validation, SIGTERM ends the training without a new checkpoint, and
    SIGUSR1 waits for the end of the validation.

    A `Checkpoint`, so that all other callbacks have processed the batch before.

    Args:
        folder: Folder of the checkpoints.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / LAST
        self._terminate = self._save = False
        self._previous_handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Install the handlers; Lightning's would write a checkpoint in the middle of a step."""
        self._terminate = self._save = False
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1"):
                if number := getattr(signal, name, None):
                    self._previous_handlers[number] = signal.signal(number, self._receive)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a checkpoint if a signal has arrived, and end after SIGTERM."""
        last = batch_idx + 1 == trainer.num_training_batches
        if self._signal_received(trainer, batch_idx, last):
            self._write(trainer)
            if self._terminate:
                raise Terminated

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End after SIGTERM."""
        fitting = trainer.state.fn == "fit"
        if fitting and self._signal_received(trainer, batch_idx, False) and self._terminate:
            raise Terminated

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Handle a signal that arrived during validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.on_train_batch_end(trainer, pl_module, None, None, 0)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the previous handlers."""
        self._restore_handlers()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Restore the previous handlers."""
        self._restore_handlers()

    def _receive(self, number: int, frame: Any) -> None:
        self._terminate |= number == signal.SIGTERM
        self._save = True

    def _restore_handlers(self) -> None:
        while self._previous_handlers:
            signal.signal(*self._previous_handlers.popitem())

    def _signal_received(self, trainer: L.Trainer, batch: int, last: bool) -> bool:
        """True if any process has received a signal; all processes agree at the same batch."""
        if trainer.world_size > 1:
            if batch % _SYNC_EVERY and not last:
                return False
            agree = trainer.strategy.reduce_boolean_decision
            self._terminate = agree(self._terminate, all=False)
            self._save = agree(self._save, all=False)
        return self._save

    def _write(self, trainer: L.Trainer) -> None:
        self._save = False
        trainer.save_checkpoint(self.path)
        if trainer.is_global_zero:
            log.info("signal     checkpoint of step %d: %s", trainer.global_step, self.path)
            if not self._terminate and (outcome := requeue_job()):
                log.info("slurm      %s", outcome)
