"""`python -m maskclr_pl.train`: train, test, and leave a run folder.

The bare command trains the tiny DSTformer with MaskCLR on toy data.
"""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from maskclr_pl.backbones import Backbone
from maskclr_pl.callbacks import CostCallback, EpochLines, FiniteTraining
from maskclr_pl.checkpoint import build_method, checkpoint_path, metadata
from maskclr_pl.cli import claim, log, log_to, plain, run_folder, verb
from maskclr_pl.data import Store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.evaluation.cost import flops_per_clip
from maskclr_pl.evaluation.environment import environment, write_environment
from maskclr_pl.evaluation.results import (
    write_atomically,
    write_lines,
    write_predictions,
    write_run_metrics,
)
from maskclr_pl.evaluation.runs import curves, keep_history, marked_epochs, masked_shares
from maskclr_pl.evaluation.seen import pose_of
from maskclr_pl.figures.curves import training_curves
from maskclr_pl.figures.skeletons import joint_shares
from maskclr_pl.loggers import logged, make_loggers
from maskclr_pl.methods import Classifier, Method, OneShot
from maskclr_pl.pictures import draw_records
from maskclr_pl.plan import Plan, last_words, monitored, outcome, plan
from maskclr_pl.resuming import (
    check_data,
    folder_to_resume,
    progress,
    resume_lines,
    saved_settings,
)
from maskclr_pl.settings import check, complete
from maskclr_pl.starting import inherit, init_from
from maskclr_pl.types import InputError


@verb("train")
def main(cfg: DictConfig) -> float | None:
    """Train and test one run; returns the value of `objective` for sweepers."""
    typed = list(HydraConfig.get().overrides.task)
    if cfg.resume:
        cfg = saved_settings(folder_to_resume(str(cfg.resume)), cfg, typed)
    taken = inherit(cfg, typed) if cfg.init_from not in (None, "RUN") and not cfg.resume else []
    done = progress(Path(cfg.resume)) if cfg.resume else None
    last = None if done is None else done.path
    # whatever can be wrong is found before the run folder is claimed
    store = complete(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    method = build_method(cfg, store.skeleton, with_weights=last is None)
    check(cfg, store, method)
    for module in method.modules():
        if isinstance(module, Backbone):
            module.checkpointing = cfg.checkpointing
    if cfg.compile:
        method.compile_backbone()
    data: SkeletonDataModule = hydra.utils.instantiate(cfg.data, _convert_="all")
    data.train_dataloader()
    if problem := method.check_clips(len(data.train)):
        raise InputError(problem)
    started = _start(cfg, method, store, taken) if cfg.init_from and last is None else []
    if cfg.resume:
        check_data(Path(cfg.resume), data)
    if cfg.select_on == "test":
        data.val = data.test
    monitor, notes = monitored(cfg, data)
    folder = _folder(cfg)
    cfg.output_dir = str(folder)
    trainer = _trainer(cfg, folder, monitor)
    _refuse_processes(trainer, str(cfg.trainer.strategy))
    began = () if done is None else (done.planned, done.epochs)
    planned = plan(cfg, trainer, method, data, *began)
    started += [f"note       {note}" for note in (*notes, *planned.notes)]
    if cfg.resume and planned.trained:
        started += resume_lines(folder, done, planned.epochs, planned.stages)
    method.metadata = metadata(plain(cfg), store.skeleton, store.class_names, data.train.lengths)
    method.metadata["stage_epochs"] = planned.share_epochs
    if trainer.is_global_zero:
        if not cfg.resume:
            claim(folder)
        write_atomically(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True).encode())
        words = ["python", "-m", "maskclr_pl.train", *HydraConfig.get().overrides.task]
        where = trainer.strategy.root_device, trainer.world_size
        write_environment(folder, environment(data, *where, words))
        log_to(folder / "train.log")
        _describe(cfg, data, method, started)
        if cfg.data.labelled is not None:
            write_lines(folder / "labelled.txt", data.train.names)
    if done is not None and trainer.is_global_zero:
        keep_history(trainer.loggers, folder, before=done.step)
    with logged(trainer.loggers, folder, plain(cfg)):
        metrics = _fit_and_test(trainer, method, data, folder, last, planned)
    if trainer.is_global_zero:
        last_words(folder, metrics, planned, monitor)
    return metrics.get(cfg.objective)


