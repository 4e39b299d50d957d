"""Settings of a run that is resumed, and which of them may change."""

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
    # hardware and speed
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("trainer.precision", "trainer.deterministic", "trainer.benchmark", "trainer.profiler"),
    *("compile", "checkpointing", "data.num_workers", "data.path", "trusted"),
    # what is logged and kept
    *("callbacks", "logger", "objective"),
    *("trainer.log_every_n_steps", "trainer.limit_test_batches"),
)
"""Settings and groups that may change when a run is resumed. All others affect what is learned."""

_REQUIRED = ("method", "backbone", "augment", "optim", "clip", "data", "trainer", "callbacks")
"""Groups that every run has."""

_MISSING = object()


def find_run_to_resume(resume: str | None, output_dir: str | None) -> str | None:
    """Return the run folder that `resume=` refers to.

    Args:
        resume: Run folder, its checkpoints/last.ckpt, or `auto`: `output_dir` if it holds a run.
        output_dir: Folder of the run.

    Raises:
        InputError: If `resume` is another file, or `auto` without a folder.
    """
    if resume is None:
        return None
    if resume == "auto":
        if output_dir is None:
            raise InputError("resume=auto continues the run in output_dir; pass output_dir=FOLDER")
        return output_dir if holds_run(Path(output_dir)) else None
    path = Path(resume)
    if not path.is_file():
        return resume
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if path.name != LAST:
        raise InputError(
            f"resume={path}: runs resume from checkpoints/{LAST}; pass resume={folder}, or "
            f"init_from={path} to start another run from this file"
        )
    return str(folder)


def changed_overrides(folder: Path, passed: Sequence[str]) -> list[str]:
    """Return overrides that differ from those that a run was started with; for `resume=auto`.

    Args:
        folder: Run folder.
        passed: Overrides of the command line.

    Raises:
        InputError: If an override that affects the result is missing.
    """
    before = [str(word) for word in read_environment(folder).get("command", [])[3:]]
    now = {shorten_home(word): word for word in passed}
    keys = [word.partition("=")[0] for word in ("resume=", "output_dir=", *now)]
    for word in before:
        key = word.partition("=")[0]
        if word not in now and key not in keys and not key.lstrip("+~").startswith(CHANGEABLE):
            raise InputError(
                f"resume=auto: the run in {folder} was started with {word}; pass it as well, or "
                "another output_dir="
            )
    return [
        word
        for same, word in now.items()
        if same not in before and word.partition("=")[0] not in ("resume", "output_dir")
    ]


def resume_config(
    folder: Path, composed: DictConfig, overrides: Sequence[str]
) -> tuple[DictConfig, list[str]]:
    """Return the saved configuration of a run with overrides on top, and notes about it.

    Args:
        folder: Run folder.
        composed: Configuration of this command, which contains the values of the overrides.
        overrides: Overrides of the command line.

    Raises:
        InputError: If the folder holds no run, or an override must not change.
    """
    cfg, notes = _saved_config(folder, composed)
    if "compile" not in cfg:
        raise InputError(f"resume={folder}: the run is from an older version of maskclr_pl")
    # settings and callbacks that the version of the run lacked
    for key, value in composed.items():
        if key not in cfg and not OmegaConf.is_dict(value):
            cfg[key] = value
    for name, callback in composed.callbacks.items():
        if name == "checkpoint" or name not in cfg.callbacks:
            cfg.callbacks[name] = callback
    OmegaConf.set_struct(cfg, True)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = str(override.key_or_group)
        if key != "resume":
            _change(cfg, composed, key, override)
    cfg.resume = str(folder)
    check_values(cfg)
    return cfg, notes


