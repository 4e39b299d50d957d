"""`python -m maskclr_pl.train`: train, test, and leave a run folder.

The bare command trains the tiny DSTformer with MaskCLR on toy data.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from maskclr_pl.callbacks import (
    CheckpointOnSignal,
    EpochTimeEstimate,
    ProgressLog,
    SaveEpochRow,
    StopOnNonFinite,
)
from maskclr_pl.checkpoint.load import run_metadata
from maskclr_pl.cli import command, locked_folder, log, log_to, refuse_run, run_folder
from maskclr_pl.command_line import shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.data.coverage import nobody_notes, training_notes
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.files import write_atomically
from maskclr_pl.methods import Classifier, Method, OneShot
from maskclr_pl.reporting.accuracy import format_accuracy
from maskclr_pl.runs.checkpoints import use_durable_checkpoints
from maskclr_pl.runs.environment import collect_environment, write_environment
from maskclr_pl.runs.history import rewind_history
from maskclr_pl.runs.read import holds_run
from maskclr_pl.runs.results import write_lines
from maskclr_pl.skeletons.layouts import layout_notes
from maskclr_pl.tracking.loggers import make_loggers, tracked
from maskclr_pl.training.assemble import assemble
from maskclr_pl.training.fit import DeadRank, fit_and_test
from maskclr_pl.training.plan import choose_monitor, describe_best, plan
from maskclr_pl.training.preflight import check_only, log_requirements
from maskclr_pl.training.progress import Progress, resume_lines
from maskclr_pl.training.resume import find_run_to_resume
from maskclr_pl.types import InputError


@command("train")
def main(cfg: DictConfig) -> float | None:
    """Train and test one run; returns the value of `objective` for sweepers."""
    cfg.resume = find_run_to_resume(cfg.resume, cfg.output_dir)
    with ExitStack() as stack:
        if cfg.resume and holds_run(Path(cfg.resume)) and not cfg.check_only:
            _hold(Path(cfg.resume), stack)  # before its checkpoints are read
        return _train(cfg, stack)


@rank_zero_only
def _hold(folder: Path, stack: ExitStack) -> None:
    """Keep a run folder from other trainings; the first process does it for all."""
    stack.enter_context(locked_folder(folder))


def _train(cfg: DictConfig, stack: ExitStack) -> float | None:
    overrides = list(HydraConfig.get().overrides.task)
    cfg, method, data, done, trained_on, lines = assemble(cfg, overrides)
    monitor, notes = choose_monitor(cfg, data)
    folder = _folder(cfg)
    cfg.output_dir = str(folder)
    trainer = _trainer(cfg, folder, monitor)
    _refuse_processes(trainer, str(cfg.trainer.strategy))
    data.check_devices(trainer.world_size)
    planned = plan(cfg, trainer, method, data, done)
    lines += [f"note: {note}" for note in (*notes, *planned.notes)]
    if cfg.check_only:
        _describe(cfg, data, method, lines)
        check_only(cfg, trainer, method, data, planned.epochs, overrides)
        return None
    if cfg.resume and planned.trained:
        lines += resume_lines(folder, done, planned.epochs, planned.stages)
    facts = (data.store.skeleton, data.store.class_names, data.train.lengths, trained_on)
    method.metadata = run_metadata(to_container(cfg), *facts) | {
        "stage_epochs": planned.share_epochs
    }
    if not cfg.resume:
        _hold(folder, stack)
    if trainer.is_global_zero:
        _open(folder, cfg, trainer, data, overrides)
        lines += _history(folder, done)
        _describe(cfg, data, method, lines)
        if batch := data.batch_line(trainer.world_size, trainer.accumulate_grad_batches):
            log.info("batch      %s", batch)
        log_requirements(cfg, trainer, method, data, planned.epochs)
    if cfg.compile:
        method.compile_backbone()
    start = None if done is None else done.path
    if trainer.world_size > 1:
        DeadRank.report(folder)
    with tracked(trainer.loggers, folder, to_container(cfg)):
        metrics = fit_and_test(trainer, method, data, folder, start, planned)
    if trainer.is_global_zero:
        _last_words(folder, metrics, describe_best(metrics, planned, monitor), cfg.clip.classes)
    return metrics.get(cfg.objective)


def _open(
    folder: Path,
    cfg: DictConfig,
    trainer: L.Trainer,
    data: SkeletonDataModule,
    overrides: Sequence[str],
) -> None:
    """Write what is known before the training."""
    if not cfg.resume:
        refuse_run(folder)
    words = ["python", "-m", "maskclr_pl.train", *overrides]
    where = trainer.strategy.root_device, trainer.world_size
    write_environment(folder, collect_environment(data, *where, words), new=not cfg.resume)
    if cfg.data.labelled is not None:
        write_lines(folder / "labelled.txt", data.train.names)
    # the last of them: with it the folder holds a run, which can be continued
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True).encode())
    log_to(folder / "train.log")


def _history(folder: Path, done: Progress | None) -> list[str]:
    """Prepare metrics.csv for what is going to be logged; notes about it."""
    if done is None:
        return rewind_history(folder, before=0)
    notes = rewind_history(
        folder, done.step, done.row or None, repeated=done.epochs if done.middle else None
    )
    return [f"note: {note}" for note in notes]


def _folder(cfg: DictConfig) -> Path:
    """The run folder; the processes of one run (DDP) share that of the first."""
    if cfg.resume:
        return Path(cfg.resume)
    if os.environ.get("LOCAL_RANK", "0") != "0" and "MASKCLR_RUN_FOLDER" in os.environ:
        return Path(os.environ["MASKCLR_RUN_FOLDER"])
    folder = run_folder(cfg.output_dir, "train")
    os.environ["MASKCLR_RUN_FOLDER"] = str(folder)
    return folder


def _refuse_processes(trainer: L.Trainer, strategy: str) -> None:
    """What Lightning would start but this command cannot bring to its end."""
    if any(way in strategy for way in ("spawn", "fork", "notebook")):
        raise InputError(
            f"trainer.strategy={strategy} keeps what it learns in processes that end with the "
            "training; type trainer.strategy=ddp"
        )
    if any(way in strategy for way in ("fsdp", "deepspeed", "model_parallel")):
        raise InputError(
            f"trainer.strategy={strategy} keeps a part of the weights on each device, but "
            "checkpoints and key networks need them whole, and the models fit one device; pass "
            "trainer.strategy=ddp"
        )
    if trainer.world_size > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise InputError(
            "-m with several devices would run the whole sweep once per device; type "
            "trainer.devices=1, or start the runs one by one"
        )


def _trainer(cfg: DictConfig, folder: Path, monitor: str | None) -> L.Trainer:
    where = {"dirpath": folder / "checkpoints"}
    special: dict[str, dict[str, Any]] = {
        "checkpoint": {**where, "monitor": monitor},
        "last": where,
    }
    callbacks: list[L.Callback] = [StopOnNonFinite(), SaveEpochRow()]
    callbacks += [
        hydra.utils.instantiate(callback, **special.get(name, {}), _convert_="all")
        for name, callback in cfg.callbacks.items()
    ]
    if "masking" in cfg:
        callbacks.append(hydra.utils.instantiate(cfg.masking, _convert_="all"))
    terminal = sys.stdout.isatty()
    callbacks += [EpochTimeEstimate(), CheckpointOnSignal(folder / "checkpoints")]
    callbacks.append(ProgressLog(logging.DEBUG if terminal else logging.INFO))
    trainer: L.Trainer = hydra.utils.instantiate(
        cfg.trainer,
        callbacks=callbacks,
        logger=False if cfg.check_only else make_loggers(cfg, folder),
        default_root_dir=str(folder),
        enable_progress_bar=terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,  # our batch samplers share the clips among ranks
    )
    use_durable_checkpoints(trainer)
    return trainer


def _describe(cfg: DictConfig, data: SkeletonDataModule, method: Method, lines: list[str]) -> None:
    clip = cfg.clip
    log.info(
        "data       %s   %d train, %d validation, %d test clips   %d classes   "
        "%d joints, %d frames, %d persons   seed %d",
        *(data.store.path, len(data.train), len(data.val), len(data.test), clip.classes),
        *(clip.joints, clip.frames, clip.persons, cfg.seed),
    )
    masked = OmegaConf.select(cfg, "masking.strategy._target_", default="no masking").split(".")[-1]
    terms = OmegaConf.select(cfg, "loss.terms", default={})
    learns = f"loss {' + '.join(terms)}   {masked}" if terms else type(method).__name__
    count = sum(p.numel() for p in method.parameters())
    log.info("model      %s   %d parameters   %s", *(type(method.backbone).__name__, count, learns))
    if method.backbone.loaded:
        log.info("weights    %s: %s", cfg.backbone.weights, method.backbone.loaded)
    for note in data.notes:
        log.info("note: %s", note)
    for line in lines:
        log.info("%s", line)
    rows = {"training": data.train.rows, "validation": data.val.rows, "test": data.test.rows}
    notes = [*nobody_notes(data.store, rows), *layout_notes(method.skeleton, cfg.clip.pairs)]
    if isinstance(method, Classifier) and not isinstance(method, OneShot):
        notes += training_notes(data.train.labels, data.test.labels, data.store)
    for note in notes:
        log.info("note: %s", note)
    if cfg.monitor_split == "test":
        log.info("note: checkpoints are chosen on the test split: its clips are not unseen")


def _last_words(folder: Path, metrics: dict[str, Any], which: str, classes: int) -> None:
    following = shell_command("evaluate", ckpt_path=folder)
    if "test/top1" in metrics:
        log.info(
            "result     test %s   (%s)   %.0f s",
            format_accuracy(metrics["test/top1"], metrics["test/top5"], classes),
            *(which, metrics["train/seconds"]),
        )
    else:
        loss, seconds = metrics["train/loss"], metrics["train/seconds"]
        log.info("result     loss %.4f   (%s)   %.0f s", loss, which, seconds)
        following = shell_command("train", "method=linear_probe", init_from=folder)
    log.info("figures    %s", folder / "figures")
    log.info("next       %s", following)
    log.info("%s", folder)


if __name__ == "__main__":
    main()
