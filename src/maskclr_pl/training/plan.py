"""Schedule of a training: epochs and stages, and the metrics it ends with."""

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
    """Schedule of a training."""

    epochs: int
    """Planned epochs."""
    share_epochs: int
    """Epochs that the run started with, to which stage starts below 1 refer."""
    stages: Sequence[Stage]
    """Stages of the method and the callbacks, with absolute epochs."""
    notes: list[str]
    """Notes on parts of the schedule beyond the last epoch."""
    trained: bool
    """False for methods without trainable parameters (nearest neighbors)."""
    done: int = 0
    """Finished epochs of a resumed run."""
    row: Mapping[str, float] = {}
    """Row of metrics.csv for the last finished epoch."""


def choose_monitor(cfg: DictConfig, data: SkeletonDataModule) -> tuple[str | None, list[str]]:
    """Return the metric that best.ckpt is chosen by (None: the last epoch), and notes.

    Raises:
        InputError: If early stopping is configured without such a metric.
    """
    monitor, notes = ("val/top1" if cfg.monitor_split != "last" else None), []
    patience = OmegaConf.select(cfg, "callbacks.early_stopping.patience")
    if monitor and (few := too_few_clips(len(data.val), cfg.clip.classes)):
        monitor, notes = None, [few]
    if patience is not None and monitor is None:
        reason = notes[0] if notes else "monitor_split=last keeps the last epoch"
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
    """Count the epochs, resolve the stages, and check that each one starts.

    Args:
        cfg: Complete.
        trainer: Not started yet.
        method: To be trained.
        data: To train on.
        progress: Progress of a resumed run.

    Raises:
        InputError: If the training has no end, or a stage never starts.
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
    """Return the training part of metrics.json, and log if training stopped early.

    `train/epochs` is the number of trained epochs, `best/epoch` the epoch of best.ckpt and
    `first_epoch/<stage>` the start of a stage, all counted from 1; `val/top1` is that of best.ckpt.

    Raises:
        InputError: If training ended before any epoch was eligible for best.ckpt.
    """
    done, epochs = trainer.current_epoch, planned.epochs
    if done < epochs and trainer.is_global_zero:
        log.info("stopped    after epoch %d of %d", done, epochs)
    best = best_checkpoint(trainer).best
    if best is None:
        starts = [f"{s.name} has full strength from epoch {s.full + 1} on" for s in planned.stages]
        reason = "; ".join(starts) or "no epoch was validated, or its losses are not numbers"
        last = folder / "checkpoints" / "last.ckpt"
        raise InputError(
            f"{folder}: no epoch is eligible for best.ckpt after {done} of {epochs} ({reason}); "
            f"pass resume={folder} with more trainer.max_epochs, or use {last}"
        )
    metrics: dict[str, float] = {"train/epochs": done, "best/epoch": best.epoch + 1}
    metrics |= {f"first_epoch/{stage.name}": stage.first + 1 for stage in planned.stages}
    values = trainer.callback_metrics
    score = values.get("val/top1") if math.isnan(best.score) else best.score
    if score is not None:
        metrics["val/top1"] = float(score)
    if planned.done >= epochs and (folder / "metrics.json").is_file():
        # nothing was left to train: keep the metrics of the training
        saved = read_metrics(folder)
        metrics |= {key: saved[key] for key in saved if key.startswith(("train/", "val/"))}
    return metrics


def describe_best(metrics: Mapping[str, float], planned: Plan, monitor: str | None) -> str:
    """Describe the epoch of best.ckpt, for the result line."""
    if not planned.trained:
        return "nothing was trained"
    text = f"best.ckpt is epoch {metrics['best/epoch']} of {metrics['train/epochs']}"
    if monitor is None:
        text += ", the last"
    elif "val/top1" in metrics:
        text += f", val top1 {metrics['val/top1']:.2f}"
    stopped = metrics["train/epochs"] < planned.epochs
    return f"{text}; {planned.epochs} were planned" if stopped else text
