"""Seeds of one model: runs that differ in nothing but their random numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskclr_pl.runs.environment import read_environment
from maskclr_pl.runs.read import read_config, run_folder_of
from maskclr_pl.types import InputError

_FREE = (
    *("seed", "output_dir", "resume", "init_from", "check_only", "trusted", "objective"),
    *("download", "compile", "checkpointing", "data.num_workers"),
    *("trainer.accelerator", "trainer.log_every_n_steps"),
)
"""Settings that change no result, or the random numbers alone."""
_FREE_GROUPS = ("logger.", "paths.", "callbacks.figures.", "callbacks.cost.")

Settings = Mapping[str, Any]


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """All settings by dotted name."""
    settings: dict[str, Any] = {}

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                settings[f"{prefix}{key}"] = value

    walk(config, "")
    return settings


def training_settings(config: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Settings by dotted name that the result of a training follows from, but for the seed.

    With those of the run that it was started from as `init_from.KEY`, where that run is still
    there. `data.seed` is left out where it is the seed of the run.

    Args:
        config: `config.yaml` of the run.
        folder: The run, where known: its record of the poses stands for the path of the store.
    """
    settings = {
        key: value
        for key, value in flatten(config).items()
        if key not in _FREE and not key.startswith(_FREE_GROUPS)
    }
    if settings.get("data.seed") == config.get("seed"):
        settings.pop("data.seed", None)
    data = read_environment(folder).get("data", {}) if folder else {}
    if data.get("poses_sha256") and "data.path" in settings:
        settings["data.path"] = f"{Path(str(settings['data.path'])).name} {data['poses_sha256']}"
    if start := config.get("init_from"):
        origin = run_folder_of(str(start))
        try:
            others = training_settings(read_config(origin), origin)
        except (InputError, RecursionError):  # a folder that names itself
            others = {"": str(start)}
        settings |= {f"init_from.{key}".rstrip("."): value for key, value in others.items()}
    return settings


def group_seeds(seeds: Sequence[Any], settings: Sequence[Settings]) -> list[list[int]]:
    """Positions of the runs that are seeds of each other, groups in order of appearance.

    The splits and draws of the data have a seed of their own, `data.seed`. In a group it is that of
    each run, or the same for all.

    Args:
        seeds: Of each run.
        settings: `training_settings` of each run.
    """
    alike: dict[Any, dict[Any, list[int]]] = {}
    for i, one in enumerate(settings):
        key = frozenset((k, str(v)) for k, v in one.items() if k != "data.seed")
        alike.setdefault(key, {}).setdefault(one.get("data.seed", "seed"), []).append(i)
    result = []
    for parts in alike.values():
        own = parts.get("seed", [])
        fixed = [part for part in parts if part != "seed"]
        if len(fixed) == 1 and {seeds[i] for i in own} == set(fixed):  # it was typed for all
            parts = {fixed[0]: sorted([*own, *parts[fixed[0]]])}
        result += list(parts.values())
    return sorted(result)


def repeated_seeds(seeds: Sequence[Any]) -> list[int]:
    """Positions of runs whose seed stands before them."""
    return [i for i, seed in enumerate(seeds) if str(seed) in map(str, seeds[:i])]


def differing_settings(settings: Sequence[Settings]) -> list[str]:
    """Names of the settings that are not the same in all runs."""
    keys = sorted({key for one in settings for key in one})
    return [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]
