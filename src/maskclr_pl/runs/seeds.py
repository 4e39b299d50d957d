"""Repetitions of a training: runs that differ only in their random seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskclr_pl.errors import InputError
from maskclr_pl.runs.environment import read_environment
from maskclr_pl.runs.read import read_config, run_folder_of

_IRRELEVANT = (
    "seed",
    "output_dir",
    "resume",
    "init_from",
    "check_only",
    "trusted",
    "objective",
    "download",
    "init_required",
    "compile",
    "checkpointing",
    "data.num_workers",
    "trainer.accelerator",
    "trainer.log_every_n_steps",
)
"""Settings that change nothing in the result except the random numbers."""
_IRRELEVANT_GROUPS = ("logger.", "paths.", "callbacks.figures.", "callbacks.cost.")

Settings = Mapping[str, Any]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names."""
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            settings |= flatten(value, f"{prefix}{key}.")
        else:
            settings[f"{prefix}{key}"] = value
    return settings


def training_settings(config: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Settings by dotted name that determine the result of a training, except for the seed.

    Those of the run it started from are included as `init_from.KEY` if that run still exists.
    `data.seed` is left out where it equals the seed of the run.

    Args:
        config: `config.yaml` of the run.
        folder: Run folder, if known: the hash of its poses then replaces the folder of the store.
    """
    settings = {
        key: value
        for key, value in flatten(config).items()
        if key not in _IRRELEVANT and not key.startswith(_IRRELEVANT_GROUPS)
    }
    if settings.get("data.seed") == config.get("seed"):
        settings.pop("data.seed", None)
    data = read_environment(folder).get("data", {}) if folder else {}
    if data.get("poses_sha256") and "data.path" in settings:
        settings["data.path"] = f"{Path(str(settings['data.path'])).name} {data['poses_sha256']}"
    if start := config.get("init_from"):
        origin = run_folder_of(str(start))
        try:
            inherited = training_settings(read_config(origin), origin)
        except (InputError, RecursionError):  # RecursionError: a run that names itself
            inherited = {"": str(start)}
        settings |= {f"init_from.{key}".rstrip("."): value for key, value in inherited.items()}
    return settings


def group_seeds(seeds: Sequence[Any], settings: Sequence[Settings]) -> list[list[int]]:
    """Group the positions of runs that repeat each other, in order of appearance.

    Splits and draws of the data have a separate seed, `data.seed`: in a group it equals the seed of
    each run, or is the same for all runs.

    Args:
        seeds: Seed of each run.
        settings: `training_settings` of each run.
    """
    by_settings: dict[Any, dict[Any, list[int]]] = {}
    for i, values in enumerate(settings):
        key = frozenset((k, str(v)) for k, v in values.items() if k != "data.seed")
        data_seed = values.get("data.seed", "seed")  # "seed": equal to the seed of the run
        by_settings.setdefault(key, {}).setdefault(data_seed, []).append(i)
    groups = []
    for by_data_seed in by_settings.values():
        equal = by_data_seed.get("seed", [])
        fixed = [data_seed for data_seed in by_data_seed if data_seed != "seed"]
        # one fixed data seed, which happens to be the seed of a run: the same for all runs
        if len(fixed) == 1 and {seeds[i] for i in equal} == set(fixed):
            by_data_seed = {fixed[0]: sorted([*equal, *by_data_seed[fixed[0]]])}
        groups += list(by_data_seed.values())
    return sorted(groups)


def repeated_seeds(seeds: Sequence[Any]) -> list[int]:
    """Positions of seeds that occur earlier in the list."""
    return [i for i, seed in enumerate(seeds) if str(seed) in map(str, seeds[:i])]


def differing_settings(settings: Sequence[Settings]) -> list[str]:
    """Names of the settings that differ between runs."""
    keys = sorted({key for values in settings for key in values})
    return [key for key in keys if len({str(values.get(key)) for values in settings}) > 1]
