"""Fit a method, test the chosen checkpoint, and write what a run folder holds."""

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
    """Says on stderr that a process died, of which Lightning only kills the others.

    Args:
        folder: Of the run.
    """

    SOURCE = "lightning.fabric.strategies.launchers.subprocess_script"

    def __init__(self, folder: Path):
        super().__init__(logging.INFO)
        self.folder = folder

    def emit(self, record: logging.LogRecord) -> None:
        """Translate the line about the process that died."""
        if found := re.search(r"PID (\d+) terminated with code (-?\d+)", record.getMessage()):
            sys.stderr.write(
                f"error: process {found[1]} of this training ended with code {found[2]}, so the "
                "others are ended too; its own message is above, if it had one; pass "
                f"resume={self.folder} to go on from the last epoch\n"
            )
            sys.stderr.flush()  # this process is killed next

    @classmethod
    def report(cls, folder: Path) -> None:
        """Do so from now on, for one run."""
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
    """Fit, test the chosen checkpoint, write everything that a run folder holds.

    Args:
        trainer: With its callbacks.
        method: To be trained.
        data: To train and test on.
        folder: Of the run.
        start: Checkpoint that the training goes on from, if there is one.
        planned: Epochs and stages.

    Returns:
        The content of metrics.json.

    Raises:
        KeyboardInterrupt: If the training was interrupted.
    """
    began = time.monotonic()
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
    metrics.setdefault("train/seconds", round(time.monotonic() - began, 1))
    metrics["parameters"] = sum(p.numel() for p in method.parameters())
    if isinstance(method, Classifier):
        metrics = _test(trainer, method, data, folder) | metrics
    else:  # without labels there is nothing to test
        values = trainer.callback_metrics or planned.row  # nothing was left to train
        metrics |= {key: float(values[key]) for key in values if key.startswith("train/")}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        metrics |= callback.cost if isinstance(callback, CostCallback) else {}
    if trainer.is_global_zero:
        metrics["flops_per_clip"] = flops_per_clip(method, data.test)
        write_metrics(folder, metrics)
        _draw(folder, method, data)
    return metrics


@rank_zero_only
def _say_how_to_continue(folder: Path) -> None:
    log.info("continue   %s", shell_command("train", resume=folder))


@contextmanager
def _interruptible(folder: Path) -> Iterator[None]:
    """Undo what Lightning makes of an interruption: it leaves the program."""
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        if (folder / "checkpoints" / LAST).is_file():
            _say_how_to_continue(folder)
        raise end.__context__ from None


def _test(
    trainer: L.Trainer, method: Classifier, data: SkeletonDataModule, folder: Path
) -> dict[str, float]:
    """Test the chosen checkpoint and keep its predictions."""
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
    """Tables and figures from what the run folder holds."""
    figures = folder / "figures"
    draw_run_figures(folder, data.store.class_names, method.skeleton)
    if (folder / "metrics.csv").is_file():  # if the CSV logger is there
        marks = {folder.name: epoch_markers(folder)}
        path = figures / "training_curves.png"
        training_curves({folder.name: read_curves(folder)}, path, marks=marks)
    if shares := masked_shares(folder):
        pose = example_pose(method, data.test)
        title = "What was hidden in training"
        joint_shares(shares, method.skeleton, pose, figures / "masked_joints.png", title)
