"""Model selection: the epoch in best.ckpt, and early stopping."""

import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.methods.stages import collect_stages
from maskclr_pl.runs.checkpoints import BEST, checkpoint_problem
from maskclr_pl.types import InputError

log = logging.getLogger("maskclr_pl")

MIN_CLIPS = 20
"""Minimum number of validation clips: with fewer, one clip is more than five points, and many
epochs tie or differ by chance."""


def too_few_clips(clips: int, classes: int) -> str | None:
    """Explain that there are too few validation clips to select an epoch; None if there are enough.

    At least 20 clips are needed, and one per class.

    Args:
        clips: Number of validation clips.
        classes: Number of classes.
    """
    minimum = max(MIN_CLIPS, classes)
    if clips >= minimum:
        return None
    few = f"{clips} validation {'clip is' if clips == 1 else 'clips are'} too few"
    points = f"one is worth {100 / max(1, clips):.0f} points"
    return f"{few} to select an epoch ({points}; {minimum} are needed): best.ckpt is the last epoch"


class EpochScore(NamedTuple):
    """Values by which epochs are compared, in this order."""

    score: float
    """The monitored value, such as validation accuracy."""
    gain: float
    """Minus the validation loss."""
    epoch: int
    """From 0."""


class BestCheckpoint(Checkpoint):
    """Writes best.ckpt: the best epoch on validation clips, or the last one.

    Only epochs in which all `stages` of the method and of the callbacks are complete are eligible:
    before masking starts, a MaskCLR model is the supervised one. Ties go to the lower validation
    loss, then to the later epoch. Epochs without validation, or with a NaN validation loss, are not
    eligible.

    Args:
        dirpath: Folder of the file.
        monitor: Metric to maximize; None selects the last epoch.
    """

    def __init__(self, dirpath: str | Path, monitor: str | None = "val/top1"):
        self.path, self.monitor = Path(dirpath) / BEST, monitor
        self.best: EpochScore | None = None
        """The epoch in best.ckpt, None before the first; its score is NaN without a monitor."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the weights that were just validated if they are the best."""
        if self.monitor is None or trainer.sanity_checking or not _fitting(trainer):
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        gain = -values.get("val/loss", math.inf)
        score = EpochScore(values.get(self.monitor, math.nan), gain, trainer.current_epoch)
        valid = not math.isnan(score.score) and not math.isnan(score.gain)
        if valid and (self.best is None or score >= self.best):
            self._save(trainer, pl_module, score)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch if there is no monitor."""
        if self.monitor is None:
            self._save(trainer, pl_module, EpochScore(math.nan, -math.inf, trainer.current_epoch))

    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule, score: EpochScore) -> None:
        stages = collect_stages((pl_module, *trainer.callbacks))  # type: ignore[attr-defined]
        if all(score.epoch >= stage.full for stage in stages):
            previous, self.best = self.best, score
            try:
                trainer.save_checkpoint(self.path)
            except BaseException:
                self.best = previous
                raise

    def state_dict(self) -> dict[str, Any]:
        """Store the epoch in best.ckpt, for the comparison in a resumed run."""
        return {} if self.best is None else {"best": tuple(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`; without an intact best.ckpt, selection starts again."""
        if "best" in state_dict and checkpoint_problem(self.path) is None:
            self.best = EpochScore(*state_dict["best"])

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adopt the best.ckpt of an older version if its epoch is eligible."""
        states = checkpoint.get("callbacks", {})
        if self.state_key in states or not _fitting(trainer) or checkpoint_problem(self.path):
            return
        older = [s for key, s in states.items() if key.startswith("ModelCheckpoint{")]
        scores = [s.get("best_model_score") for s in older if s.get("monitor") == self.monitor]
        score = next((float(score) for score in scores if score is not None), math.nan)
        epoch = int(read_weights(self.path).get("epoch", -1))
        stages = collect_stages((pl_module, *trainer.callbacks))  # type: ignore[attr-defined]
        if all(epoch >= stage.full for stage in stages) and (
            self.monitor is None or not math.isnan(score)
        ):
            self.best = EpochScore(score, -math.inf, epoch)


class EarlyStopping(L.Callback):
    """Ends the training when best.ckpt has not improved for some epochs.

    Epochs that are not eligible for best.ckpt do not count.

    Args:
        patience: Number of epochs without improvement; None never stops.

    Raises:
        InputError: If the patience is not a positive whole number.
    """

    def __init__(self, patience: int | None = None):
        if patience is not None and not (isinstance(patience, int) and patience >= 1):
            raise InputError(
                f"callbacks.early_stopping.patience={patience}: expected a whole number of epochs "
                "from 1, or null to train to the end"
            )
        self.patience = patience

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at once if a resumed run has already waited long enough."""
        self._stop(trainer, trainer.current_epoch - 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop after `patience` epochs without improvement."""
        self._stop(trainer, trainer.current_epoch)

    def _stop(self, trainer: L.Trainer, epoch: int) -> None:
        best = best_checkpoint(trainer).best
        if self.patience is None or best is None or epoch - best.epoch < self.patience:
            return
        trainer.should_stop = True
        if trainer.is_global_zero:
            log.info(
                "stopped    epoch %d: no improvement over epoch %d for %d epochs "
                "(callbacks.early_stopping.patience=%d)",
                epoch + 1,
                best.epoch + 1,
                epoch - best.epoch,
                self.patience,
            )


def best_checkpoint(trainer: L.Trainer) -> BestCheckpoint:
    """The trainer's `BestCheckpoint`."""
    callback: BestCheckpoint = next(
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, BestCheckpoint)
    )
    return callback


def _fitting(trainer: L.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING
