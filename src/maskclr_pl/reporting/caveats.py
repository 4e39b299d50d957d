"""How the runs of a comparison came about: settings, cost, environment, and what to beware of."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from maskclr_pl.reporting.comparison import spread
from maskclr_pl.reporting.run_groups import CLEAN, Model
from maskclr_pl.reporting.tables import Rows
from maskclr_pl.runs.environment import shorten_home
from maskclr_pl.runs.seeds import differing_settings as differing_keys
from maskclr_pl.runs.seeds import flatten, group_seeds, repeated_seeds, training_settings

_ALWAYS = ("seed", "data.seed", "output_dir", "resume")
"""Settings in which any two runs differ."""
NONE = "—"
"""Where a run has no such value."""


def setting_rows(models: Sequence[Model]) -> Rows:
    """The settings that are not the same in all models; several values where seeds differ."""
    tables = [[flatten(config) for config in model.configs] for model in models]
    return differing(models, tables, left_out=_ALWAYS)


def differing(
    models: Sequence[Model],
    tables: Sequence[Sequence[Mapping[str, Any]]],
    left_out: Sequence[str] = (),
) -> Rows:
    """Keys whose values are not the same in all runs, a column for each model.

    Args:
        models: Models.
        tables: For each model, a mapping for each of its runs.
        left_out: Keys to say nothing of.
    """
    rows: Rows = []
    keys = dict.fromkeys(key for runs in tables for table in runs for key in table)
    for key in keys:
        cells = [_joined(table.get(key, NONE) for table in runs) for runs in tables]
        if key not in left_out and len(set(cells)) > 1:
            rows.append({"": key, **{m.label: c for m, c in zip(models, cells, strict=True)}})
    return rows


def _joined(values: Any) -> str:
    return " or ".join(dict.fromkeys(shorten_home(str(value)) for value in values))


def cost_rows(models: Sequence[Model]) -> Rows:
    """What training and a prediction cost, mean and spread over seeds."""
    rows: Rows = []
    for model in models:
        found = {
            name: spread([float(m[key]) for m in model.metrics if m.get(key) is not None], digits)
            for key, name, digits in (
                ("train/seconds", "training (s)", 0),
                ("train/samples_per_second", "clips per second", 1),
                ("train/peak_memory_mb", "peak memory (MiB)", 0),
            )
        }
        for key, name, unit in (
            ("parameters", "parameters (M)", 1e6),
            ("flops_per_clip", "GFLOPs per clip", 1e9),
        ):
            values = {m[key] for m in model.metrics if m.get(key) is not None}
            found[name] = " or ".join(f"{value / unit:.3g}" for value in sorted(values))
        devices = {f"{e['devices']} x {e['device']}" for e in model.environments if e}
        rows.append({"run": model.label, **found, "device": " or ".join(sorted(devices))})
    kept = [key for key in rows[0] if any(row[key] for row in rows)]
    return [{key: row[key] for key in kept} for row in rows] if len(kept) > 1 else []


def environment_rows(models: Sequence[Model]) -> tuple[Rows, Rows]:
    """Versions, hardware and data: those that all runs share, and those that differ."""
    tables = [[_environment(one) for one in model.environments] for model in models]
    if not any(table for runs in tables for table in runs):
        return [], []
    differ = differing(models, tables)
    names = {row[""] for row in differ}
    first = next(table for runs in tables for table in runs if table)
    same = [{"": key, "all runs": str(v)} for key, v in first.items() if key not in names]
    return same, differ


def _environment(values: Mapping[str, Any]) -> dict[str, Any]:
    """By what is shown; without the command and the names of the classes."""
    if not values:
        return {}
    data = {key: value for key, value in values.get("data", {}).items() if key != "classes"}
    shown = {key: values.get(key) for key in ("python", "platform", "device", "devices", "threads")}
    shown |= values.get("packages", {})
    shown |= {"cuda": values.get("cuda"), "code": values.get("code")}
    shown |= {f"data, {key.replace('_', ' ')}": value for key, value in data.items()}
    return {key: value for key, value in shown.items() if value is not None}


def warnings(models: Sequence[Model], sets: Sequence[Sequence[Model]]) -> list[str]:
    """What a reader has to know before believing a number, a sentence each."""
    found = []
    if toy := [model.label for model in models if model.toy]:
        found.append(
            f"{_listed(toy)}: toy data (the synthetic set of maskclr_pl). The numbers say "
            "nothing about any benchmark."
        )
    tested = [one for one in models if CLEAN in one.values]
    if single := [model.label for model in tested if len(model.runs) == 1]:
        found.append(
            f"{_listed(single)}: one seed. How much another seed would change is not known; "
            "intervals of differences are about the choice of test clips alone."
        )
    if len(sets) > 1:
        parts = " | ".join(_listed([model.label for model in members]) for members in sets)
        found.append(
            f"Not compared with each other: {parts}. They were tested on other clips or data, or "
            "not at all."
        )
    whom: dict[str, list[str]] = defaultdict(list)
    for model in models:
        for text in _beware(model):
            whom[text].append(model.label)
    return found + [f"{_listed(labels)}: {text}." for text, labels in whom.items()]


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels)


def _beware(model: Model) -> list[str]:
    """Of one model."""
    found = []
    if any(config.get("monitor_split") == "test" for config in model.configs):
        found.append(
            "the checkpoint was chosen on the test split (monitor_split=test), so that its test "
            "score is not one of unseen clips"
        )
    if CLEAN in model.values and not model.tests:
        found.append("no predictions.npz of the same clips in each run; not compared clip by clip")
    if model.corruptions and model.tests and len(model.scores) == 1:
        found.append(
            "no robustness_clips.npz of the clips of the test; perturbed accuracies are not "
            "compared clip by clip"
        )
    for run, metrics, rows in zip(model.runs, model.metrics, model.robustness, strict=True):
        clean = rows.get(CLEAN, {}).get(0.0, (None,))[0]
        if clean is not None and abs(clean - metrics.get("test/top1", clean)) > 1:
            found.append(
                f"robustness.csv of {run.name} starts from a clean top-1 of {clean:.1f}, its "
                f"test from {metrics['test/top1']:.1f}: other clips, or another checkpoint"
            )
    if any(model.robustness) and not all(model.robustness):
        found.append("not all runs were evaluated under corruptions; they are left out there")
    if len(model.runs) > 1:
        found += no_seeds(model)
    if any("uncommitted" in str(environment.get("code")) for environment in model.environments):
        found.append("the code had uncommitted changes")
    if not all(model.environments):
        found.append("no environment.json: what it ran on, and on which data, is not recorded")
    return found


def no_seeds(model: Model) -> list[str]:
    """What keeps the runs of a label from being seeds of one model."""
    reasons = []
    seeds = [config.get("seed") for config in model.configs]
    if repeated_seeds(seeds):
        reasons.append(f"seeds {', '.join(map(str, seeds))} are not all different")
    settings = list(map(training_settings, model.configs, model.runs))
    if len(group_seeds(seeds, settings)) > 1:
        keys = differing_keys(settings)
        reasons.append(f"its runs are no mere seeds, they differ in {', '.join(keys[:8])}")
    return reasons
