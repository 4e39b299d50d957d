"""Result files of a run folder, written atomically."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.files import replacing, write_atomically


def keep_older(path: Path) -> Path | None:
    """Move a file that is there out of the way, to `name.1.ext` or the next free number.

    Returns:
        Where it is now; None if there was none.
    """
    if not path.is_file():
        return None
    number = 1
    while (older := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return path.rename(older)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """A text file with a line each."""
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def write_run_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """`metrics.json`: flat; accuracies in percent; null for a value that is not a number."""
    values = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in sorted(metrics.items())
    }
    write_atomically(folder / "metrics.json", (json.dumps(values, indent=2) + "\n").encode())


def write_predictions(
    folder: Path, name: np.ndarray, label: np.ndarray, logits: np.ndarray
) -> None:
    """`predictions.npz`: name (n,), label (n,), logits (n, K) of the test clips."""
    with replacing(folder / "predictions.npz") as partial:
        np.savez(partial, name=name, label=label, logits=logits)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV file with the keys of the first row as its header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    write_atomically(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def series(rows: Iterable[Mapping[str, str]], column: str) -> tuple[list[int], list[float]]:
    """Epochs (from 1) and values of a column of `metrics.csv`, where it has a value."""
    pairs = [(int(row["epoch"]) + 1, float(row[column])) for row in rows if row.get(column)]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]
