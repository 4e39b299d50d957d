"""Log lines of a training: what it trains on what, and its result."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maskclr_pl.cli import log
from maskclr_pl.command_line import shell_command
from maskclr_pl.data.coverage import empty_clip_notes, training_notes
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.reporting.accuracy import format_accuracy
from maskclr_pl.skeletons.layouts import layout_notes


def log_setup(
    cfg: DictConfig, data: SkeletonDataModule, method: Method, lines: Sequence[str]
) -> None:
    """Log the data, the model, and notes about both.

    Args:
        cfg: Complete.
        data: Of the run.
        method: To be trained.
        lines: Logged between the notes of the data module and those about its content.
    """
    clip = cfg.clip
    log.info(
        f"data       {data.store.path}   {len(data.train)} train, {len(data.val)} validation, "
        f"{len(data.test)} test clips   {clip.classes} classes   {clip.joints} joints, "
        f"{clip.frames} frames, {clip.persons} persons   seed {cfg.seed}"
    )
    masked = OmegaConf.select(cfg, "masking.strategy._target_", default="no masking").split(".")[-1]
    terms = OmegaConf.select(cfg, "loss.terms", default={})
    objective = f"loss {' + '.join(terms)}   {masked}" if terms else type(method).__name__
    count = sum(p.numel() for p in method.parameters())
    log.info(f"model      {type(method.backbone).__name__}   {count} parameters   {objective}")
    if method.backbone.loaded:
        log.info("weights    %s: %s", cfg.backbone.weights, method.backbone.loaded)
    for note in data.notes:
        log.info("note: %s", note)
    for line in lines:
        log.info("%s", line)
    rows = {"training": data.train.rows, "validation": data.val.rows, "test": data.test.rows}
    notes = [*empty_clip_notes(data.store, rows), *layout_notes(method.skeleton, clip.pairs)]
    if isinstance(method, Classifier) and not method.needs_exemplars:
        notes += training_notes(data.train.labels, data.test.labels, data.store)
    if cfg.monitor_split == "test":
        notes.append("checkpoints are selected on the test split, so test accuracy is optimistic")
    for note in notes:
        log.info("note: %s", note)


def log_result(folder: Path, metrics: dict[str, Any], best: str, classes: int) -> None:
    """Log the test result, the command that may come next and, on the last line, the run folder.

    Args:
        folder: Run folder.
        metrics: Content of metrics.json.
        best: Description of best.ckpt, see `describe_best`.
        classes: Number of classes; top-5 accuracy is left out below six.
    """
    if "test/top1" in metrics:
        result = f"test {format_accuracy(metrics['test/top1'], metrics['test/top5'], classes)}"
        next_command = shell_command("evaluate", ckpt_path=folder)
    else:
        result = f"loss {metrics['train/loss']:.4f}"
        next_command = shell_command("train", "method=linear_probe", init_from=folder)
    log.info("result     %s   (%s)   %.0f s", result, best, metrics["train/seconds"])
    log.info("figures    %s", folder / "figures")
    log.info("next       %s", next_command)
    log.info("%s", folder)
