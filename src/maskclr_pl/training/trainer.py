"""Build the Lightning trainer of a run."""

import logging
import sys
from pathlib import Path
from typing import Any

import hydra
import lightning as L
from omegaconf import DictConfig

from maskclr_pl.callbacks import (
    CheckpointOnSignal,
    EpochTimeEstimate,
    ProgressLog,
    SaveEpochRow,
    StopOnNonFinite,
)
from maskclr_pl.cli import is_multirun
from maskclr_pl.errors import InputError
from maskclr_pl.runs.checkpoints import use_durable_checkpoints


def build_trainer(cfg: DictConfig, folder: Path, monitor: str | None, logger: Any) -> L.Trainer:
    """Instantiate the trainer with all callbacks: ours, those of `callbacks`, and `masking`.

    Args:
        cfg: Complete.
        folder: Run folder.
        monitor: Metric that best.ckpt is chosen by; None keeps the last epoch.
        logger: Loggers, or False for none.
    """
    checkpoints = folder / "checkpoints"
    arguments: dict[str, dict[str, Any]] = {
        "checkpoint": {"dirpath": checkpoints, "monitor": monitor},
        "last": {"dirpath": checkpoints},
    }
    callbacks: list[L.Callback] = [StopOnNonFinite(), SaveEpochRow()]
    callbacks += [
        hydra.utils.instantiate(callback, **arguments.get(name, {}), _convert_="all")
        for name, callback in cfg.callbacks.items()
    ]
    if "masking" in cfg:
        callbacks.append(hydra.utils.instantiate(cfg.masking, _convert_="all"))
    terminal = sys.stdout.isatty()
    callbacks += [EpochTimeEstimate(), CheckpointOnSignal(checkpoints)]
    callbacks.append(ProgressLog(logging.DEBUG if terminal else logging.INFO))
    trainer: L.Trainer = hydra.utils.instantiate(
        cfg.trainer,
        callbacks=callbacks,
        logger=logger,
        default_root_dir=str(folder),
        enable_progress_bar=terminal,
        enable_model_summary=False,
        use_distributed_sampler=False,  # our batch samplers share the clips among ranks
    )
    use_durable_checkpoints(trainer)
    return trainer


def check_strategy(trainer: L.Trainer, strategy: str) -> None:
    """Raise an InputError for ways to run several processes that a run does not support."""
    if any(name in strategy for name in ("spawn", "fork", "notebook")):
        raise InputError(
            f"trainer.strategy={strategy} trains in processes whose weights are lost at their end; "
            "pass trainer.strategy=ddp"
        )
    if any(name in strategy for name in ("fsdp", "deepspeed", "model_parallel")):
        raise InputError(
            f"trainer.strategy={strategy} splits the weights across devices, but checkpoints and "
            "key networks need them whole; pass trainer.strategy=ddp"
        )
    if trainer.world_size > 1 and is_multirun():
        raise InputError(
            "-m with several devices would run the whole sweep once per device; pass "
            "trainer.devices=1, or start the runs one by one"
        )
