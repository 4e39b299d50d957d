"""Which epoch becomes best.ckpt, and when there is no better one to wait for."""

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

ENOUGH = 20
"""Validation clips that an epoch can be chosen by: with fewer, one clip is worth more than five
points, and many epochs tie or differ by chance."""


def too_few_clips(clips: int, classes: int) -> str | None:
    """Why a validation part is too small to choose an epoch by, in one line; None if it is not.

    There have to be 20 clips, and as many as classes: otherwise the score knows nothing of some.

    Args:
        clips: Of the validation part.
        classes: Of the training.
    """
    least = max(ENOUGH, classes)
    if clips >= least:
        return None
    few = f"{clips} validation {'clip is' if clips == 1 else 'clips are'} too few"
    worth = f"one is worth {100 / max(1, clips):.0f} points"
    return f"{few} to choose an epoch by ({worth}; {least} are needed): best.ckpt is the last epoch"


class EpochScore(NamedTuple):
    """What epochs are compared by, first to last."""

    score: float
    """Validation accuracy, or what else is monitored."""
    gain: float
    """Minus the validation loss."""
    epoch: int
    """From 0."""


class BestCheckpoint(Checkpoint):
    """Writes best.ckpt: the best epoch on validation clips, or the last one.

    Only epochs in which all `stages` of the method and of the callbacks run in full are eligible:
    before masking begins, a MaskCLR model is the supervised one. Ties go to the lower validation
    loss, then to the later epoch. An epoch that is not validated is not eligible, nor is one whose
    validation loss is not a number.

    Args:
        dirpath: Folder of the file.
        monitor: What is to be high; None takes the last epoch.
    """

    def __init__(self, dirpath: str | Path, monitor: str | None = "val/top1"):
        self.path, self.monitor = Path(dirpath) / BEST, monitor
        self.best: EpochScore | None = None
        """The epoch in best.ckpt; None while there is none. Without a monitor its score is NaN."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights that were just validated, if they are the best."""
        if self.monitor is None or trainer.sanity_checking or not _fitting(trainer):
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        gain = -values.get("val/loss", math.inf)
        rank = EpochScore(values.get(self.monitor, math.nan), gain, trainer.current_epoch)
        known = not math.isnan(rank.score) and not math.isnan(rank.gain)
        if known and (self.best is None or rank >= self.best):
            self._keep(trainer, pl_module, rank)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Without a monitor, keep the epoch."""
        if self.monitor is None:
            self._keep(trainer, pl_module, EpochScore(math.nan, -math.inf, trainer.current_epoch))

    def _keep(self, trainer: L.Trainer, pl_module: L.LightningModule, rank: EpochScore) -> None:
        stages = collect_stages((pl_module, *trainer.callbacks))  # type: ignore[attr-defined]
        if all(rank.epoch >= stage.full for stage in stages):
            before, self.best = self.best, rank
            try:
                trainer.save_checkpoint(self.path)
            except BaseException:
                self.best = before
                raise

    def state_dict(self) -> dict[str, Any]:
        """The epoch in best.ckpt, so that a continued run compares with it."""
        return {} if self.best is None else {"best": tuple(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`; without its file the best is chosen anew."""
        if "best" in state_dict and checkpoint_problem(self.path) is None:
            self.best = EpochScore(*state_dict["best"])

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Of a run of an older version, take over a best.ckpt whose epoch is eligible."""
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
    """Ends the training when best.ckpt has been the same epoch for long.

    Epochs that are not eligible for best.ckpt do not count.

    Args:
        patience: Epochs without a better one; None: never stop.

    Raises:
        InputError: If the patience is no positive whole number.
    """

    def __init__(self, patience: int | None = None):
        if patience is not None and not (isinstance(patience, int) and patience >= 1):
            raise InputError(
                f"callbacks.early_stopping.patience={patience}: expected a whole number of epochs "
                "from 1, or null to train to the end"
            )
        self.patience = patience

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A continued run may have waited long enough already."""
        self._stop(trainer, trainer.current_epoch - 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop, if it is time."""
        self._stop(trainer, trainer.current_epoch)

    def _stop(self, trainer: L.Trainer, epoch: int) -> None:
        best = best_checkpoint(trainer).best
        if self.patience is None or best is None or epoch - best.epoch < self.patience:
            return
        trainer.should_stop = True
        if trainer.is_global_zero:
            log.info(
                "stopped    epoch %d: none was better than epoch %d for %d epochs "
                "(callbacks.early_stopping.patience=%d)",
                *(epoch + 1, best.epoch + 1, epoch - best.epoch, self.patience),
            )


def best_checkpoint(trainer: L.Trainer) -> BestCheckpoint:
    """The trainer's `BestCheckpoint`."""
    found: BestCheckpoint = next(
        callback
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, BestCheckpoint)
    )
    return found


def _fitting(trainer: L.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING
