"""Runs read for a comparison; runs with the same label are seeds of one model."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from maskclr_pl.command_line import override
from maskclr_pl.reading import read_arrays
from maskclr_pl.robustness.runner import mean_over_levels, summarize
from maskclr_pl.runs.environment import read_environment
from maskclr_pl.runs.predictions import read_predictions
from maskclr_pl.runs.read import read_config, read_metrics, read_robustness
from maskclr_pl.runs.results import read_table
from maskclr_pl.sources.synthetic import ACTIONS
from maskclr_pl.types import InputError

CLEAN, CORRUPTED = "clean", "all corruptions"
"""Names of two measures; the others are names of corruptions."""
_NOT_CORRUPTIONS = ("adversarial", "second_store")
"""Rows of robustness.csv that are excluded from the mean over all corruptions."""


@dataclass(frozen=True)
class TestResult:
    """Predictions of a run on n test clips, sorted by name."""

    name: np.ndarray
    label: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    classes: int

    @property
    def correct(self) -> Bool[np.ndarray, " n"]:
        """True where the class with the largest logit is the label."""
        return self.predicted == self.label

    @property
    def clips_hash(self) -> str:
        """Hash of the names and labels of the clips."""
        text = "\n".join(map(str, self.name)).encode("utf-8", "backslashreplace")
        return hashlib.sha256(text + self.label.astype(np.int64).tobytes()).hexdigest()


def read_test_result(folder: Path) -> TestResult:
    """Read `predictions.npz` of a run.

    Raises:
        InputError: If the file is missing or damaged.
    """
    data = read_predictions(folder)
    order = np.argsort(data.name, kind="stable")
    predicted = data.logits.argmax(1)[order]
    return TestResult(data.name[order], data.label[order], predicted, data.logits.shape[1])


@dataclass(frozen=True)
class Model:
    """One label of a comparison. Files are read on first access.

    Args:
        label: Displayed name.
        runs: Run folders, one per seed.

    Raises:
        InputError: On access, if a folder is not a finished run or a file is damaged.
    """

    label: str
    runs: tuple[Path, ...]

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """`metrics.json` of each run."""
        return [read_metrics(run) for run in self.runs]

    def metric(self, key: str) -> list[float]:
        """Return a metric of the runs that have it."""
        return [float(values[key]) for values in self.metrics if values.get(key) is not None]

    @cached_property
    def configs(self) -> list[dict[str, Any]]:
        """`config.yaml` of each run."""
        return [read_config(run) for run in self.runs]

    @cached_property
    def environments(self) -> list[dict[str, Any]]:
        """`environment.json` of each run; {} if missing."""
        return [read_environment(run) for run in self.runs]

    @cached_property
    def tests(self) -> list[TestResult]:
        """Predictions of each run; [] unless all runs have them for the same clips."""
        if not all((run / "predictions.npz").is_file() for run in self.runs):
            return []
        tests = [read_test_result(run) for run in self.runs]
        return tests if len({test.clips_hash for test in tests}) == 1 else []

    def data_facts(self, key: str) -> list[Any]:
        """Return the distinct values of a key in the `data` part of the environments."""
        values = [environment.get("data", {}).get(key) for environment in self.environments]
        return [value for i, value in enumerate(values) if value and value not in values[:i]]

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the K classes; `class 3` if unknown."""
        classes = self.tests[0].classes if self.tests else 0
        names: list[str] = next(iter(self.data_facts("classes")), [])
        table = self.runs[0] / "per_class.csv"
        if not names and table.is_file():  # runs of earlier versions
            names = [row.get("class", "") for row in read_table(table)]
        if len(names) != classes:
            return [f"class {i}" for i in range(classes)]
        return [str(name) for name in names]

    @cached_property
    def synthetic(self) -> bool:
        """True if the data are synthetic."""
        sources = [str((config.get("source") or {}).get("_target_")) for config in self.configs]
        actions = [action.name for action in ACTIONS]
        is_synthetic = any(source.endswith("SyntheticSource") for source in sources)
        return is_synthetic or actions in self.data_facts("classes")

    @cached_property
    def robustness(self) -> list[dict[str, dict[float, tuple[float, float]]]]:
        """Per run: {corruption: {level: (mean, std) of top-1}}; {} if not evaluated."""
        return [summarize(read_robustness(run)) for run in self.runs]

    @cached_property
    def corruptions(self) -> list[str]:
        """Corruptions that every run was evaluated on."""
        first, *others = self.robustness
        return [n for n in first if n != CLEAN and all(n in other for other in others)]

    @property
    def _averaged_corruptions(self) -> list[str]:
        return [name for name in self.corruptions if name not in _NOT_CORRUPTIONS]

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Top-1 in percent of each run by measure: clean, each corruption, all corruptions."""
        clean = [metrics.get("test/top1") for metrics in self.metrics]
        values: dict[str, list[float]] = {}
        if all(value is not None for value in clean):
            values[CLEAN] = [float(value) for value in clean]  # type: ignore[arg-type]
        for name in self.corruptions:
            values[name] = [mean_over_levels(summary[name]) for summary in self.robustness]
        columns = [values[name] for name in self._averaged_corruptions]
        if len(columns) > 1:
            values[CORRUPTED] = np.mean(columns, axis=0).tolist()
        return values

    @cached_property
    def scores(self) -> dict[str, Float[np.ndarray, " n"]]:
        """Share of seeds, levels and draws with which each clip is correct, by measure."""
        if not self.tests:
            return {}
        scores = {CLEAN: np.mean([test.correct for test in self.tests], axis=0)}
        seeds = list(map(_read_corrupted_scores, self.runs, self.tests))
        names = [name for name in self.corruptions if all(name in seed for seed in seeds)]
        for name in names:
            scores[name] = np.mean([seed[name] for seed in seeds], axis=0)
        averaged = self._averaged_corruptions
        if len(averaged) > 1 and set(averaged) <= set(names):
            scores[CORRUPTED] = np.mean([scores[name] for name in averaged], axis=0)
        return scores

    def robustness_summaries(self, corruption: str) -> list[dict[str, str]]:
        """Return the row of a corruption in `robustness_summary.csv` of each run that has it."""
        paths = [run / "robustness_summary.csv" for run in self.runs]
        rows = [row for path in paths if path.is_file() for row in read_table(path)]
        return [row for row in rows if row.get("corruption") == corruption]


def _read_corrupted_scores(run: Path, test: TestResult) -> dict[str, Float[np.ndarray, " n"]]:
    """Return the share of levels above 0 and draws with which each clip is correct.

    {} if robustness_clips.npz is missing, or of other clips than those of the test.
    """
    path = run / "robustness_clips.npz"
    if not path.is_file():
        return {}
    try:
        keys = ("name", "label", "correct", "corruption", "level")
        name, label, correct, corruption, level = read_arrays(path, keys).values()
        order = np.argsort(name, kind="stable")
        name, label, correct = name[order], label[order], correct[:, order]
        passes = {str(c): (corruption == c) & (level > 0) for c in np.unique(corruption)}
        shares = {c: correct[rows].mean(0) for c, rows in passes.items() if rows.any()}
    except InputError:
        raise
    except Exception as error:  # arrays of inconsistent shapes
        raise InputError(f"{path}: not readable ({error})") from None
    same = np.array_equal(name, test.name) and np.array_equal(label, test.label)
    return shares if same else {}


def read_models(labels: Sequence[str], runs: Sequence[Path]) -> list[Model]:
    """Group runs by label, in order of appearance.

    Raises:
        InputError: If the numbers of labels and runs differ, or a folder is not a finished run.
    """
    if len(labels) != len(runs):
        raise InputError(f"{len(runs)} runs but {len(labels)} labels; pass one label per run")
    groups: dict[str, list[Path]] = defaultdict(list)
    for label, run in zip(labels, runs, strict=True):
        metrics = read_metrics(run)
        if "test/top1" not in metrics and "train/loss" not in metrics:
            raise InputError(
                f"{run}: metrics.json has no test/top1; pass {override('resume', run)} to finish it"
            )
        groups[str(label)].append(run)
    return [Model(label, tuple(members)) for label, members in groups.items()]


def group_comparable(models: Iterable[Model]) -> list[list[Model]]:
    """Group models that were tested on the same clips of the same data.

    Names and labels must match and, where known, poses. A model without a test, or whose runs were
    tested on different clips, is in a group of its own.
    """
    groups: list[tuple[str, str, list[Model]]] = []
    for model in models:
        clips = model.tests[0].clips_hash if model.tests else ""
        poses = " ".join(model.data_facts("poses_sha256") or model.data_facts("source_sha256"))
        for i, (group_clips, group_poses, members) in enumerate(groups):
            same_poses = not poses or not group_poses or poses == group_poses
            if clips and clips == group_clips and same_poses:
                groups[i] = clips, group_poses or poses, [*members, model]
                break
        else:
            groups.append((clips, poses, [model]))
    return [members for _, _, members in groups]
