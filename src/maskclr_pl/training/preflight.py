"""Estimate memory, disk space and time before training; `debug=check` stops after that."""

import shlex
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from maskclr_pl.analysis.estimate import (
    LargestBatch,
    checkpoint_bytes,
    fits,
    format_bytes,
    format_duration,
    free_memory,
    is_small,
    largest_batch,
    seconds_per_step,
)
from maskclr_pl.analysis.flops import flops_per_clip
from maskclr_pl.analysis.memory import Memory, training_memory, trains_backbone
from maskclr_pl.cli import log
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.masking import Masking
from maskclr_pl.methods import Method
from maskclr_pl.runs.environment import device_name

_LONG = 1e13
"""Operations of a step that is too slow to time; a fast CPU does about 1e11 per second."""
_MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def log_requirements(
    cfg: DictConfig,
    trainer: L.Trainer,
    method: Method,
    data: SkeletonDataModule,
    epochs: int,
    always: bool = False,
) -> bool:
    """Log the memory of a training step and the disk space of the checkpoints, with warnings.

    Args:
        cfg: Complete.
        trainer: Provides device and precision.
        method: Not compiled yet; not changed.
        data: Training clips.
        epochs: Planned epochs.
        always: Estimate the memory of small models as well.

    Returns:
        False if a step needs more than the free memory; True if it fits or that is unknown.
    """
    fits_memory = True
    load = largest_batch(method, data, trainer.world_size)
    if always or not is_small(method, load):
        fits_memory = _log_memory(cfg, trainer, method, load)
    _log_disk(cfg, method, epochs)
    return fits_memory


def _log_memory(cfg: DictConfig, trainer: L.Trainer, method: Method, load: LargestBatch) -> bool:
    device, free = trainer.strategy.root_device, free_memory(trainer.strategy.root_device)
    try:
        memory = training_memory(method, load.batch, _masking(cfg), _MIXED.get(trainer.precision))
    except Exception as error:  # other people's methods may read values of fake tensors
        log.info("note: memory not estimated (%s: %s)", type(error).__name__, error)
        return True
    log.info("memory     %s", memory_text(memory, load, trains_backbone(method)))
    room = "" if free is None else f"   {format_bytes(free)} free"
    count = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    log.info("device     %s%s%s", count, device_name(device), room)
    if fits(memory, free):
        return True
    assert free is not None
    ways = [] if cfg.checkpointing or not trains_backbone(method) else ["checkpointing=true"]
    ways += ["a smaller data.batch_size"]
    ways += [] if trainer.precision in _MIXED else ["trainer.precision=bf16-mixed"]
    log.info(
        "warning: a step needs about %s of memory, but %s are free; pass %s",
        *(format_bytes(memory.peak), format_bytes(free), ", or ".join(ways)),
    )
    return False


def memory_text(memory: Memory, load: LargestBatch, learning: bool = True) -> str:
    """Describe an estimate and its batch."""
    what = "weights, gradients, optimizer" if learning else "weights"
    kept = "activations" if learning else "a pass without gradients"
    return (
        f"about {format_bytes(memory.peak)} ({format_bytes(memory.model)} {what}; "
        f"{format_bytes(memory.step)} {kept})   "
        f"batches of {load.batch_size} clips with up to {load.persons} persons"
    )


def _log_disk(cfg: DictConfig, method: Method, epochs: int) -> None:
    folder = Path(cfg.output_dir or "runs")
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free, each, count = shutil.disk_usage(folder).free, checkpoint_bytes(method), 0
    for callback in cfg.callbacks.values():
        if str(callback.get("_target_")).endswith("Checkpoint"):
            kept = callback.get("save_top_k", 1)
            written = max(1, epochs // (callback.get("every_n_epochs") or 1))
            count += written if kept < 0 else kept
    count += "last" in cfg.callbacks  # last-1.ckpt is kept as well
    total = (count + 1) * each
    log.info(
        "disk       %d checkpoints of %s, %s while one is replaced   %s free",
        *(count, format_bytes(each), format_bytes(total), format_bytes(free)),
    )
    if total > free:
        log.info("warning: checkpoints do not fit on the disk of %s; pass output_dir=...", folder)


def _masking(cfg: DictConfig) -> Masking | None:
    if OmegaConf.select(cfg, "masking.strategy") is None:
        return None
    strategy: Masking = hydra.utils.instantiate(cfg.masking.strategy, _convert_="all")
    return strategy


def check_only(
    cfg: DictConfig,
    trainer: L.Trainer,
    method: Method,
    data: SkeletonDataModule,
    epochs: int,
    overrides: Sequence[str],
) -> None:
    """Log memory, disk space and the time of an epoch, and the command that starts training.

    Nothing is written. Time is measured on a few steps if they fit into memory.

    Args:
        cfg: Complete.
        trainer: Provides device and precision.
        method: Trained for these steps.
        data: Training clips.
        epochs: Planned epochs.
        overrides: Overrides of the command line.
    """
    if not log_requirements(cfg, trainer, method, data, epochs, always=True):
        log.info("time       not measured: a step does not fit into the memory of this machine")
    elif trainer.world_size > 1:
        log.info("time       not measured with several devices; pass trainer.devices=1 for one")
    elif (
        trainer.strategy.root_device.type == "cpu" and (flops := _step_flops(method, data)) > _LONG
    ):
        log.info(
            "time       not measured: a step of about %.1e operations takes minutes on a CPU", flops
        )
    else:
        log.info("time       %s", _time(cfg, trainer, method, data, epochs))
    kept = [override for override in overrides if override.partition("=")[0] != "debug"]
    log.info("next       %s", shlex.join(["python", "-m", "maskclr_pl.train", *kept]))


def _step_flops(method: Method, data: SkeletonDataModule) -> float:
    """Operations of a training step: backward takes twice as many as forward."""
    return 3.0 * data.train_batch_size * flops_per_clip(method, data.train)


def _time(
    cfg: DictConfig, trainer: L.Trainer, method: Method, data: SkeletonDataModule, epochs: int
) -> str:
    device, half = trainer.strategy.root_device, _MIXED.get(trainer.precision)
    autocast: Any = torch.autocast(device.type, half) if half else nullcontext()
    masking = _masking(cfg)
    seconds = seconds_per_step(method, data, device, masking, autocast)
    steps = len(data.train_dataloader())
    if not trains_backbone(method):
        once = format_duration(steps * seconds)
        return f"about {once} to encode the training clips, which is done once"
    pathway = ", with the masked pathway" if masking is not None else ""
    return (
        f"about {format_duration(steps * seconds)} an epoch ({steps} steps of "
        f"{format_duration(seconds)}{pathway}), {format_duration(epochs * steps * seconds)} for "
        f"{epochs} epochs, without validation"
    )
