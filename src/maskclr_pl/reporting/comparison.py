"""Models side by side: rows of tables, and significance of differences."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from maskclr_pl.reporting.bootstrap import Difference, paired_bootstrap
from maskclr_pl.reporting.run_groups import CLEAN, CORRUPTED, Model
from maskclr_pl.reporting.tables import Best, Rows


class ModelDifference(NamedTuple):
    """Difference of two models on the same clips, second minus first."""

    first: str
    second: str
    measure: str
    difference: Difference

    @property
    def title(self) -> str:
        """Text such as `ours minus baseline`."""
        return f"{self.second} minus {self.first}"

    @property
    def better(self) -> str | None:
        """Label of the significantly better model, if any."""
        if not self.difference.significant:
            return None
        return self.second if self.difference.points > 0 else self.first


def compare_pairs(models: Sequence[Model]) -> list[ModelDifference]:
    """Compare all pairs of models by every measure that both have clip by clip.

    Corruptions are compared only if both models were evaluated on the same levels.
    """
    return [
        ModelDifference(
            first.label,
            second.label,
            measure,
            paired_bootstrap(scores, second.scores[measure]),
        )
        for first, second in combinations(models, 2)
        for measure, scores in first.scores.items()
        if measure in second.scores and _levels(first, measure) == _levels(second, measure)
    ]


def _levels(model: Model, measure: str) -> list[tuple[str, list[float]]]:
    names = model.corruptions if measure == CORRUPTED else [measure]
    return sorted((n, sorted(model.robustness[0][n])) for n in names if n in model.corruptions)


def best_model(
    models: Sequence[Model], differences: Sequence[ModelDifference], measure: str
) -> str | None:
    """Return the label that is significantly better than every other one, if any."""
    labels = [model.label for model in models if measure in model.values]
    wins = [pair.better for pair in differences if pair.measure == measure]
    best = [label for label in labels if len(labels) > 1 and wins.count(label) == len(labels) - 1]
    return best[0] if best else None


def mean_and_std(values: Sequence[float], digits: int = 1) -> str:
    """Format the mean and, for several seeds, the standard deviation."""
    if not values:
        return ""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def comparison_rows(models: Sequence[Model], differences: Sequence[ModelDifference]) -> Rows:
    """Return one row per model: clean top-1, and mean top-1 over the levels of each corruption."""
    names = [name for model in models for name in model.values if name != CORRUPTED]
    return _measure_rows(models, differences, dict.fromkeys(names))


def overview_rows(models: Sequence[Model], differences: Sequence[ModelDifference]) -> Rows:
    """Return one row per model: top-1, top-5, validation, mean over all corruptions."""
    rows = _measure_rows(models, differences, [CLEAN, CORRUPTED])
    same_corruptions = len({tuple(model.corruptions) for model in models}) == 1
    for model, row in zip(models, rows, strict=True):
        corrupted = row.pop(CORRUPTED)
        few_classes = bool(model.tests) and model.tests[0].classes <= 5  # top-5 is always 100
        row["top-5"] = "" if few_classes else mean_and_std(model.metric("test/top5"))
        row["top-1, validation"] = mean_and_std(model.metric("val/top1"))
        row[CORRUPTED] = corrupted if same_corruptions else ""
        row["test clips"] = f"{len(model.tests[0].label):,}" if model.tests else ""
    return without_empty_columns(rows)


def _measure_rows(
    models: Sequence[Model], differences: Sequence[ModelDifference], measures: Iterable[str]
) -> Rows:
    rows: Rows = [{"run": model.label, "seeds": len(model.runs)} for model in models]
    for measure in measures:
        best = best_model(models, differences, measure)
        for model, row in zip(models, rows, strict=True):
            text = mean_and_std(model.values.get(measure, []))
            row[measure] = Best(text) if model.label == best else text
    return rows


def difference_rows(differences: Iterable[ModelDifference]) -> Rows:
    """Return differences in percentage points with their intervals."""
    return [
        {
            "models": pair.title,
            "measure": pair.measure,
            "difference": f"{pair.difference.points:+.2f}",
            "95 % interval": f"{pair.difference.low:+.2f} to {pair.difference.high:+.2f}",
            "p": f"{pair.difference.p:.4f}",
            "clips": f"{pair.difference.clips:,}",
            "supported": "yes" if pair.difference.significant else "no",
        }
        for pair in differences
    ]


def corruption_rows(models: Sequence[Model], differences: Sequence[ModelDifference]) -> Rows:
    """Return one row per corruption and model: mean over levels, area, retention, worst level."""
    rows: Rows = []
    for name in dict.fromkeys(name for model in models for name in model.corruptions):
        best = best_model(models, differences, name)
        for model in models:
            if name not in model.corruptions:
                continue
            mean = mean_and_std(model.values[name])
            row = {"corruption": name.replace("_", " "), "run": model.label}
            row["mean"] = Best(mean) if model.label == best else mean
            summaries = model.robustness_summaries(name)
            for column in ("auc", "retention", "worst"):
                values = [float(summary[column]) for summary in summaries if summary.get(column)]
                row[column] = mean_and_std(values if len(values) == len(model.runs) else [])
            rows.append(row)
    return without_empty_columns(rows)


def class_comparison_rows(models: Sequence[Model]) -> Rows:
    """Return top-1 of each class with test clips, and its most frequent confusion.

    With several models, rows are sorted by the difference of the last and the first one; with one
    model, by top-1.
    """
    models = [model for model in models if model.tests]
    if not models:
        return []
    label, names = models[0].tests[0].label, models[0].class_names
    counts = np.bincount(label, minlength=len(names))
    accuracies = [_class_accuracy(model, counts) for model in models]
    confusions = [_mean_confusion(model, len(names)) for model in models]
    change = accuracies[-1] - accuracies[0]
    order = np.argsort(-abs(change) if len(models) > 1 else accuracies[0], kind="stable")
    rows: Rows = []
    for k in (int(k) for k in order if counts[k]):
        row = {"class": names[k], "clips": int(counts[k])}
        for model, accuracy in zip(models, accuracies, strict=True):
            row[model.label] = f"{accuracy[k]:.1f}"
        if len(models) > 1:
            row[f"{models[-1].label} minus {models[0].label}"] = f"{change[k]:+.1f}"
        for model, confusion in zip(models, confusions, strict=True):
            column = "confused with" if len(models) == 1 else f"{model.label}: confused with"
            wrong = int(confusion[k].argmax())
            share = 100 * confusion[k, wrong] / counts[k]
            row[column] = f"{names[wrong]} ({share:.0f} %)" if confusion[k, wrong] else ""
        rows.append(row)
    return rows


def _class_accuracy(model: Model, counts: np.ndarray) -> np.ndarray:
    """Return percentages (K,), mean over seeds; 0 for classes without clips."""
    label = model.tests[0].label
    correct = np.bincount(label, weights=model.scores[CLEAN], minlength=len(counts))
    return 100 * correct / np.maximum(counts, 1)


def _mean_confusion(model: Model, classes: int) -> np.ndarray:
    """Return confusion counts (true, predicted), mean over seeds, with a zero diagonal."""
    total = np.zeros((classes, classes))
    for test in model.tests:
        np.add.at(total, (test.label, test.predicted), 1 / len(model.tests))
    np.fill_diagonal(total, 0)
    return total


def without_empty_columns(rows: Rows) -> Rows:
    """Drop columns that are empty in every row."""
    columns = [key for key in (rows[0] if rows else ()) if any(row[key] != "" for row in rows)]
    return [{key: row[key] for key in columns} for row in rows]
