"""Summary of a sweep: mean and standard deviation over seeds per setting, and the next command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.cli.errors import log
from maskclr_pl.cli.jobs import Job
from maskclr_pl.command_line import shell_command


def show(jobs: Sequence[Job], name: str) -> None:
    """Log the table of a sweep of trainings, and the command that compares its runs.

    Args:
        jobs: In the order of the sweep.
        name: Name of their command.
    """
    finished = [job for job in jobs if job.status == "finished"]
    log.info("")
    log.info("sweep      %d of %d jobs finished", len(finished), len(jobs))
    if name == "train" and finished:
        for line in _columns(_rows(jobs)):
            log.info("%s", line)
    compared = [job for job in finished if name == "evaluate" or "test/top1" in _metrics(job)]
    runs = list(dict.fromkeys(job.folder for job in compared if Path(job.folder).is_dir()))
    if name in ("train", "evaluate") and len(runs) > 1:
        labels = {}
        if name == "train":
            labels["labels"] = [job.setting or "all" for job in compared]
        log.info("next       %s", shell_command("report", runs=runs, **labels))


def _rows(jobs: Sequence[Job]) -> list[dict[str, str]]:
    """Return a row per setting, that is, for jobs that differ only in the seed."""
    rows = []
    measures = dict.fromkeys(key for job in jobs for key in _measures(job))
    for setting in dict.fromkeys(job.setting for job in jobs):
        of_setting = [job for job in jobs if job.setting == setting]
        results = [_measures(job) for job in of_setting if job.status == "finished"]
        row = {"setting": setting or "all", "runs": str(len(results))}
        for key in measures:
            row[key] = _mean_and_std([values[key] for values in results if key in values])
        failed = len(of_setting) - len(results)
        row["failed"] = str(failed or "")
        rows.append(row)
    if not any(row["failed"] for row in rows):
        for row in rows:
            del row["failed"]
    return rows


def _metrics(job: Job) -> dict[str, Any]:
    from maskclr_pl.runs.read import read_metrics  # imports torch, which takes seconds

    folder = Path(job.folder)
    tested = job.status == "finished" and (folder / "metrics.json").is_file()
    return read_metrics(folder) if tested else {}


def _measures(job: Job) -> dict[str, float]:
    """Return test accuracy, if any, and the objective of a finished job."""
    if job.status != "finished":
        return {}
    values = {"test/top1": _metrics(job).get("test/top1"), str(job.objective): job.value}
    return {key: value for key, value in values.items() if value is not None}


def _mean_and_std(values: Sequence[float]) -> str:
    """Format the mean, and the standard deviation of several values."""
    if not values:
        return "-"
    digits = 2 if abs(np.mean(values)) >= 1 else 4
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def _columns(rows: Sequence[dict[str, str]]) -> list[str]:
    """Align rows with the same keys as lines of text, below a header."""
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
