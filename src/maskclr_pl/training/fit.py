"""Fit a method, test the selected checkpoint, and write the run folder."""

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from maskclr_pl.analysis.examples import example_pose
from maskclr_pl.analysis.flops import flops_per_clip
from maskclr_pl.analysis.model_figures import draw_run_figures
from maskclr_pl.callbacks import CostCallback
from maskclr_pl.cli import log
from maskclr_pl.command_line import shell_command
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.figures.curves import training_curves
from maskclr_pl.figures.skeletons import joint_shares
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.runs.checkpoints import LAST
from maskclr_pl.runs.read import epoch_markers, masked_shares, read_curves
from maskclr_pl.runs.results import write_metrics, write_predictions
from maskclr_pl.training.plan import Plan, training_metrics


class DeadRank(logging.Handler):
    """Report on stderr that a process died; Lightning silently ends the others.

    Args:
        folder: Run folder.
    """

    SOURCE = "lightning.fabric.strategies.launchers.subprocess_script"

    def __init__(self, folder: Path):
        super().__init__(logging.INFO)
        self.folder = folder

    def emit(self, record: logging.LogRecord) -> None:
        """Report the process whose end Lightning logs."""
        if match := re.search(r"PID (\d+) terminated with code (-?\d+)", record.getMessage()):
            sys.stderr.write(
                f"error: process {match[1]} of this training exited with code {match[2]} (its own "
                f"message is above), so the others are stopped; pass resume={self.folder} to "
                "continue from the last epoch\n"
            )
            sys.stderr.flush()  # Lightning kills this process next

    @classmethod
    def report(cls, folder: Path) -> None:
        """Start reporting for a run."""
        logger = logging.getLogger(cls.SOURCE)
        logger.handlers = [cls(folder)]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def fit_and_test(
    trainer: L.Trainer,
    method: Method,
    data: SkeletonDataModule,
    folder: Path,
    start: Path | None,
    planned: Plan,
) -> dict[str, float]:
    """Fit, test the selected checkpoint, and write metrics, predictions and figures.

    Args:
        trainer: With its callbacks.
        method: To be trained.
        data: To train and test on.
        folder: Run folder.
        start: Checkpoint to resume from, or None.
        planned: Epochs and stages.

    Returns:
        Content of metrics.json.

    Raises:
        KeyboardInterrupt: If the training was interrupted.
    """
    started = time.monotonic()
    metrics: dict[str, float] = {}
    if planned.trained:
        with _interruptible(folder):
            trainer.fit(method, data, ckpt_path=start)
        metrics = training_metrics(trainer, planned, folder)
    else:  # nearest neighbors
        with _interruptible(folder):
            trainer.validate(method, data, ckpt_path=start, verbose=False)
        for name in ("best", "last"):
            trainer.save_checkpoint(folder / "checkpoints" / f"{name}.ckpt")
    metrics.setdefault("train/seconds", round(time.monotonic() - started, 1))
    metrics["parameters"] = sum(p.numel() for p in method.parameters())
    if isinstance(method, Classifier):
        metrics = _test(trainer, method, data, folder) | metrics
    else:  # no labels, no test
        values = trainer.callback_metrics or planned.row  # if nothing was left to train
        metrics |= {key: float(values[key]) for key in values if key.startswith("train/")}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        metrics |= callback.cost if isinstance(callback, CostCallback) else {}
    if trainer.is_global_zero:
        metrics["flops_per_clip"] = flops_per_clip(method, data.test)
        write_metrics(folder, metrics)
        _draw(folder, method, data)
    return metrics


@rank_zero_only
def _log_resume_command(folder: Path) -> None:
    log.info("continue   %s", shell_command("train", resume=folder))


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """Raise KeyboardInterrupt where Lightning would exit the program."""
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        if (folder / "checkpoints" / LAST).is_file():
            _log_resume_command(folder)
        raise end.__context__ from None


def _test(
    trainer: L.Trainer, method: Classifier, data: SkeletonDataModule, folder: Path
) -> dict[str, float]:
    """Test the selected checkpoint and save its predictions."""
    val = trainer.callback_metrics.get("val/top1")
    best = folder / "checkpoints" / "best.ckpt"
    with _interruptible(folder):
        [tested] = trainer.test(method, data, ckpt_path=best, verbose=False)
    if trainer.is_global_zero:
        columns = {key: value.numpy() for key, value in method.predictions.items()}
        names = np.array(data.test.names)[columns["index"]]
        write_predictions(folder, names, columns["label"], columns["logits"])
    return {**tested, **({} if val is None else {"val/top1": float(val)})}


def _draw(folder: Path, method: Method, data: SkeletonDataModule) -> None:
    """Draw tables and figures from the files of the run folder."""
    figures = folder / "figures"
    draw_run_figures(folder, data.store.class_names, method.skeleton)
    if (folder / "metrics.csv").is_file():  # written by the CSV logger
        marks = {folder.name: epoch_markers(folder)}
        path = figures / "training_curves.png"
        training_curves({folder.name: read_curves(folder)}, path, marks=marks)
    if shares := masked_shares(folder):
        pose = example_pose(method, data.test)
        title = "Joints masked in training"
        joint_shares(shares, method.skeleton, pose, figures / "masked_joints.png", title)
