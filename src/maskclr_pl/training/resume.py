"""The settings of a run that is continued, and what may be changed in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from maskclr_pl.cli import check_values
from maskclr_pl.config.trust import refuse_untrusted, trusted_packages
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.errors import InputError
from maskclr_pl.reading import read_yaml
from maskclr_pl.runs.checkpoints import LAST, newest_checkpoint
from maskclr_pl.runs.environment import describe_data, read_environment, shorten_home
from maskclr_pl.runs.moved import update_config
from maskclr_pl.runs.read import holds_run

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


def find_run_to_resume(given: str | None, output_dir: str | None) -> str | None:
    """The run folder that `resume=` names: itself, or by its last checkpoint.

    Args:
        given: Value of `resume`. `auto` is `output_dir` if it holds a run, otherwise None.
        output_dir: Folder of the run.

    Raises:
        InputError: If it is another file, or `auto` without a folder.
    """
    if given is None:
        return None
    if given == "auto":
        if output_dir is None:
            raise InputError("resume=auto continues the run in output_dir; pass output_dir=FOLDER")
        return output_dir if holds_run(Path(output_dir)) else None
    path = Path(given)
    if not path.is_file():
        return given
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if path.name != LAST:
        raise InputError(
            f"resume={path}: a run goes on from its last epoch, checkpoints/{LAST}; pass "
            f"resume={folder}, or init_from={path} to start another run from this file"
        )
    return str(folder)


def changed_overrides(folder: Path, passed: Sequence[str]) -> list[str]:
    """Overrides that differ from those that a run was begun with; for `resume=auto`.

    Args:
        folder: Of the run.
        passed: Overrides of the command line.

    Raises:
        InputError: If one that decides the result is not passed any more.
    """
    before = [str(word) for word in read_environment(folder).get("command", [])[3:]]
    now = {shorten_home(word): word for word in passed}
    keys = [word.partition("=")[0] for word in ("resume=", "output_dir=", *now)]
    for word in before:
        key = word.partition("=")[0]
        if word not in now and key not in keys and not key.lstrip("+~").startswith(CHANGEABLE):
            raise InputError(
                f"resume=auto: the run in {folder} was begun with {word}, which is not passed now; "
                "pass it, or another output_dir="
            )
    return [
        word
        for same, word in now.items()
        if same not in before and word.partition("=")[0] not in ("resume", "output_dir")
    ]


def resume_config(
    folder: Path, composed: DictConfig, typed: Sequence[str]
) -> tuple[DictConfig, list[str]]:
    """The configuration of a run that is continued, with the changes that were typed.

    Args:
        folder: Run folder.
        composed: The configuration of this command, which has the values of `typed`.
        typed: Overrides of the command line.

    Returns:
        The configuration, and notes about it, a line each.

    Raises:
        InputError: If the folder holds no run, or a value that was typed would not take effect.
    """
    cfg, notes = _saved_config(folder, composed)
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
    return cfg, notes


def _saved_config(folder: Path, composed: DictConfig) -> tuple[DictConfig, list[str]]:
    """The content of config.yaml, or of the newest checkpoint if that file is damaged."""
    file = folder / "config.yaml"
    damage = InputError(
        f"resume={folder}: no config.yaml in this folder, or a damaged one, and no checkpoint; "
        "pass a run folder, or start the run again with output_dir="
    )
    if file.is_file() and file.stat().st_size:
        try:
            read_yaml(file)  # within bounds
            saved = OmegaConf.load(file)
        except InputError as error:
            damage = error
        except Exception as error:  # names and values that OmegaConf does not take
            reason = " ".join(str(error).split())[:200]
            damage = InputError(f"{file}: not the settings of a run ({reason})")
        else:
            return _trusted(saved, file, composed), []
    found = newest_checkpoint(folder)
    if found is None:
        raise damage
    try:
        saved = OmegaConf.create(dict(found.content["maskclr_pl"]["config"]))
    except Exception:  # whatever is there in the place of settings
        raise InputError(f"{found.path}: expected a checkpoint of maskclr_pl.train") from None
    note = f"config.yaml is missing or damaged: the settings are those of {found.path}"
    return _trusted(saved, found.path, composed), [note]


def _trusted(cfg: Any, file: Path, composed: DictConfig) -> DictConfig:
    """The configuration of a run, whose classes are trusted or named by this command itself.

    Raises:
        InputError: If it asks for something else, or lacks a group of settings.
    """
    typed, values = OmegaConf.to_container(composed), update_config(OmegaConf.to_container(cfg))
    trusted = trusted_packages(composed.trusted, whole_run=True, typed=typed)
    refuse_untrusted(values, file, trusted)
    cfg = OmegaConf.create(values)
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


def check_data(folder: Path, data: SkeletonDataModule) -> None:
    """Refuse to continue on other data than the run was begun with.

    Raises:
        InputError: If the store holds other poses or labels.
    """
    before, now = read_environment(folder).get("data", {}), describe_data(data)
    for key in ("poses_sha256", "source_sha256"):
        if before.get(key) and now[key]:
            if before[key] != now[key]:
                raise InputError(
                    f"{data.store.path} holds other clips than when {folder} was begun; pass "
                    "data.path=... with the store that it was begun with, or start another run"
                )
            return
