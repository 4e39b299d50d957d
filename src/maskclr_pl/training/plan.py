"""What a training is going to do, settled before it starts, and what has become of it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning as L
from omegaconf import DictConfig, OmegaConf

from maskclr_pl.callbacks import best_checkpoint, too_few_clips
from maskclr_pl.cli import log
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.errors import InputError
from maskclr_pl.methods import Method
from maskclr_pl.methods.stages import Stage, check_stages, collect_stages, planned_epochs
from maskclr_pl.runs.read import read_metrics
from maskclr_pl.training.progress import Progress


class Plan(NamedTuple):
    """See the module."""

    epochs: int
    """Of the training."""
    share_epochs: int
    """Epochs that shares are shares of: those that the run began with."""
    stages: Sequence[Stage]
    """Of the method and the callbacks, settled."""
    notes: list[str]
    """Parts of the schedule that lie beyond the end, a line each."""
    trained: bool
    """Whether the method trains at all (nearest neighbors do not)."""
    done: int = 0
    """Epochs that a run which is continued has already."""
    row: Mapping[str, float] = {}
    """What was logged of the last of them."""


def choose_monitor(cfg: DictConfig, data: SkeletonDataModule) -> tuple[str | None, list[str]]:
    """What best.ckpt is chosen by (None: it is the last epoch), and notes about it, a line each.

    Raises:
        InputError: If early stopping is asked for where no epoch is better than another.
    """
    monitor, notes = ("val/top1" if cfg.monitor_split != "last" else None), []
    patience = OmegaConf.select(cfg, "callbacks.early_stopping.patience")
    if monitor and (few := too_few_clips(len(data.val), cfg.clip.classes)):
        monitor, notes = None, [few]
    if patience is not None and monitor is None:
        reason = notes[0] if notes else "monitor_split=last chooses the last epoch"
        raise InputError(
            f"callbacks.early_stopping.patience={patience}: {reason}; leave it out, or hold out "
            "more clips with data.val_fraction=... monitor_split=val"
        )
    return monitor, notes


def plan(
    cfg: DictConfig,
    trainer: L.Trainer,
    method: Method,
    data: SkeletonDataModule,
    progress: Progress | None = None,
) -> Plan:
    """Count the epochs, settle the stages, check that each one begins.

    Args:
        cfg: Of the run.
        trainer: Not started yet.
        method: To be trained.
        data: To train on.
        progress: How far a run that is continued is.

    Raises:
        InputError: If the training has no end, or a stage never begins.
    """
    batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
    if isinstance(limit, int):
        batches = min(batches, limit)
    elif limit is not None:
        batches = int(batches * limit)
    steps = OmegaConf.select(cfg, "trainer.max_steps", default=-1)
    accumulate = trainer.accumulate_grad_batches
    epochs = planned_epochs(cfg.trainer.max_epochs, steps, batches, accumulate)
    stages = collect_stages((method, *trainer.callbacks))  # type: ignore[attr-defined]
    share_epochs = epochs if progress is None else progress.planned
    for stage in stages:
        stage.resolve(share_epochs)
    key = f"trainer.max_epochs={epochs}"
    if epochs != cfg.trainer.max_epochs:
        key = f"trainer.max_steps={steps} ({epochs} epochs)"
    check_stages(stages, epochs, key)
    trained = any(parameter.requires_grad for parameter in method.parameters())
    notes = method.optim.notes(epochs) if trained else []
    done = 0 if progress is None else progress.epochs
    row = {} if progress is None else progress.row
    return Plan(epochs, share_epochs, stages, notes, trained, done, row)


def training_metrics(trainer: L.Trainer, planned: Plan, folder: Path) -> dict[str, float]:
    """What has become of a training, for metrics.json; a line if it ended early.

    `train/epochs` are those that were trained, `best/epoch` the one in best.ckpt and
    `first_epoch/<stage>` where a stage began, all counted from 1; `val/top1` that of best.ckpt.

    Raises:
        InputError: If it ended before any epoch was eligible for best.ckpt.
    """
    done, epochs = trainer.current_epoch, planned.epochs
    if done < epochs and trainer.is_global_zero:
        log.info("stopped    after epoch %d of %d", done, epochs)
    best = best_checkpoint(trainer).best
    if best is None:
        begin = [f"{s.name} has full strength from epoch {s.full + 1} on" for s in planned.stages]
        reason = "; ".join(begin) or "no epoch was validated, or its losses are not numbers"
        last = folder / "checkpoints" / "last.ckpt"
        raise InputError(
            f"{folder}: after {done} of {epochs} epochs there is none to take as best.ckpt "
            f"({reason}); train on with resume={folder} and more trainer.max_epochs, or pass "
            f"{last} to use the last one as it is"
        )
    metrics: dict[str, float] = {"train/epochs": done, "best/epoch": best.epoch + 1}
    metrics |= {f"first_epoch/{stage.name}": stage.first + 1 for stage in planned.stages}
    values = trainer.callback_metrics
    score = values.get("val/top1") if math.isnan(best.score) else best.score
    if score is not None:
        metrics["val/top1"] = float(score)
    if planned.done >= epochs and (folder / "metrics.json").is_file():
        # nothing was left to train: what is known of the training stays
        known = read_metrics(folder)
        metrics |= {key: known[key] for key in known if key.startswith(("train/", "val/"))}
    return metrics


def describe_best(metrics: Mapping[str, float], planned: Plan, monitor: str | None) -> str:
    """The epoch in best.ckpt, for the result line."""
    if not planned.trained:
        return "nothing was trained"
    text = f"best.ckpt is epoch {metrics['best/epoch']} of {metrics['train/epochs']}"
    if monitor is None:
        text += ", the last"
    elif "val/top1" in metrics:
        text += f", val top1 {metrics['val/top1']:.2f}"
    stopped = metrics["train/epochs"] < planned.epochs
    return f"{text}; {planned.epochs} were planned" if stopped else text
