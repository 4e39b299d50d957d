"""Models side by side, as rows of tables: what was measured, and which differences hold."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from maskclr_pl.reporting.bootstrap import Difference, paired_bootstrap
from maskclr_pl.reporting.run_groups import CLEAN, CORRUPTED, Model
from maskclr_pl.reporting.tables import Best, Rows


class Pair(NamedTuple):
    """Two models on the same clips; the difference is that of the second minus the first."""

    first: str
    second: str
    measure: str
    difference: Difference

    @property
    def title(self) -> str:
        """Which from which."""
        return f"{self.second} minus {self.first}"

    @property
    def better(self) -> str | None:
        """The model for which the interval speaks; None if it holds 0."""
        if not self.difference.supported:
            return None
        return self.second if self.difference.points > 0 else self.first


def pairs(models: Sequence[Model]) -> list[Pair]:
    """Every two models of a comparable set, by every measure that both have clip by clip.

    Corruptions are compared at the same levels only.
    """
    found = []
    for first, second in combinations(models, 2):
        for measure in first.scores:
            if measure in second.scores and _levels(first, measure) == _levels(second, measure):
                both = first.scores[measure], second.scores[measure]
                found.append(Pair(first.label, second.label, measure, paired_bootstrap(*both)))
    return found


def _levels(model: Model, measure: str) -> list[tuple[str, list[float]]]:
    names = model.corruptions if measure == CORRUPTED else [measure]
    return sorted((n, sorted(model.robustness[0][n])) for n in names if n in model.corruptions)


def best(models: Sequence[Model], tested: Sequence[Pair], measure: str) -> str | None:
    """The label that is better than every other one, in each pair supported by the interval."""
    labels = [model.label for model in models if measure in model.values]
    won = [pair.better for pair in tested if pair.measure == measure]
    winners = [label for label in labels if len(labels) > 1 and won.count(label) == len(labels) - 1]
    return winners[0] if winners else None


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and the standard deviation over seeds where there are several."""
    if not values:
        return ""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def comparison_rows(models: Sequence[Model], tested: Sequence[Pair]) -> Rows:
    """Clean top-1, and mean top-1 over the levels of each corruption, a row for each model."""
    names = [name for model in models for name in model.values if name != CORRUPTED]
    return _measured(models, tested, dict.fromkeys(names))


def summary_rows(models: Sequence[Model], tested: Sequence[Pair]) -> Rows:
    """The few numbers that come first: top-1, top-5, validation, mean over all corruptions."""
    rows = _measured(models, tested, [CLEAN])
    same = len({tuple(model.corruptions) for model in models}) == 1
    last = _measured(models, tested, [CORRUPTED]) if same else [{} for _ in models]
    for model, row, corrupted in zip(models, rows, last, strict=True):
        for key, name in (("test/top5", "top-5"), ("val/top1", "top-1, validation")):
            values = [found[key] for found in model.metrics if found.get(key) is not None]
            if key == "test/top5" and model.tests and model.tests[0].classes <= 5:
                values = []  # 100 whatever the model learned
            row[name] = spread(values)
        row[CORRUPTED] = corrupted.get(CORRUPTED, "")
        row["test clips"] = f"{len(model.tests[0].label):,}" if model.tests else ""
    return _filled(rows)


def _measured(models: Sequence[Model], tested: Sequence[Pair], measures: Iterable[str]) -> Rows:
    rows: Rows = [{"run": model.label, "seeds": len(model.runs)} for model in models]
    for measure in measures:
        winner = best(models, tested, measure)
        for model, row in zip(models, rows, strict=True):
            text = spread(model.values.get(measure, []))
            row[measure] = Best(text) if model.label == winner else text
    return rows


def pair_rows(tested: Iterable[Pair]) -> Rows:
    """Differences in percentage points with their intervals."""
    return [
        {
            "models": pair.title,
            "measure": pair.measure,
            "difference": f"{pair.difference.points:+.2f}",
            "95 % interval": f"{pair.difference.low:+.2f} to {pair.difference.high:+.2f}",
            "p": f"{pair.difference.share:.4f}",
            "clips": f"{pair.difference.clips:,}",
            "supported": "yes" if pair.difference.supported else "no",
        }
        for pair in tested
    ]


def robustness_rows(models: Sequence[Model], tested: Sequence[Pair]) -> Rows:
    """Per corruption and model: mean over levels, area under the curve, retention, worst."""
    names = dict.fromkeys(name for model in models for name in model.corruptions)
    rows: Rows = []
    for name in names:
        winner = best(models, tested, name)
        for model in models:
            if name not in model.corruptions:
                continue
            mean = spread(model.values[name])
            row = {"corruption": name.replace("_", " "), "run": model.label}
            row |= {"mean": Best(mean) if model.label == winner else mean}
            for column in ("auc", "retention", "worst"):
                found = [float(one[column]) for one in model.summary(name) if one.get(column)]
                row[column] = spread(found if len(found) == len(model.runs) else [])
            rows.append(row)
    return _filled(rows)


def class_rows(models: Sequence[Model]) -> Rows:
    """Top-1 of each class that has test clips, with the class it is taken for most often.

    With two models or more, sorted by how much the last differs from the first; with one, by top-1.
    """
    models = [model for model in models if model.tests]
    if not models:
        return []
    label, names = models[0].tests[0].label, models[0].class_names
    counts = np.bincount(label, minlength=len(names))
    shares = [_class_accuracy(model, counts) for model in models]
    confusion = [_confusions(model, len(names)) for model in models]
    change = shares[-1] - shares[0]
    order = np.argsort(-abs(change) if len(models) > 1 else shares[0], kind="stable")
    rows: Rows = []
    for k in (int(k) for k in order if counts[k]):
        row = {"class": names[k], "clips": int(counts[k])}
        row |= {m.label: f"{s[k]:.1f}" for m, s in zip(models, shares, strict=True)}
        if len(models) > 1:
            row[f"{models[-1].label} minus {models[0].label}"] = f"{change[k]:+.1f}"
        for model, found in zip(models, confusion, strict=True):
            title = "taken for" if len(models) == 1 else f"{model.label} takes it for"
            most = int(found[k].argmax())
            rare = f"{names[most]} ({100 * found[k, most] / counts[k]:.0f} %)"
            row[title] = rare if found[k, most] else ""
        rows.append(row)
    return rows


def _class_accuracy(model: Model, counts: np.ndarray) -> np.ndarray:
    """Percent (K,), mean over seeds; 0 for a class without clips."""
    label = model.tests[0].label
    right = np.bincount(label, weights=model.scores[CLEAN], minlength=len(counts))
    return 100 * right / np.maximum(counts, 1)


def _confusions(model: Model, classes: int) -> np.ndarray:
    """Clips of class k taken for class j, mean over seeds; 0 on the diagonal."""
    total = np.zeros((classes, classes))
    for test in model.tests:
        np.add.at(total, (test.label, test.predicted), 1 / len(model.tests))
    np.fill_diagonal(total, 0)
    return total


def _filled(rows: Rows) -> Rows:
    """Without the columns that are empty in every row."""
    keys = [key for key in (rows[0] if rows else ()) if any(row[key] != "" for row in rows)]
    return [{key: row[key] for key in keys} for row in rows]
