"""Continuing a run: its settings, where it goes on, what it keeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from maskclr_pl.backbones.weights import read_weights
from maskclr_pl.checkpoint import state_of
from maskclr_pl.cli import check_values
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.evaluation.environment import data_identity, read_environment
from maskclr_pl.reading import read_yaml
from maskclr_pl.stages import Stage
from maskclr_pl.trust import refuse_untrusted, trusted_packages
from maskclr_pl.types import InputError

CHANGEABLE = (
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time"),
    # where and how it is computed
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("trainer.precision", "trainer.deterministic", "trainer.benchmark", "trainer.profiler"),
    *("compile", "checkpointing", "data.num_workers", "data.path", "trusted"),
    # what is measured, shown and kept
    *("callbacks", "logger", "objective"),
    *("trainer.log_every_n_steps", "trainer.limit_test_batches"),
)
"""Settings, and groups of them, that may differ when a run is continued: how long, how fast, and
what is shown. Everything else decides what is learned, and stays."""

_NEEDED = ("method", "backbone", "augment", "optim", "clip", "data", "trainer", "callbacks")
"""Groups that every run has."""

_NOTHING = object()
"""In place of a key that is not there."""


class Progress(NamedTuple):
    """How far a run is."""

    path: Path
    """Checkpoint that it goes on from."""
    epochs: int
    """That are done."""
    step: int
    """Steps that the optimizer has taken."""
    middle: bool
    """Whether the checkpoint was written within an epoch."""
    planned: int
    """Epochs that it began with, of which shares are shares; -1 is unknown."""


def folder_to_resume(given: str) -> Path:
    """The run folder that `resume=` names: itself, or by its last checkpoint.

    Raises:
        InputError: If it is another file.
    """
    path = Path(given)
    if not path.is_file():
        return path
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if path.name != "last.ckpt":
        raise InputError(
            f"resume={path}: a run goes on from its last epoch, checkpoints/last.ckpt; pass "
            f"resume={folder}, or init_from={path} to start another run from this file"
        )
    return folder


def saved_settings(folder: Path, composed: DictConfig, typed: Sequence[str]) -> DictConfig:
    """The configuration of a run that is continued, with the changes that were typed.

    Args:
        folder: Run folder.
        composed: The configuration of this command, which has the values of `typed`.
        typed: Overrides of the command line.

    Raises:
        InputError: If the folder holds no run, or a value that was typed would not take effect.
    """
    file = folder / "config.yaml"
    if not file.is_file() or not file.stat().st_size:
        raise InputError(f"resume={folder}: no config.yaml in this folder; is it a run folder?")
    cfg = _read(file, composed)
    if "compile" not in cfg:
        raise InputError(f"resume={folder}: the run is from an older version of maskclr_pl")
    # settings and callbacks that the version of the run did not have
    for key, value in composed.items():
        if key not in cfg and not OmegaConf.is_dict(value):
            cfg[key] = value
    for name, callback in composed.callbacks.items():
        if name == "checkpoint" or name not in cfg.callbacks:
            cfg.callbacks[name] = callback
    OmegaConf.set_struct(cfg, True)
    for override in OverridesParser.create().parse_overrides(list(typed)):
        key = str(override.key_or_group)
        if key != "resume":
            _change(cfg, composed, key, override)
    cfg.resume = str(folder)
    check_values(cfg)
    return cfg


def _read(file: Path, composed: DictConfig) -> DictConfig:
    """The configuration of a run, whose classes are trusted or named by this command itself.

    Raises:
        InputError: If it is damaged, or asks for something else.
    """
    read_yaml(file)  # within bounds
    try:
        cfg = OmegaConf.load(file)
        values = OmegaConf.to_container(cfg)
    except Exception as error:  # names and values that OmegaConf does not take
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{file}: not the settings of a run ({reason})") from None
    typed = OmegaConf.to_container(composed)
    trusted = trusted_packages(composed.trusted, whole_run=True, typed=typed)
    refuse_untrusted(values, file, trusted)
    assert isinstance(cfg, DictConfig)
    for name, group in composed.items():
        found = cfg.get(str(name))
        given = found is not None or name in _NEEDED
        if OmegaConf.is_dict(group) and given and not OmegaConf.is_dict(found):
            raise InputError(f"{file}: {name!s} is {found!r}, expected settings by name")
    cfg.trusted = composed.trusted
    return cfg


def _change(cfg: DictConfig, composed: DictConfig, key: str, override: Override) -> None:
    """Take over, in place, a value that was typed.

    Raises:
        InputError: If the value is another than the run's, and would not take effect.
    """
    before = OmegaConf.select(cfg, key, default=_NOTHING)
    value = OmegaConf.select(composed, key, default=_NOTHING)
    groups = [one for one in (before, value) if OmegaConf.is_dict(one)]
    if any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE):
        if len(groups) == 2 and set(before) == set(value):
            return  # the same loggers, whose identity the run has saved
        if override.is_delete():
            parent, _, name = key.rpartition(".")
            with open_dict(cfg):
                OmegaConf.select(cfg, parent).pop(name, None)
            return
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
        return
    if groups or override.is_delete() or before is _NOTHING or value is _NOTHING:
        raise InputError(
            f"resume= continues a run as it was; {override.input_line} would exchange a part of "
            "it: leave it out, or start another run"
        )
    if before != value:
        shown = "null" if before is None else before
        raise InputError(
            f"{override.input_line}: the run that is continued has {key}={shown}, and keeps all "
            "that decides its result; leave it out, or start another run (init_from= takes the "
            "weights over)"
        )


def progress(folder: Path) -> Progress | None:
    """Where a run goes on; None if it stopped before its first checkpoint.

    Raises:
        InputError: If the checkpoint is damaged, or its weights are not finite.
    """
    path = folder / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return None
    content = read_weights(path)
    state_of(content, path)
    try:
        loop = content["loops"]["fit_loop"]
        epochs = int(loop["epoch_progress"]["current"]["processed"])
        started = int(loop["epoch_progress"]["current"]["started"])
        info = content["maskclr_pl"]
        planned = info.get("stage_epochs", info["config"]["trainer"]["max_epochs"])
        step = int(content["global_step"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{path}: does not say how far the training is; expected a checkpoint of "
            "maskclr_pl.train"
        ) from None
    return Progress(path, epochs, step, started > epochs, -1 if planned is None else int(planned))


def check_data(folder: Path, data: SkeletonDataModule) -> None:
    """Refuse to continue on other data than the run was begun with.

    Raises:
        InputError: If the store holds other poses or labels.
    """
    before, now = read_environment(folder).get("data", {}), data_identity(data)
    for key in ("poses_sha256", "source_sha256"):
        if before.get(key) and now[key]:
            if before[key] != now[key]:
                raise InputError(
                    f"{data.store.path} holds other clips than when {folder} was begun; pass "
                    "data.path=... with the store that it was begun with, or start another run"
                )
            return


def resume_lines(
    folder: Path, done: Progress | None, epochs: int, stages: Sequence[Stage]
) -> list[str]:
    """Where a run goes on, and what stays as it was, a line each.

    Args:
        folder: Run folder.
        done: How far it is; None: nowhere.
        epochs: That it is to have.
        stages: Of the method and the callbacks, settled.

    Raises:
        InputError: If it has more epochs already.
    """
    if done is None:
        return [f"continues  from the start: {folder} has no checkpoints/last.ckpt yet"]
    if done.epochs > epochs:
        raise InputError(
            f"{done.path} has {done.epochs} epochs already, and trainer.max_epochs={epochs}; pass "
            "more epochs to train on"
        )
    if done.epochs == epochs:
        return [
            f"continues  all {epochs} epochs are done ({done.path}): nothing is left to train, the "
            f"model is tested again; pass trainer.max_epochs={2 * epochs} to train on"
        ]
    where = f"epoch {done.epochs + 1} of {epochs}{', in its middle' if done.middle else ''}"
    lines = [f"continues  {where}, step {done.step}, from {done.path}"]
    if done.planned not in (-1, epochs):
        lines += [
            f"note       {stage.key}={stage.start:g} stays at epoch {stage.first + 1}: it is a "
            f"share of the {done.planned} epochs that the run began with"
            for stage in stages
            if 0 < stage.start < 1
        ]
    return lines
