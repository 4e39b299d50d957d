"""metrics.csv: the logged values of a run, one row at a time, kept through kills and full disks."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from maskclr_pl.errors import InputError
from maskclr_pl.files import append, write_atomically

EPOCH_ROW = "metrics_row"
"""Checkpoint key for the row of the epoch, which Lightning logs right after the checkpoint."""

Row = Mapping[str, Any]


class MetricsTable(CSVLogger):
    """Lightning's CSV logger with a file that survives kills and full disks.

    Rows are appended whole; for a new column the file is rewritten atomically. An existing file is
    continued.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """Writer of the rows."""
        if self._experiment is None:
            self._experiment = _RowWriter(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class _RowWriter(ExperimentWriter):
    def __init__(self, log_dir: str) -> None:
        self._path = Path(log_dir) / self.NAME_METRICS_FILE
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        """Keep an existing file, which Lightning would remove."""

    def save(self) -> None:
        """Write the pending rows, all or none."""
        if not self.metrics:
            return
        columns = _read_header(self._path)
        if all(key in columns for row in self.metrics for key in row):
            append(self._path, _format_rows(columns, self.metrics).encode())
        else:
            write_rows(self._path, [*read_rows(self._path)[0], *self.metrics])
        self.metrics = []


def read_rows(path: Path) -> tuple[list[dict[str, str]], bool]:
    """Read metrics.csv; the flag is True if an incomplete row was left out.

    A missing file, or one without a header, has no rows.

    Raises:
        InputError: If it cannot be read as a table.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return [], False
    complete, line_break, rest = text.rpartition("\n")
    try:
        rows = list(csv.DictReader(io.StringIO(complete + line_break, newline="")))
    except csv.Error as error:
        raise InputError(f"{path}: not a table ({error}); remove it to continue") from None
    valid = [row for row in rows if None not in row and None not in row.values()]
    return valid, bool(rest) or len(valid) < len(rows)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rewrite metrics.csv, with one column for each key."""
    columns = sorted({key for row in rows for key in row})
    header = _format_rows(columns, [dict(zip(columns, columns, strict=True))])
    write_atomically(path, (header + _format_rows(columns, rows)).encode())


def rewind_history(
    folder: Path, before: int, row: Row | None = None, repeated: int | None = None
) -> list[str]:
    """Remove the rows of metrics.csv that a resumed run will log again.

    Args:
        folder: Run folder.
        before: Global step of the checkpoint; rows from this step on are removed.
        row: Row of the epoch that ended with the checkpoint; added if the file lacks it.
        repeated: Epoch (from 0) that is resumed in its middle; its training row is removed.

    Returns:
        A note if a row was damaged.
    """
    path = folder / "metrics.csv"
    rows, damaged = read_rows(path)
    history: list[Row] = [
        one
        for one in rows
        if int(one.get("step") or 0) < before
        and not (one.get("epoch") == str(repeated) and _has_training_values(one))
    ]
    if row and not any(
        one.get("epoch") == str(row["epoch"]) and _has_training_values(one) for one in history
    ):
        history.append(row)
    if history:
        write_rows(path, history)
    else:
        path.unlink(missing_ok=True)
    return [f"{path}: its last row was incomplete and is left out"] if damaged else []


def epoch_row(trainer: L.Trainer) -> dict[str, float]:
    """The row that Lightning will log at the end of this epoch, for a checkpoint written before."""
    results = trainer._results
    assert results is not None
    values = {key: float(value) for key, value in results.metrics(on_step=False)["log"].items()}
    step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
    return {**values, "epoch": trainer.current_epoch, "step": step} if values else {}


def _has_training_values(row: Row) -> bool:
    return any(value for key, value in row.items() if key.startswith("train/"))


def _read_header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return next(csv.reader(file), [])
    except FileNotFoundError:
        return []


def _format_rows(columns: Sequence[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writerows(rows)
    return text.getvalue()
