"""Cost of a training: throughput, memory and the time of an epoch."""

import logging
import sys
import time
from typing import Any

import lightning as L
import torch

from maskclr_pl.analysis.estimate import format_duration
from maskclr_pl.callbacks.masking import MaskingCallback

log = logging.getLogger("maskclr_pl")


class CostCallback(L.Callback):
    """Measures the cost of a training; `cost` holds the values for metrics.json.

    * `train/samples_per_second`: clips of all devices over the time from the first to the last step
      of each epoch, including waiting for data; without validation, checkpoints and warm-up. The
      device is synchronized only at the ends of each timed interval.
    * `train/peak_memory_mb`: in MiB; on a GPU the peak allocation on the first device, otherwise
      the peak resident size of this process (not available on Windows).

    Args:
        warmup_steps: Steps at the start of the run that are not timed: memory allocation, kernel
            selection, compilation.

    Raises:
        ValueError: If `warmup_steps` is negative.
    """

    def __init__(self, warmup_steps: int = 10):
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {warmup_steps}")
        self.warmup_steps = warmup_steps
        self.cost: dict[str, float] = {}
        self._steps = self._clips = 0
        self._seconds = 0.0
        self._since: float | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the measurements of an earlier run in the same process."""
        self.cost, self._steps, self._clips, self._seconds = {}, 0, 0, 0.0
        self._since = None
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        """Start the clock after the warm-up and after each break."""
        if self._steps >= self.warmup_steps and self._since is None:
            self._since = _now(pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the clips of a timed step."""
        self._steps += 1
        if self._since is not None:
            self._clips += len(batch["label"])

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._stop(pl_module.device)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._stop(pl_module.device)

    def _stop(self, device: torch.device) -> None:
        if self._since is not None:
            self._seconds += _now(device) - self._since
            self._since = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the results; throughput only if steps were timed."""
        if self._clips:
            rate = self._clips * trainer.world_size / self._seconds
            self.cost["train/samples_per_second"] = round(rate, 2)
        memory = _peak_memory(pl_module.device)
        if memory is not None:
            self.cost["train/peak_memory_mb"] = round(memory / 2**20, 1)


class EpochTimeEstimate(L.Callback):
    """Logs the expected time of an epoch and of the training, once, after the first steps.

    The device is synchronized only at the two ends of the timed steps. Nothing is logged if the
    epoch ends before.

    Args:
        warmup_steps: Steps that are not timed.
        steps: Number of timed steps; fewer if they take longer than `patience` seconds.
        patience: Maximum time in seconds.
    """

    def __init__(self, warmup_steps: int = 3, steps: int = 20, patience: float = 60.0):
        self.warmup_steps, self.steps, self.patience = warmup_steps, steps, patience
        self._since: float | None = None
        self._count = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the state of an earlier run in the same process."""
        self._since, self._count = None, 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Count the step; log the estimate after the last timed one."""
        self._count += 1
        if self._count == self.warmup_steps:
            self._since = _now(pl_module.device)
        timed = self._count - self.warmup_steps
        if self._since is None or timed < 1:
            return
        if timed < self.steps and time.perf_counter() - self._since < self.patience:
            return
        seconds = (_now(pl_module.device) - self._since) / timed
        self._since = None
        epochs = (trainer.max_epochs or 0) - trainer.current_epoch
        epoch = seconds * float(trainer.num_training_batches)
        masks = any(isinstance(one, MaskingCallback) for one in trainer.callbacks)  # type: ignore[attr-defined]
        masks_later = masks and getattr(pl_module, "masking", None) is None
        if trainer.is_global_zero and epochs > 0:
            log.info(
                "time       about %s per epoch, %s in total, without validation%s",
                format_duration(epoch),
                format_duration(epochs * epoch),
                "; slower once masking starts" if masks_later else "",
            )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Skip the estimate: the epoch is over."""
        self._since, self._count = None, self.warmup_steps


def _now(device: torch.device) -> float:
    """Time in seconds, after synchronizing with the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_memory(device: torch.device) -> int | None:
    """Peak memory in bytes; None where it is not available."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS reports bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
