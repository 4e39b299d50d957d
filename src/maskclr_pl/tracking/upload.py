"""Log the figures, tables and results of a run folder.

They are written as files first, independently of loggers, and only read here.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.image import imread

from maskclr_pl.reporting.tables import markdown_table
from maskclr_pl.robustness.runner import summarize
from maskclr_pl.runs.read import masked_shares, read_metrics
from maskclr_pl.runs.results import read_table

Rows = Sequence[Mapping[str, Any]]

MAX_TEXT_ROWS = 500
"""Longest table that is logged to TensorBoard, as text."""


class Figure(NamedTuple):
    """An image file."""

    path: Path
    key: str
    """Key in the logger: figures/<name>, or epochs/<name> for one drawn during training."""
    epoch: int | None


@rank_zero_only
def log_results(loggers: Iterable[Logger], folder: Path, since: float = 0.0) -> None:
    """Log figures, tables and results of a run folder.

    * W&B: `figures/<name>` as image (PNG) or video (GIF), `epochs/<name>` for those drawn during
      training, `tables/<name>` for each CSV file, top-1 over the level of each corruption as a
      curve `robust/<corruption>`, metrics.json as summary.
    * TensorBoard: PNG images, tables of up to 500 rows as text, and `result/<name>` of metrics.json
      with the hyperparameters. It does not support GIFs.
    * Both, and any other logger: `robust/<corruption>_<measure>` of robustness_summary.csv.
    * CSV: nothing, the files are in the same folder.

    Args:
        loggers: Loggers of the run.
        folder: Run folder.
        since: Earliest modification time of the files to log, in seconds since 1970.
    """
    figures = _figures(folder, since)
    tables = {name: rows for name, rows in _tables(folder, since) if rows}
    robust = _robust_measures(tables.get("robustness_summary", []))
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            continue
        if robust:
            logger.log_metrics(robust)
        if isinstance(logger, WandbLogger):
            _log_to_wandb(logger, folder, figures, tables)
        elif isinstance(logger, TensorBoardLogger):
            _log_to_tensorboard(logger, folder, figures, tables)
        logger.save()


def _figures(folder: Path, since: float) -> list[Figure]:
    """Images of a run folder, in order of epochs."""
    figures = []
    for path in sorted((folder / "figures").rglob("*")):
        if path.suffix in (".png", ".gif") and path.stat().st_mtime >= since:
            match = re.fullmatch(r"epoch_(\d+)", path.parent.name)
            epoch = int(match[1]) if match else None
            name = path.stem if path.suffix == ".png" else f"{path.stem}_gif"
            figures.append(
                Figure(path, f"{'figures' if epoch is None else 'epochs'}/{name}", epoch)
            )
    return figures


def _tables(folder: Path, since: float) -> Iterable[tuple[str, Rows]]:
    """Names and rows of the tables of a folder, without older ones (`robustness.1.csv`)."""
    curves = folder / "metrics.csv"
    for path in sorted(folder.glob("*.csv")):
        if path != curves and "." not in path.stem and path.stat().st_mtime >= since:
            yield path.stem, read_table(path)
    if curves.is_file() and curves.stat().st_mtime >= since:
        shares = masked_shares(folder).items()
        yield "masked_joints", [{"joint": joint, "hidden": share} for joint, share in shares]


def _robust_measures(rows: Rows) -> dict[str, float]:
    return {
        f"robust/{row['corruption']}_{measure}": float(value)
        for row in rows
        for measure, value in row.items()
        if measure != "corruption" and value not in ("", "nan")
    }


def _log_to_wandb(
    logger: WandbLogger, folder: Path, figures: Iterable[Figure], tables: Mapping[str, Rows]
) -> None:
    for path, key, epoch in figures:
        caption = [path.stem if epoch is None else f"epoch {epoch}"]
        if path.suffix == ".gif":
            logger.log_video(key, [str(path)], caption=caption, format=["gif"])
        else:
            logger.log_image(key, [str(path)], caption=caption)
    for name, rows in tables.items():
        columns = {column: _numbers([row[column] for row in rows]) for column in rows[0]}
        data = [list(row) for row in zip(*columns.values(), strict=True)]
        logger.log_table(f"tables/{name}", columns=list(columns), data=data)
    run = logger.experiment
    passes = [dict(row) for row in tables.get("robustness", []) if row["corruption"] != "clean"]
    for corruption, levels in summarize(passes).items():
        run.define_metric(f"level/{corruption}", hidden=True)
        run.define_metric(f"robust/{corruption}", step_metric=f"level/{corruption}")
        for level, (mean, _) in levels.items():
            run.log({f"level/{corruption}": level, f"robust/{corruption}": mean})
    run.summary.update(_results(folder))


def _log_to_tensorboard(
    logger: TensorBoardLogger, folder: Path, figures: Iterable[Figure], tables: Mapping[str, Rows]
) -> None:
    for path, key, epoch in figures:
        if path.suffix == ".png":
            pixels = imread(path)[..., :3]
            logger.experiment.add_image(key, pixels, epoch or 0, dataformats="HWC")
    for name, rows in tables.items():
        if len(rows) <= MAX_TEXT_ROWS:
            logger.experiment.add_text(f"tables/{name}", markdown_table(rows))
    results = {f"result/{name}": value for name, value in _results(folder).items()}
    if logger.hparams and results:
        logger.log_hyperparams(dict(logger.hparams), results)


def _results(folder: Path) -> dict[str, float]:
    """Numbers of metrics.json; {} for an unfinished run."""
    if not (folder / "metrics.json").is_file():
        return {}
    return {name: value for name, value in read_metrics(folder).items() if value is not None}


def _numbers(cells: Sequence[Any]) -> Sequence[Any]:
    """Cells of a column as numbers (None for empty and nan), if all are numbers."""
    try:
        numbers = [math.nan if cell == "" else float(cell) for cell in cells]
    except ValueError:
        return cells
    return [None if math.isnan(number) else number for number in numbers]
