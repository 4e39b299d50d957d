"""The row of an epoch in metrics.csv, kept in the checkpoint that is written before it."""

from typing import Any

import lightning as L

from maskclr_pl.runs.history import EPOCH_ROW, epoch_row


class SaveEpochRow(L.Callback):
    """Adds what Lightning logs after the end of an epoch to a checkpoint of that moment.

    A run that is killed between the two can write the row again.
    """

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the row at the end of an epoch."""
        epochs = trainer.fit_loop.epoch_progress.current.state_dict()
        if epochs["processed"] > epochs["completed"]:
            checkpoint[EPOCH_ROW] = epoch_row(trainer)
