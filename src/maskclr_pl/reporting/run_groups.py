"""Runs read back for a comparison: those of one label are one model with several seeds."""

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
"""Names of two measures; the others are the names of corruptions."""
_APART = ("adversarial", "second_store")
"""Rows of robustness.csv that are no corruptions, and so not in the mean over all of them."""


@dataclass(frozen=True)
class Test:
    """What a run said of n test clips, in the order of their names."""

    name: np.ndarray
    label: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    classes: int
    """K."""

    @property
    def correct(self) -> Bool[np.ndarray, " n"]:
        """Whether the class with the highest logit is the right one."""
        return self.predicted == self.label

    @property
    def clips(self) -> str:
        """The same for tests on clips of the same names and labels."""
        text = "\n".join(map(str, self.name)).encode("utf-8", "backslashreplace")
        return hashlib.sha256(text + self.label.astype(np.int64).tobytes()).hexdigest()


def read_test(folder: Path) -> Test:
    """`predictions.npz` of a run.

    Raises:
        InputError: If there is none, or it is damaged.
    """
    found = read_predictions(folder)
    order = np.argsort(found.name, kind="stable")
    best = found.logits.argmax(1)
    return Test(found.name[order], found.label[order], best[order], found.logits.shape[1])


@dataclass(frozen=True)
class Model:
    """One label of a comparison.

    Args:
        label: As it is shown.
        runs: Folders, one for each seed.

    Raises:
        InputError: On reading, if a folder is no finished run or a file in it is damaged.
    """

    label: str
    runs: tuple[Path, ...]

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """`metrics.json` of each run."""
        return [read_metrics(run) for run in self.runs]

    @cached_property
    def configs(self) -> list[dict[str, Any]]:
        """`config.yaml` of each run."""
        return [read_config(run) for run in self.runs]

    @cached_property
    def environments(self) -> list[dict[str, Any]]:
        """`environment.json` of each run; {} where there is none."""
        return [read_environment(run) for run in self.runs]

    @cached_property
    def tests(self) -> list[Test]:
        """Predictions of each run; [] unless all have them, of the same clips."""
        if not all((run / "predictions.npz").is_file() for run in self.runs):
            return []
        tests = [read_test(run) for run in self.runs]
        return tests if len({test.clips for test in tests}) == 1 else []

    def data(self, key: str) -> list[Any]:
        """What the environments say of the data, each value once; [] where it is not known."""
        values = [environment.get("data", {}).get(key) for environment in self.environments]
        return [value for i, value in enumerate(values) if value and value not in values[:i]]

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the K classes; "class 3" where they are not known."""
        classes = self.tests[0].classes if self.tests else 0
        known: list[str] = next(iter(self.data("classes")), [])
        table = self.runs[0] / "per_class.csv"
        if not known and table.is_file():  # a run of an older version
            known = [row.get("class", "") for row in read_table(table)]
        names = [f"class {i}" for i in range(classes)]
        return [str(name) for name in known] if len(known) == classes else names

    @cached_property
    def toy(self) -> bool:
        """Whether the data are those of the synthetic set."""
        sources = [str((config.get("source") or {}).get("_target_")) for config in self.configs]
        names = [action.name for action in ACTIONS]
        return names in self.data("classes") or any(s.endswith("SyntheticSource") for s in sources)

    @cached_property
    def robustness(self) -> list[dict[str, dict[float, tuple[float, float]]]]:
        """Of each run: {corruption: {level: (mean, std) of top-1}}; {} if it was not evaluated."""
        return [summarize(read_robustness(run)) for run in self.runs]

    @cached_property
    def corruptions(self) -> list[str]:
        """Those that every run was evaluated on."""
        first, *others = self.robustness
        return [n for n in first if n != CLEAN and all(n in other for other in others)]

    @property
    def _averaged(self) -> list[str]:
        return [name for name in self.corruptions if name not in _APART]

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Top-1 in percent of each run, by measure: clean, each corruption, all corruptions."""
        clean = [found.get("test/top1") for found in self.metrics]
        values: dict[str, list[float]] = {}
        if all(value is not None for value in clean):
            values[CLEAN] = [float(value) for value in clean]  # type: ignore[arg-type]
        for name in self.corruptions:
            values[name] = [mean_over_levels(found[name]) for found in self.robustness]
        columns = [values[name] for name in self._averaged]
        if len(columns) > 1:
            values[CORRUPTED] = np.mean(columns, axis=0).tolist()
        return values

    @cached_property
    def scores(self) -> dict[str, Float[np.ndarray, " n"]]:
        """Share of seeds, levels and draws with which each clip is right, by measure."""
        if not self.tests:
            return {}
        found = {CLEAN: np.mean([test.correct for test in self.tests], axis=0)}
        parts = list(map(_corrupted_scores, self.runs, self.tests))
        names = [name for name in self.corruptions if all(name in part for part in parts)]
        for name in names:
            found[name] = np.mean([part[name] for part in parts], axis=0)
        if len(self._averaged) > 1 and set(self._averaged) <= set(names):
            found[CORRUPTED] = np.mean([found[name] for name in self._averaged], axis=0)
        return found

    def summary(self, corruption: str) -> list[dict[str, str]]:
        """Row of a corruption in the `robustness_summary.csv` of each run that has it."""
        paths = [run / "robustness_summary.csv" for run in self.runs]
        rows = [row for path in paths if path.is_file() for row in read_table(path)]
        return [row for row in rows if row.get("corruption") == corruption]


