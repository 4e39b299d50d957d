"""Assemble a run from its configuration: settings, data, method. Nothing is written."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import lightning as L
from omegaconf import DictConfig

from maskclr_pl.backbones import Backbone
from maskclr_pl.checkpoint.inheritance import inherit
from maskclr_pl.checkpoint.lineage import training_record
from maskclr_pl.checkpoint.load import checkpoint_path
from maskclr_pl.checkpoint.transfer import transfer_weights
from maskclr_pl.config.build import blame_setting, build_method
from maskclr_pl.config.composition import Inherited, adapt_to_data, is_overridden, overridden_keys
from maskclr_pl.config.container import to_container
from maskclr_pl.config.resolve import (
    check_balanced_batch,
    check_settings,
    fill_sizes,
    fill_val_fraction,
    open_store,
)
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.splits import saved_label_list
from maskclr_pl.errors import InputError
from maskclr_pl.methods import Method
from maskclr_pl.training.progress import Progress, read_progress
from maskclr_pl.training.resume import changed_overrides, check_data, resume_config


class TrainingSetup(NamedTuple):
    """A run that is ready to start."""

    cfg: DictConfig
    """Complete, with settings inherited from another run and those that follow from the data."""
    method: Method
    data: SkeletonDataModule
    progress: Progress | None
    """Checkpoint and epoch that a resumed run continues from."""
    trained_on: dict[str, Any]
    """Record of the training clips, for the checkpoints."""
    lines: list[str]
    """For the log: initial weights and automatic settings."""


def assemble(cfg: DictConfig, overrides: Sequence[str]) -> TrainingSetup:
    """Complete the configuration, open the data, build the method, load initial weights.

    Errors of the input are raised here, before a run folder is created.

    Args:
        cfg: As composed.
        overrides: Overrides of the command line.

    Raises:
        InputError: If the settings contradict each other, the data, or the run to start from.
    """
    cfg, progress, inherited, notes = _settings(cfg, overrides)
    # a damaged config.yaml may hold anything
    guard = blame_setting(f"{cfg.resume}/config.yaml") if cfg.resume else nullcontext()
    with guard:
        return _assemble(cfg, overrides, progress, inherited, notes)


def _assemble(
    cfg: DictConfig,
    overrides: Sequence[str],
    progress: Progress | None,
    inherited: Inherited,
    notes: Sequence[str],
) -> TrainingSetup:
    lines = [f"note: {note}" for note in notes]
    store = open_store(cfg)
    fill_val_fraction(cfg)
    if not cfg.resume:
        lines += [f"note: {note}" for note in adapt_to_data(cfg, store, overrides, inherited)]
    fill_sizes(cfg, store)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    method = build_method(cfg, store.skeleton, with_weights=progress is None)
    check_settings(cfg, store, method)
    check_balanced_batch(cfg, list(overrides))
    for module in method.modules():
        if isinstance(module, Backbone):
            module.checkpointing = cfg.checkpointing
    data = _open_data(cfg)
    method.check_clips(len(data.train))
    if cfg.init_from and progress is None:
        lines += _load_initial_weights(cfg, method, store.class_names, inherited)
    last = None if progress is None else progress.path
    trained_on, overlaps = training_record(cfg, data, method, last)
    return TrainingSetup(cfg, method, data, progress, trained_on, lines + overlaps)


def _settings(
    cfg: DictConfig, overrides: Sequence[str]
) -> tuple[DictConfig, Progress | None, Inherited, list[str]]:
    """Return the settings of a resumed run, or complete those of a new one (`init_from`)."""
    if cfg.resume:
        # without resume= on the command line a sweep resumes a job, whose overrides are saved
        folder = Path(cfg.resume)
        passed = any(override.startswith("resume=") for override in overrides)
        if "resume=auto" in overrides:
            overrides = changed_overrides(folder, overrides)
        cfg, notes = resume_config(folder, cfg, overrides if passed else [])
        return cfg, read_progress(folder), Inherited(), notes
    if cfg.init_from is None:
        if cfg.init_required and not is_overridden("init_from", overridden_keys(overrides)):
            raise InputError(
                "this method starts from another run; pass init_from=RUN_FOLDER, or init_from=null "
                "for a random backbone or for backbone.weights=FILE"
            )
        return cfg, None, Inherited(), []
    inherited = inherit(cfg, overridden_keys(overrides))
    return cfg, None, inherited, list(inherited.notes)


def _open_data(cfg: DictConfig) -> SkeletonDataModule:
    labeled = cfg.data.label_fraction
    if cfg.resume:
        labeled = saved_label_list(labeled, Path(cfg.resume))
    data: SkeletonDataModule = hydra.utils.instantiate(
        cfg.data, label_fraction=labeled, _convert_="all"
    )
    data.train_dataloader()  # raises if the batches cannot be made
    if cfg.monitor_split == "test":
        data.validate_on_test()
    if cfg.resume:
        check_data(Path(cfg.resume), data)
    return data


def _load_initial_weights(
    cfg: DictConfig, method: Method, class_names: list[str], inherited: Inherited
) -> list[str]:
    """Load the weights of another run; return log lines."""
    path = checkpoint_path(cfg.init_from)
    parts, notes = transfer_weights(method, path, to_container(cfg), class_names)
    groups = ", ".join(inherited.groups)
    settings = f"   inherited settings: {groups}" if groups else ""
    return [
        f"start      {', '.join(parts)} from {cfg.init_from}{settings}",
        *(f"note: {cfg.init_from}: {note}" for note in notes),
    ]
