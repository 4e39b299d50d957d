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

_EVERY = 10
"""Batches between two times that several processes ask each other for signals."""


class CheckpointOnSignal(Checkpoint):
    """Writes last.ckpt when SIGTERM or SIGUSR1 has come, after the batch that is under way.

    After SIGTERM the training then ends. After SIGUSR1 it goes on; under Slurm, which ends such a
    job, the job is queued again. In a validation, SIGTERM ends the training without a checkpoint
    (the one before stays), SIGUSR1 waits for its end.

    It is a `Checkpoint` so that all other callbacks have seen the batch.

    Args:
        folder: Of the checkpoints.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / LAST
        self._end = self._save = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen; Lightning's own handlers write a checkpoint amid a step."""
        self._end = self._save = False
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1"):
                if number := getattr(signal, name, None):
                    self._before[number] = signal.signal(number, self._note)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Answer a signal."""
        last = batch_idx + 1 == trainer.num_training_batches
        if self._asked(trainer, batch_idx, last):
            self._write(trainer)
            if self._end:
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
        """End, if it is to end."""
        if trainer.state.fn == "fit" and self._asked(trainer, batch_idx, False) and self._end:
            raise Terminated

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer a signal that came meanwhile."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.on_train_batch_end(trainer, pl_module, None, None, 0)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop listening."""
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Stop listening."""
        self._stop()

    def _note(self, number: int, frame: Any) -> None:
        self._end |= number == signal.SIGTERM
        self._save = True

    def _stop(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _asked(self, trainer: L.Trainer, batch: int, last: bool) -> bool:
        """Whether a signal has come to any process; all of them learn of it at the same batch."""
        if trainer.world_size > 1:
            if batch % _EVERY and not last:
                return False
            agreed = trainer.strategy.reduce_boolean_decision
            self._end = agreed(self._end, all=False)
            self._save = agreed(self._save, all=False)
        return self._save

    def _write(self, trainer: L.Trainer) -> None:
        self._save = False
        trainer.save_checkpoint(self.path)
        if trainer.is_global_zero:
            log.info("signal     checkpoint of step %d: %s", trainer.global_step, self.path)
            if not self._end and (outcome := requeue_job()):
                log.info("slurm      %s", outcome)