def _start(cfg: DictConfig, method: Method, store: Store, same: list[str]) -> list[str]:
    """Take over the weights of another run; what is to be said about it, a line each."""
    path = checkpoint_path(cfg.init_from)
    taken, notes = init_from(method, path, plain(cfg), store.class_names)
    settings = f"   settings as there: {', '.join(same)}" if same else ""
    return [
        f"start      {', '.join(taken)} from {cfg.init_from}{settings}",
        *(f"note       {cfg.init_from}: {note}" for note in notes),
    ]


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
    callbacks: list[L.Callback] = [FiniteTraining()]
    callbacks += [
        hydra.utils.instantiate(callback, **special.get(name, {}), _convert_="all")
        for name, callback in cfg.callbacks.items()
    ]
    if "masking" in cfg:
        callbacks.append(hydra.utils.instantiate(cfg.masking, _convert_="all"))
    terminal = sys.stdout.isatty()
    callbacks.append(EpochLines(logging.DEBUG if terminal else logging.INFO))
    trainer: L.Trainer = hydra.utils.instantiate(
        cfg.trainer,
        callbacks=callbacks,
        logger=make_loggers(cfg, folder),
        default_root_dir=str(folder),
        enable_progress_bar=terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,  # our batch samplers share the clips among ranks
    )
    return trainer


def _describe(
    cfg: DictConfig, data: SkeletonDataModule, method: Method, started: list[str]
) -> None:
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
        log.info("note       %s", note)
    for line in started:
        log.info("%s", line)
    known = np.isin(data.test.labels, data.train.labels)
    if isinstance(method, Classifier) and not isinstance(method, OneShot) and not known.any():
        log.info("note       no test clip is of a class that is trained on; type data.test_split=")
    if cfg.select_on == "test":
        log.info("note       checkpoints are chosen on the test split: its clips are not unseen")


def _fit_and_test(
    trainer: L.Trainer,
    method: Method,
    data: SkeletonDataModule,
    folder: Path,
    start: Path | None,
    planned: Plan,
) -> dict[str, float]:
    """Fit, test the chosen checkpoint, write everything that a run folder holds.

    Training continues where the checkpoint `start` was written, if there is one.
    """
    began = time.monotonic()
    metrics: dict[str, float] = {}
    if any(parameter.requires_grad for parameter in method.parameters()):
        _fit(trainer, method, data, folder, start)
        metrics = outcome(trainer, planned, folder)
    else:  # nearest neighbours
        trainer.validate(method, data, ckpt_path=start, verbose=False)
        for name in ("best", "last"):
            trainer.save_checkpoint(folder / "checkpoints" / f"{name}.ckpt")
    metrics.setdefault("train/seconds", round(time.monotonic() - began, 1))
    metrics["parameters"] = sum(p.numel() for p in method.parameters())
    if isinstance(method, Classifier):
        metrics = _test(trainer, method, data, folder) | metrics
    else:  # without labels there is nothing to test
        found = trainer.callback_metrics
        metrics |= {key: float(found[key]) for key in found if key.startswith("train/")}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        metrics |= callback.cost if isinstance(callback, CostCallback) else {}
    if trainer.is_global_zero:
        metrics["flops_per_clip"] = flops_per_clip(method, data.test)
        write_run_metrics(folder, metrics)
        _draw(folder, method, data)
    return metrics


def _fit(
    trainer: L.Trainer, method: Method, data: SkeletonDataModule, folder: Path, start: Path | None
) -> None:
    try:
        trainer.fit(method, data, ckpt_path=start)
    except SystemExit:  # what Lightning makes of an interruption
        if (folder / "checkpoints" / "last.ckpt").is_file():
            log.info("continue   python -m maskclr_pl.train resume=%s", folder)
        raise KeyboardInterrupt from None


def _test(
    trainer: L.Trainer, method: Classifier, data: SkeletonDataModule, folder: Path
) -> dict[str, float]:
    """Test the chosen checkpoint and keep its predictions."""
    val = trainer.callback_metrics.get("val/top1")
    best = folder / "checkpoints" / "best.ckpt"
    [tested] = trainer.test(method, data, ckpt_path=best, verbose=False)
    if trainer.is_global_zero:
        found = {key: value.numpy() for key, value in method.predictions.items()}
        names = np.array(data.test.names)[found["index"]]
        write_predictions(folder, names, found["label"], found["logits"])
    return {**tested, **({} if val is None else {"val/top1": float(val)})}


def _draw(folder: Path, method: Method, data: SkeletonDataModule) -> None:
    """Tables and figures from what the run folder holds."""
    figures = folder / "figures"
    draw_records(folder, data.store.class_names, method.skeleton)
    if (folder / "metrics.csv").is_file():  # if the CSV logger is there
        marks = {folder.name: marked_epochs(folder)}
        path = figures / "training_curves.png"
        training_curves({folder.name: curves(folder)}, path, marks=marks)
    if shares := masked_shares(folder):
        pose = pose_of(method, data.test)
        title = "What was hidden in training"
        joint_shares(shares, method.skeleton, pose, figures / "masked_joints.png", title)


if __name__ == "__main__":
    main()
