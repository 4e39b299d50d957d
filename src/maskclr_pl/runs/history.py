"""metrics.csv: what a run has logged, a row at a time, kept whatever ends the run."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from maskclr_pl.files import append, write_atomically
from maskclr_pl.types import InputError

EPOCH_ROW = "metrics_row"
"""In a checkpoint that was written at the end of an epoch: the row of the epoch, which is logged
right after."""

Row = Mapping[str, Any]


class MetricsTable(CSVLogger):
    """Lightning's CSV logger, whose file outlives kills and full disks.

    Rows are appended whole; for a new column the file is written anew and then exchanged. A file
    that is there is added to.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """Writer of the rows."""
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class _Rows(ExperimentWriter):
    """Keeps the rows that are to be written, and writes them."""

    def __init__(self, log_dir: str) -> None:
        self._path = Path(log_dir) / self.NAME_METRICS_FILE
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        """Keep what is there, which Lightning would remove."""

    def save(self) -> None:
        """Write the rows that are waiting, all of them or none."""
        if not self.metrics:
            return
        columns = _columns(self._path)
        new = {key for row in self.metrics for key in row}.difference(columns)
        if new:
            write_rows(self._path, [*read_rows(self._path)[0], *self.metrics])
        else:
            append(self._path, _text(columns, self.metrics).encode())
        self.metrics = []


def read_rows(path: Path) -> tuple[list[dict[str, str]], bool]:
    """The rows of metrics.csv, and whether a last row was left out because it is cut.

    A file that is missing has no rows. So has one without a header.

    Raises:
        InputError: If it cannot be read as a table.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return [], False
    whole, line_break, cut = text.rpartition("\n")
    try:
        rows = list(csv.DictReader(io.StringIO(whole + line_break, newline="")))
    except csv.Error as error:
        raise InputError(f"{path}: not a table ({error}); remove it to go on without it") from None
    good = [row for row in rows if None not in row and None not in row.values()]
    return good, bool(cut) or len(good) < len(rows)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write metrics.csv anew, with a column for each key."""
    columns = sorted({key for row in rows for key in row})
    header = _text(columns, [dict(zip(columns, columns, strict=True))])
    write_atomically(path, (header + _text(columns, rows)).encode())


def rewind_history(
    folder: Path, before: int, row: Row | None = None, repeated: int | None = None
) -> list[str]:
    """Take the rows that a continued run will log again out of its metrics.csv.

    Args:
        folder: Of the run.
        before: Steps at the checkpoint that it continues from; later rows come again.
        row: Of the epoch at whose end the checkpoint was written, added if the file lacks it.
        repeated: Epoch (from 0) that it continues in the middle of, whose last row comes again.

    Returns:
        A line if rows were damaged.
    """
    path = folder / "metrics.csv"
    rows, cut = read_rows(path)
    kept: list[Row] = [
        one
        for one in rows
        if int(one.get("step") or 0) < before
        and not (one.get("epoch") == str(repeated) and _of_training(one))
    ]
    if row and not any(one.get("epoch") == str(row["epoch"]) and _of_training(one) for one in kept):
        kept.append(row)
    if kept:
        write_rows(path, kept)
    else:
        path.unlink(missing_ok=True)
    return [f"{path}: its last row was cut, and is left out"] if cut else []


def epoch_row(trainer: L.Trainer) -> dict[str, float]:
    """The row that Lightning logs after the end of an epoch, where a checkpoint is written."""
    results = trainer._results
    assert results is not None
    values = {key: float(value) for key, value in results.metrics(on_step=False)["log"].items()}
    step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
    return {**values, "epoch": trainer.current_epoch, "step": step} if values else {}


def _of_training(row: Row) -> bool:
    return any(value for key, value in row.items() if key.startswith("train/"))


def _columns(path: Path) -> list[str]:
    """The header of metrics.csv; [] without one."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return next(csv.reader(file), [])
    except FileNotFoundError:
        return []


def _text(columns: Sequence[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writerows(rows)
    return text.getvalue()
