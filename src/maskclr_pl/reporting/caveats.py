"""Context of a comparison: settings, cost, environment, and caveats."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maskclr_pl.reporting.comparison import mean_and_std, without_empty_columns
from maskclr_pl.reporting.run_groups import CLEAN, Model
from maskclr_pl.reporting.tables import Rows
from maskclr_pl.runs.environment import shorten_home
from maskclr_pl.runs.seeds import (
    differing_settings,
    flatten,
    group_seeds,
    repeated_seeds,
    training_settings,
)

_RUN_SETTINGS = ("seed", "data.seed", "output_dir", "resume")
"""Settings that differ between any two runs."""
_NONE = "—"
_COST_METRICS = {
    "train/seconds": ("training (s)", 0),
    "train/samples_per_second": ("clips per second", 1),
    "train/peak_memory_mb": ("peak memory (MiB)", 0),
}
"""Metric -> column, digits."""


def setting_rows(models: Sequence[Model]) -> Rows:
    """Return the settings that differ between models; values of seeds are joined by `or`."""
    tables = [[flatten(config) for config in model.configs] for model in models]
    return [row for row in _differing(models, tables) if row[""] not in _RUN_SETTINGS]


def _differing(models: Sequence[Model], tables: Sequence[Sequence[Mapping[str, Any]]]) -> Rows:
    """Return the keys whose values differ, with one column per model.

    Args:
        models: The models.
        tables: For each model, one mapping per run.
    """
    rows: Rows = []
    for key in dict.fromkeys(key for runs in tables for table in runs for key in table):
        cells = [_join(table.get(key, _NONE) for table in runs) for runs in tables]
        if len(set(cells)) > 1:
            rows.append({"": key, **{m.label: c for m, c in zip(models, cells, strict=True)}})
    return rows


def _join(values: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys(shorten_home(str(value)) for value in values))


def cost_rows(models: Sequence[Model]) -> Rows:
    """Return the cost of training and inference, mean and standard deviation over seeds."""
    rows: Rows = []
    for model in models:
        row = {"run": model.label}
        for key, (column, digits) in _COST_METRICS.items():
            row[column] = mean_and_std(model.metric(key), digits)
        for key, column, unit in (
            ("parameters", "parameters (M)", 1e6),
            ("flops_per_clip", "GFLOPs per clip", 1e9),
        ):
            values = sorted(set(model.metric(key)))
            row[column] = " or ".join(f"{value / unit:.3g}" for value in values)
        devices = {f"{e['devices']} x {e['device']}" for e in model.environments if e}
        row["device"] = " or ".join(sorted(devices))
        rows.append(row)
    rows = without_empty_columns(rows)
    return rows if len(rows[0]) > 1 else []


def environment_rows(models: Sequence[Model]) -> tuple[Rows, Rows]:
    """Return versions, hardware and data that are the same in all runs, and those that differ."""
    tables = [[_environment(values) for values in model.environments] for model in models]
    if not any(table for runs in tables for table in runs):
        return [], []
    differing = _differing(models, tables)
    names = {row[""] for row in differing}
    first = next(table for runs in tables for table in runs if table)
    same = [{"": key, "all runs": str(v)} for key, v in first.items() if key not in names]
    return same, differing


def _environment(values: Mapping[str, Any]) -> dict[str, Any]:
    """Select the displayed values of environment.json."""
    if not values:
        return {}
    table = {key: values.get(key) for key in ("python", "platform", "device", "devices", "threads")}
    table |= values.get("packages", {})
    table |= {"cuda": values.get("cuda"), "code": values.get("code")}
    data = {key: value for key, value in values.get("data", {}).items() if key != "classes"}
    table |= {f"data, {key.replace('_', ' ')}": value for key, value in data.items()}
    return {key: value for key, value in table.items() if value is not None}


def caveats(models: Sequence[Model], groups: Sequence[Sequence[Model]]) -> list[str]:
    """Return what a reader must know before trusting the numbers, one sentence each.

    Args:
        models: All models.
        groups: The same models in groups with the same test clips.
    """
    sentences = []
    if synthetic := [model.label for model in models if model.synthetic]:
        sentences.append(
            f"{', '.join(synthetic)}: synthetic data. The numbers say nothing about any benchmark."
        )
    single = [model.label for model in models if CLEAN in model.values and len(model.runs) == 1]
    if single:
        sentences.append(
            f"{', '.join(single)}: one seed. The variance over seeds is unknown; intervals of "
            "differences are about the choice of test clips only."
        )
    if len(groups) > 1:
        labels = " | ".join(", ".join(model.label for model in group) for group in groups)
        sentences.append(
            f"Not compared with each other: {labels}. They were tested on different clips or data, "
            "or not at all."
        )
    labels_by_text: dict[str, list[str]] = defaultdict(list)
    for model in models:
        for text in _model_caveats(model):
            labels_by_text[text].append(model.label)
    sentences += [f"{', '.join(labels)}: {text}." for text, labels in labels_by_text.items()]
    return sentences


def _model_caveats(model: Model) -> list[str]:
    texts = []
    if any(config.get("monitor_split") == "test" for config in model.configs):
        texts.append(
            "the checkpoint was selected on the test split (monitor_split=test), so the test score "
            "is optimistic"
        )
    if CLEAN in model.values and not model.tests:
        texts.append("not all runs have a predictions.npz of the same clips; not compared per clip")
    if model.corruptions and model.tests and len(model.scores) == 1:
        texts.append(
            "no robustness_clips.npz of the test clips; corrupted accuracies are not compared per "
            "clip"
        )
    for run, metrics, rows in zip(model.runs, model.metrics, model.robustness, strict=True):
        clean = rows.get(CLEAN, {}).get(0.0, (None,))[0]
        if clean is not None and abs(clean - metrics.get("test/top1", clean)) > 1:
            texts.append(
                f"robustness.csv of {run.name} has a clean top-1 of {clean:.1f}, metrics.json of "
                f"{metrics['test/top1']:.1f}: different clips, or a different checkpoint"
            )
    if any(model.robustness) and not all(model.robustness):
        texts.append("not all runs were evaluated under corruptions; these results are omitted")
    if len(model.runs) > 1:
        texts += seed_problems(model)
    if any("uncommitted" in str(environment.get("code")) for environment in model.environments):
        texts.append("the code had uncommitted changes")
    if not all(model.environments):
        texts.append("no environment.json, so hardware, versions and data are unknown")
    return texts


def seed_problems(model: Model) -> list[str]:
    """Return why the runs of a label are not seeds of one model."""
    problems = []
    seeds = [config.get("seed") for config in model.configs]
    if repeated_seeds(seeds):
        problems.append(f"seeds {', '.join(map(str, seeds))} are not all different")
    settings = list(map(training_settings, model.configs, model.runs))
    if len(group_seeds(seeds, settings)) > 1:
        keys = ", ".join(differing_settings(settings)[:8])
        problems.append(f"runs under this label differ in more than the seed: {keys}")
    return problems
