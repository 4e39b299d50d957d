"""One line per epoch for terminals without a progress bar, and for log files."""

import logging
import time

import lightning as L

log = logging.getLogger("maskclr_pl")


class EpochLines(L.Callback):
    """Says after each epoch what a reader of the log wants to know.

    Args:
        level: Logging level of the lines (DEBUG keeps them off a terminal with a progress bar).
    """

    def __init__(self, level: int = logging.INFO):
        self._level = level
        self._start = 0.0
        self._first = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start, self._first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Epoch, losses, validation accuracy, the joints hidden most, time left."""
        found = trainer.callback_metrics  # asked for on all ranks: they reduce it together
        if not trainer.is_global_zero:
            return
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        values = {name: float(value) for name, value in found.items()}
        parts = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}"]
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
        done = epoch - self._first
        left = (time.monotonic() - self._start) / done * (epochs - epoch)
        parts.append(f"left {int(left // 60)}:{int(left % 60):02d}")
        log.log(self._level, "   ".join(parts))
