"""Result files of a run folder, written atomically."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.files import atomic_path, write_atomically
from maskclr_pl.types import InputError

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How cells begin that a spreadsheet runs."""


def set_aside(path: Path) -> Path | None:
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


def write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """`metrics.json`: flat; accuracies in percent; null for a value that is not a number."""
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in sorted(metrics.items())
    }
    write_atomically(folder / "metrics.json", (json.dumps(values, indent=2) + "\n").encode())


def write_predictions(
    folder: Path, name: np.ndarray, label: np.ndarray, logits: np.ndarray
) -> None:
    """`predictions.npz`: name (n,), label (n,), logits (n, K) of the test clips."""
    with atomic_path(folder / "predictions.npz") as partial:
        np.savez(partial, name=name, label=label, logits=logits)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV file with the keys of the first row as its header.

    Names come from files: one that a spreadsheet would run as a formula gets an apostrophe before
    it, which `read_table` takes away.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    writer.writerows([[_plain(cell) for cell in row] for row in cells])
    write_atomically(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of `write_table`.

    Raises:
        InputError: If it is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = [[_unmarked(cell) for cell in row] for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:  # ValueError: no header, or no UTF-8
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a table as this package writes them ({reason})") from None
    if lines and len(lines[-1]) != len(header):
        del lines[-1]  # a process was killed while it wrote the row
    if any(len(line) != len(header) for line in lines):
        raise InputError(f"{path}: rows of another length than its header; it is damaged")
    return [dict(zip(header, line, strict=True)) for line in lines]


def _plain(cell: Any) -> Any:
    """A cell that no spreadsheet runs."""
    if not isinstance(cell, str) or not cell.lstrip("'").startswith(_FORMULA):
        return cell
    try:
        float(cell)  # a number that was formatted
    except ValueError:
        return f"'{cell}"
    return cell


def _unmarked(cell: str) -> str:
    marked = cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA)
    return cell[1:] if marked else cell


def series(rows: Iterable[Mapping[str, str]], column: str) -> tuple[list[int], list[float]]:
    """Epochs (from 1) and values of a column of `metrics.csv`, where it has a value."""
    pairs = [(int(row["epoch"]) + 1, float(row[column])) for row in rows if row.get(column)]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]
