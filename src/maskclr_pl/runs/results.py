"""Result files of a run folder, written atomically."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.errors import InputError
from maskclr_pl.files import atomic_path, write_atomically
from maskclr_pl.text import one_line

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of cells that a spreadsheet runs as a formula."""


def set_aside(path: Path) -> Path | None:
    """Rename an existing file to `name.1.ext`, or the next free number.

    Returns:
        The new path; None if there is no such file.
    """
    if not path.is_file():
        return None
    number = 1
    while (older := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return path.rename(older)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a text file."""
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """Write `metrics.json`: flat; accuracies in percent; null for NaN and infinity."""
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in sorted(metrics.items())
    }
    write_atomically(folder / "metrics.json", (json.dumps(values, indent=2) + "\n").encode())


def write_predictions(
    folder: Path, name: np.ndarray, label: np.ndarray, logits: np.ndarray
) -> None:
    """Write `predictions.npz`: name (n,), label (n,), logits (n, K) of the test clips."""
    with atomic_path(folder / "predictions.npz") as partial:
        np.savez(partial, name=name, label=label, logits=logits)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file with the keys of the first row as its header.

    Names come from untrusted files: a cell that a spreadsheet would run as a formula gets a leading
    apostrophe, which `read_table` removes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    writer.writerows([[_escape(cell) for cell in row] for row in cells])
    write_atomically(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file written by `write_table`.

    Raises:
        InputError: If it is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = [[_unescape(cell) for cell in row] for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:  # ValueError: no header, or not UTF-8
        raise InputError(f"{path}: not a table of this package ({one_line(error)})") from None
    if rows and len(rows[-1]) != len(header):
        del rows[-1]  # the process was killed while writing it
    if any(len(row) != len(header) for row in rows):
        raise InputError(f"{path}: rows of different lengths; the file is damaged")
    return [dict(zip(header, row, strict=True)) for row in rows]


def _escape(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.lstrip("'").startswith(_FORMULA):
        return cell
    try:
        float(cell)  # a formatted number
    except ValueError:
        return f"'{cell}"
    return cell


def _unescape(cell: str) -> str:
    escaped = cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA)
    return cell[1:] if escaped else cell


def series(rows: Iterable[Mapping[str, str]], column: str) -> tuple[list[int], list[float]]:
    """Epochs (from 1) and values of a column of `metrics.csv`, without empty cells."""
    pairs = [(int(row["epoch"]) + 1, float(row[column])) for row in rows if row.get(column)]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]
