"""Result files of a robustness evaluation.

* `robustness.csv`: corruption, level, draw, top1, top5
* `robustness_summary.csv`: corruption, clean, mean, auc, retention, worst, spread
* `robustness_classes.csv`: class, clips, corruption, level, top1
* `robustness_clips.npz`: correct clips of each pass
* `robustness_second_store.npz`: the same for the clips of a second store, if there is one
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.files import atomic_path, staging_folder
from maskclr_pl.robustness.runner import (
    Passes,
    mean_over_levels,
    normalized_auc,
    sample_std,
    summarize,
)
from maskclr_pl.runs.results import write_table

FILES = (
    "robustness.csv",
    "robustness_summary.csv",
    "robustness_classes.csv",
    "robustness_clips.npz",
    "robustness_second_store.npz",
)

POSTER_NOISE = ("spatiotemporal_noise", 0.002)
"""Corruption and level of the accuracies per class on the MaskCLR poster."""


def summary_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Summarize the rows of `robustness.csv` in one row per corruption.

    Returns:
        corruption; clean: top-1 at level 0; mean: over levels above 0; auc: see `normalized_auc`;
        retention: mean / clean, nan if clean is 0; worst: lowest mean of a level; spread: standard
        deviation over draws of the mean over levels, nan for one draw. All in percent and averaged
        over draws.
    """
    table = []
    for name, levels in summarize(rows).items():
        if name == "clean":
            continue
        clean, mean = levels[0.0][0], mean_over_levels(levels)
        draw_means = _means_per_draw(rows, name)
        values = {
            "clean": clean,
            "mean": mean,
            "auc": normalized_auc(levels),
            "retention": 100 * mean / clean if clean else float("nan"),
            "worst": min(top1 for level, (top1, _) in levels.items() if level > 0),
            "spread": sample_std(draw_means) if len(draw_means) > 1 else float("nan"),
        }
        table.append({"corruption": name} | {k: round(v, 4) for k, v in values.items()})
    return table


def _means_per_draw(rows: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """Return the mean top-1 over the levels above 0 of each draw."""
    values: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row["corruption"] == name and float(row["level"]) > 0:
            values[int(row["draw"])].append(float(row["top1"]))
    return [float(np.mean(top1)) for top1 in values.values()]


def class_accuracy_rows(passes: Passes, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return top-1 in percent of each class with clips, per corruption and level.

    Returns:
        Rows with class, clips, corruption, level, top1 (mean over draws), sorted by class; the
        first row of a class is clean.
    """
    pass_indices: dict[tuple[str, float], list[int]] = defaultdict(list)
    for index, (name, level, _) in enumerate(passes.keys):
        pass_indices[name, level].append(index)
    scores = np.stack([passes.correct[indices].mean(0) for indices in pass_indices.values()])
    table = []
    for label in np.unique(passes.label):
        in_class = passes.label == label
        for (name, level), top1 in zip(pass_indices, scores[:, in_class].mean(1), strict=True):
            table.append(
                {
                    "class": class_names[label],
                    "clips": int(in_class.sum()),
                    "corruption": name,
                    "level": level,
                    "top1": round(100 * float(top1), 4),
                }
            )
    return table


def write_robustness(
    folder: Path, passes: Passes, class_names: Sequence[str], second: Passes | None = None
) -> tuple[list[dict[str, Any]], Path | None]:
    """Write the result files; files of an earlier evaluation get a number.

    Args:
        folder: Folder to write to.
        passes: Results on the test clips.
        class_names: Names of the classes.
        second: Results on the clips of a second store.

    Returns:
        The rows of `robustness.csv`, and the new path of the earlier one, if any.

    Raises:
        InputError: If files cannot be written; earlier ones then stay unchanged.
    """
    rows, classes = passes.rows(), class_accuracy_rows(passes, class_names)
    with staging_folder(folder) as stage:
        write_passes(stage / "robustness_clips.npz", passes)
        if second is not None:
            rows += second.rows()[1:]  # level 0 repeats the clean pass
            classes += [
                row if row["corruption"] != "clean" else row | {"corruption": "second_store"}
                for row in class_accuracy_rows(second, class_names)
            ]
            write_passes(stage / "robustness_second_store.npz", second)
        write_table(stage / "robustness.csv", rows)
        write_table(stage / "robustness_classes.csv", classes)
        if len(rows) > 1:
            write_table(stage / "robustness_summary.csv", summary_rows(rows))
        backup = back_up(folder)
        for path in stage.iterdir():
            path.replace(folder / path.name)
    return rows, backup


def write_passes(path: Path, passes: Passes) -> None:
    """Write name (n,), label (n,), correct (R, n), and corruption, level, draw (R,) as npz."""
    corruption, level, draw = (np.array(column) for column in zip(*passes.keys, strict=True))
    with atomic_path(path) as partial:
        np.savez_compressed(
            partial,
            name=passes.name,
            label=passes.label,
            correct=passes.correct,
            corruption=corruption,
            level=level,
            draw=draw,
        )


def back_up(folder: Path) -> Path | None:
    """Number the files of an earlier evaluation; return the new path of its robustness.csv."""
    number = 1
    while any(_numbered(folder / name, number).exists() for name in FILES):
        number += 1
    for name in FILES:
        if (folder / name).is_file():
            (folder / name).rename(_numbered(folder / name, number))
    backup = _numbered(folder / FILES[0], number)
    return backup if backup.is_file() else None


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def class_scores(
    rows: Iterable[Mapping[str, Any]], corruption: str, level: float
) -> dict[str, float]:
    """Select top-1 by class (percent) from rows of `robustness_classes.csv`."""
    return {
        str(row["class"]): float(row["top1"])
        for row in rows
        if row["corruption"] == corruption and float(row["level"]) == level
    }
