"""What the passes of a robustness run amount to: tables per corruption and class, and their files.

* `robustness.csv`: corruption, level, draw, top1, top5
* `robustness_summary.csv`: corruption, clean, mean, auc, retention, worst, spread
* `robustness_classes.csv`: class, clips, corruption, level, top1
* `robustness_clips.npz`: which clips were recognised in each pass
* `robustness_second_store.npz`: the same for the clips that a second store has, if one was given
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.files import staging_folder, write_atomically
from maskclr_pl.robustness.runner import (
    Passes,
    area,
    mean_over_levels,
    spread,
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

NOISY = ("spatiotemporal_noise", 0.002)
"""The corruption and level of the classes on MaskCLR's poster."""


def summary_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each corruption of `robustness.csv`.

    Returns:
        corruption; clean: top-1 at level 0; mean: over the levels above 0; auc: see
        `robustness.area`; retention: mean / clean, nan where nothing was recognised; worst: at the
        worst level; spread: standard deviation over draws of the mean over levels, nan for one
        draw. All in percent, means over draws.
    """
    table = []
    for name, levels in summarize(rows).items():
        if name == "clean":
            continue
        clean, mean = levels[0.0][0], mean_over_levels(levels)
        draws = _means_of_draws(rows, name)
        values = {
            "clean": clean,
            "mean": mean,
            "auc": area(levels),
            "retention": 100 * mean / clean if clean else float("nan"),
            "worst": min(value for level, (value, _) in levels.items() if level > 0),
            "spread": spread(draws) if len(draws) > 1 else float("nan"),
        }
        table.append({"corruption": name} | {k: round(v, 4) for k, v in values.items()})
    return table


def _means_of_draws(rows: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """Mean over the levels above 0, of each draw."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if row["corruption"] == name and float(row["level"]) > 0:
            values.setdefault(int(row["draw"]), []).append(float(row["top1"]))
    return [float(np.mean(v)) for v in values.values()]


def class_rows(passes: Passes, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Top-1 of each class that has clips, per corruption and level, in percent.

    Returns:
        Rows with class, clips, corruption, level, top1 (mean over draws), class after class; the
        first of each is clean.
    """
    groups: dict[tuple[str, float], list[int]] = {}
    for r, (name, level, _) in enumerate(passes.keys):
        groups.setdefault((name, level), []).append(r)
    share = np.stack([passes.correct[rows].mean(0) for rows in groups.values()])
    table = []
    for label in np.unique(passes.label):
        mine = passes.label == label
        same = {"class": class_names[label], "clips": int(mine.sum())}
        for (name, level), top1 in zip(groups, share[:, mine].mean(1), strict=True):
            values = {"corruption": name, "level": level, "top1": round(100 * float(top1), 4)}
            table.append(same | values)
    return table


def write_robustness(
    folder: Path, passes: Passes, class_names: Sequence[str], second: Passes | None = None
) -> tuple[list[dict[str, Any]], Path | None]:
    """The files of a robustness run; those of an earlier one get a number.

    Args:
        folder: Where they are written.
        passes: Over the test clips.
        class_names: One name per class.
        second: Over the clips that a second store has; clean is then theirs in the first.

    Returns:
        The rows of `robustness.csv`, and where the earlier one is now.

    Raises:
        InputError: If they cannot be written; the earlier ones then stay as they are.
    """
    rows, classes = passes.rows(), class_rows(passes, class_names)
    with staging_folder(folder) as stage:
        write_passes(stage / "robustness_clips.npz", passes)
        if second is not None:
            rows += second.rows()[1:]  # its level 0 says what its clean pass says
            classes += [
                row if row["corruption"] != "clean" else row | {"corruption": "second_store"}
                for row in class_rows(second, class_names)
            ]
            write_passes(stage / "robustness_second_store.npz", second)
        write_table(stage / "robustness.csv", rows)
        write_table(stage / "robustness_classes.csv", classes)
        if len(rows) > 1:
            write_table(stage / "robustness_summary.csv", summary_rows(rows))
        kept = set_aside(folder)
        for path in stage.iterdir():
            path.replace(folder / path.name)
    return rows, kept


def write_passes(path: Path, passes: Passes) -> None:
    """Name (n,), label (n,), correct (R, n), and corruption, level, draw (R,) of each pass."""
    corruption, level, draw = (np.array(column) for column in zip(*passes.keys, strict=True))
    file = io.BytesIO()
    np.savez_compressed(
        file,
        name=passes.name,
        label=passes.label,
        correct=passes.correct,
        corruption=corruption,
        level=level,
        draw=draw,
    )
    write_atomically(path, file.getvalue())


def set_aside(folder: Path) -> Path | None:
    """Give the files of an earlier robustness run a number; where its first table is now."""
    number = 1
    while any(_numbered(folder / name, number).exists() for name in FILES):
        number += 1
    for name in FILES:
        if (folder / name).is_file():
            (folder / name).rename(_numbered(folder / name, number))
    kept = _numbered(folder / FILES[0], number)
    return kept if kept.is_file() else None


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def class_scores(
    rows: Iterable[Mapping[str, Any]], corruption: str, level: float
) -> dict[str, float]:
    """Class -> top-1 in percent, from rows of `robustness_classes.csv`; {} if not measured."""
    return {
        str(row["class"]): float(row["top1"])
        for row in rows
        if row["corruption"] == corruption and float(row["level"]) == level
    }