def _saved_config(folder: Path, composed: DictConfig) -> tuple[DictConfig, list[str]]:
    """Read config.yaml, or the newest checkpoint if that file is damaged."""
    file = folder / "config.yaml"
    damage = InputError(
        f"resume={folder}: neither a readable config.yaml nor a checkpoint in this folder; pass a "
        "run folder, or start the run again with output_dir="
    )
    if file.is_file() and file.stat().st_size:
        try:
            read_yaml(file)  # refuses oversized files
            saved = OmegaConf.load(file)
        except InputError as error:
            damage = error
        except Exception as error:  # keys and values that OmegaConf rejects
            reason = " ".join(str(error).split())[:200]
            damage = InputError(f"{file}: not the settings of a run ({reason})")
        else:
            return _trusted(saved, file, composed), []
    found = newest_checkpoint(folder)
    if found is None:
        raise damage
    try:
        saved = OmegaConf.create(dict(found.content["maskclr_pl"]["config"]))
    except Exception:  # a damaged file may hold anything
        raise InputError(f"{found.path}: expected a checkpoint of maskclr_pl.train") from None
    note = f"config.yaml is missing or damaged; settings are read from {found.path}"
    return _trusted(saved, found.path, composed), [note]


def _trusted(cfg: Any, file: Path, composed: DictConfig) -> DictConfig:
    """Return the configuration of a run if all its classes are trusted or used by this command.

    Raises:
        InputError: If a class is not trusted, or a group of settings is missing.
    """
    own, values = OmegaConf.to_container(composed), update_config(OmegaConf.to_container(cfg))
    trusted = trusted_packages(composed.trusted, whole_run=True, typed=own)
    refuse_untrusted(values, file, trusted)
    cfg = OmegaConf.create(values)
    for name, group in composed.items():
        saved = cfg.get(str(name))
        expected = OmegaConf.is_dict(group) and (saved is not None or name in _REQUIRED)
        if expected and not OmegaConf.is_dict(saved):
            raise InputError(f"{file}: {name!s} is {saved!r}, expected settings by name")
    if key := _missing_target(own, values):
        raise InputError(f"{file}: {key} is missing, expected the name of a class")
    cfg.trusted = composed.trusted
    return cfg


def _missing_target(composed: Any, saved: Any, path: str = "") -> str | None:
    """Return the first `_target_` of a composed configuration that a saved one lacks."""
    if not isinstance(composed, dict) or not isinstance(saved, dict):
        return None
    if "_target_" in composed and "_target_" not in saved:
        return f"{path}_target_"
    keys = (key for key in composed if key in saved)
    missing = (_missing_target(composed[key], saved[key], f"{path}{key}.") for key in keys)
    return next(filter(None, missing), None)


def _change(cfg: DictConfig, composed: DictConfig, key: str, override: Override) -> None:
    """Apply an override in place.

    Raises:
        InputError: If it changes a setting that must stay as it was.
    """
    before = OmegaConf.select(cfg, key, default=_MISSING)
    value = OmegaConf.select(composed, key, default=_MISSING)
    groups = [one for one in (before, value) if OmegaConf.is_dict(one)]
    if any(key == name or key.startswith(f"{name}.") for name in CHANGEABLE):
        if len(groups) == 2 and set(before) == set(value):
            return  # the same loggers, whose ids are saved with the run
        if override.is_delete():
            parent, _, name = key.rpartition(".")
            with open_dict(cfg):
                OmegaConf.select(cfg, parent).pop(name, None)
            return
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
        return
    if groups or override.is_delete() or before is _MISSING or value is _MISSING:
        raise InputError(
            f"{override.input_line}: resume= cannot replace parts of a run; leave it out, or "
            "start another run"
        )
    if before != value:
        shown = "null" if before is None else before
        raise InputError(
            f"{override.input_line}: the resumed run has {key}={shown}, which affects its result; "
            "leave it out, or start another run (init_from= reuses the weights)"
        )


def check_data(folder: Path, data: SkeletonDataModule) -> None:
    """Raise an InputError if the store holds other poses or labels than when the run started."""
    before, now = read_environment(folder).get("data", {}), describe_data(data)
    for key in ("poses_sha256", "source_sha256"):
        if before.get(key) and now[key]:
            if before[key] != now[key]:
                raise InputError(
                    f"{data.store.path} holds other clips than when {folder} was started; pass "
                    "data.path=... with the original store, or start another run"
                )
            return
