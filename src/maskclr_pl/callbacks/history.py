"""The metrics.csv row of an epoch, stored in the checkpoint that is written before it."""

from typing import Any

import lightning as L

from maskclr_pl.runs.history import EPOCH_ROW, epoch_row


class SaveEpochRow(L.Callback):
    """Adds the row that Lightning logs after an epoch to the checkpoint of that epoch.

    A run that is killed between the two can then restore the row.
    """

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the row at the end of an epoch."""
        epochs = trainer.fit_loop.epoch_progress.current.state_dict()
        if epochs["processed"] > epochs["completed"]:
            checkpoint[EPOCH_ROW] = epoch_row(trainer)