def _corrupted_scores(run: Path, test: Test) -> dict[str, Float[np.ndarray, " n"]]:
    """Share of levels above 0 and draws with which each clip is right, by corruption.

    Empty if the file is missing, or of other clips than those of the test.
    """
    path = run / "robustness_clips.npz"
    if not path.is_file():
        return {}
    try:
        keys = ("name", "label", "correct", "corruption", "level")
        name, label, correct, corruption, level = read_arrays(path, keys).values()
        order = np.argsort(name, kind="stable")
        name, label, correct = name[order], label[order], correct[:, order]
        chosen = {str(one): (corruption == one) & (level > 0) for one in np.unique(corruption)}
        shares = {one: correct[rows].mean(0) for one, rows in chosen.items() if rows.any()}
    except InputError:
        raise
    except Exception as error:  # arrays that do not belong together
        raise InputError(f"{path}: not readable ({error})") from None
    same = np.array_equal(name, test.name) and np.array_equal(label, test.label)
    return shares if same else {}


def read_models(labels: Sequence[str], runs: Sequence[Path]) -> list[Model]:
    """Runs by label, in the order in which the labels appear.

    Raises:
        InputError: If there are not as many labels as runs, or a folder is no finished run.
    """
    if len(labels) != len(runs):
        raise InputError(f"{len(runs)} runs but {len(labels)} labels; give one label per run")
    groups: dict[str, list[Path]] = defaultdict(list)
    for label, run in zip(labels, runs, strict=True):
        values = read_metrics(run)
        if "test/top1" not in values and "train/loss" not in values:
            raise InputError(
                f"{run}: metrics.json has no test/top1; pass {override('resume', run)} to finish it"
            )
        groups[str(label)].append(run)
    return [Model(label, tuple(members)) for label, members in groups.items()]


def comparable(models: Iterable[Model]) -> list[list[Model]]:
    """Models in sets: those of a set were tested on the same clips of the same data.

    The same names and labels, and, where that is known, the same poses. A model without a test,
    or whose runs were tested on other clips than each other, is alone.
    """
    sets: list[tuple[str, str, list[Model]]] = []
    for model in models:
        clips = model.tests[0].clips if model.tests else ""
        known = model.data("poses_sha256") or model.data("source_sha256")
        poses = " ".join(known)
        for i, (other, theirs, members) in enumerate(sets):
            if clips and clips == other and (not poses or not theirs or poses == theirs):
                sets[i] = clips, theirs or poses, [*members, model]
                break
        else:
            sets.append((clips, poses, [model]))
    return [members for *_, members in sets]
