"""Put a run together from its configuration: settings, data, method. Nothing is written."""

from collections.abc import Sequence
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
from maskclr_pl.config.composition import Inherited, adapt_to_data, overridden_keys
from maskclr_pl.config.container import to_container
from maskclr_pl.config.resolve import (
    check_balanced_batch,
    check_settings,
    fill_sizes,
    fill_val_fraction,
    open_store,
)
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.splits import own_list
from maskclr_pl.methods import Method
from maskclr_pl.training.progress import Progress, read_progress
from maskclr_pl.training.resume import changed_overrides, check_data, resume_config


class TrainingSetup(NamedTuple):
    """A run that is ready to start."""

    cfg: DictConfig
    """Complete: what was inherited and what follows from the data is filled in."""
    method: Method
    data: SkeletonDataModule
    progress: Progress | None
    """Checkpoint and epoch that a resumed run continues from."""
    trained_on: dict[str, Any]
    """Record of the clips that the weights are trained on, for the checkpoints."""
    lines: list[str]
    """For the log: where the run starts from, and what was settled."""


def assemble(cfg: DictConfig, overrides: Sequence[str]) -> TrainingSetup:
    """Complete the configuration, open the data, build the method, load the weights to start from.

    Whatever can be wrong with them is found here, before a run folder is claimed.

    Args:
        cfg: As composed.
        overrides: Of the command line.

    Raises:
        InputError: If the settings contradict each other, the data, or the run to start from.
    """
    cfg, done, inherited, notes = _settings(cfg, overrides)
    if cfg.resume:  # whatever a damaged file has in the place of settings
        with blame_setting(f"{cfg.resume}/config.yaml"):
            return _assembled(cfg, overrides, done, inherited, notes)
    return _assembled(cfg, overrides, done, inherited, notes)


def _assembled(
    cfg: DictConfig,
    overrides: Sequence[str],
    done: Progress | None,
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
    method = build_method(cfg, store.skeleton, with_weights=done is None)
    check_settings(cfg, store, method)
    check_balanced_batch(cfg, list(overrides))
    for module in method.modules():
        if isinstance(module, Backbone):
            module.checkpointing = cfg.checkpointing
    data = _data(cfg)
    method.check_clips(len(data.train))
    if cfg.init_from and done is None:
        lines += _start(cfg, method, store.class_names, inherited)
    trained_on, overlaps = training_record(cfg, data, method, None if done is None else done.path)
    return TrainingSetup(cfg, method, data, done, trained_on, lines + overlaps)


def _settings(
    cfg: DictConfig, overrides: Sequence[str]
) -> tuple[DictConfig, Progress | None, Inherited, list[str]]:
    """The settings of a run that is continued, or with those of the run that it starts from."""
    if cfg.resume:
        # a sweep that continues a job sets it: then what was passed is in the saved settings
        folder = Path(cfg.resume)
        own = any(override.startswith("resume=") for override in overrides)
        if "resume=auto" in overrides:
            overrides = changed_overrides(folder, overrides)
        cfg, notes = resume_config(folder, cfg, overrides if own else [])
        return cfg, read_progress(folder), Inherited(), notes
    if cfg.init_from in (None, "RUN"):
        return cfg, None, Inherited(), []
    inherited = inherit(cfg, overridden_keys(overrides))
    return cfg, None, inherited, list(inherited.notes)


def _data(cfg: DictConfig) -> SkeletonDataModule:
    labelled = own_list(cfg.data.labelled, Path(cfg.resume)) if cfg.resume else cfg.data.labelled
    data: SkeletonDataModule = hydra.utils.instantiate(cfg.data, labelled=labelled, _convert_="all")
    data.train_dataloader()  # batches that cannot be made
    if cfg.monitor_split == "test":
        data.validate_on_test()
    if cfg.resume:
        check_data(Path(cfg.resume), data)
    return data


def _start(
    cfg: DictConfig, method: Method, class_names: list[str], inherited: Inherited
) -> list[str]:
    """Take over the weights of another run; lines about it."""
    path = checkpoint_path(cfg.init_from)
    parts, notes = transfer_weights(method, path, to_container(cfg), class_names)
    groups = ", ".join(inherited.groups)
    settings = f"   settings as there: {groups}" if groups else ""
    return [
        f"start      {', '.join(parts)} from {cfg.init_from}{settings}",
        *(f"note: {cfg.init_from}: {note}" for note in notes),
    ]
