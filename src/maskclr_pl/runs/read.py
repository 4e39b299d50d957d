"""Read the files of a run folder."""

from pathlib import Path
from typing import Any

from maskclr_pl.command_line import override
from maskclr_pl.errors import InputError
from maskclr_pl.reading import read_json, read_yaml
from maskclr_pl.runs.checkpoints import BEST, LAST, PREVIOUS
from maskclr_pl.runs.history import read_rows
from maskclr_pl.runs.moved import update_config
from maskclr_pl.runs.results import read_table, series

Series = tuple[list[int], list[float]]
"""Epochs (from 1) and values."""


def run_folder_of(path: str | Path) -> Path:
    """The run folder of a checkpoint file; a folder is returned unchanged."""
    path = Path(path)
    if path.suffix != ".ckpt":
        return path
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def find_runs(folder: Path) -> list[Path]:
    """The folder itself if it is a finished run, otherwise all finished runs inside it, by name.

    Raises:
        InputError: If there is none.
    """
    if (folder / "metrics.json").is_file():
        return [folder]
    runs = sorted(path.parent for path in folder.rglob("metrics.json"))
    if not runs:
        raise InputError(f"{folder}: not a run folder, and no run folder inside it")
    return runs


def holds_run(folder: Path) -> bool:
    """True if a folder has a checkpoint or a readable configuration.

    A command that was killed at its start leaves neither.
    """
    if any((folder / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS, BEST)):
        return True
    try:
        return bool(read_config(folder))
    except InputError:
        return False


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.yaml`, with the keys and class names of this version.

    Raises:
        InputError: If there is none, or it is damaged.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder}: no config.yaml; is it a run folder?")
    return dict(update_config(read_yaml(path)))


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read `metrics.json`.

    Raises:
        InputError: If the run is not finished.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no metrics.json; pass the run folder that train printed last, or "
            f"{override('resume', folder)} to finish the run"
        )
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected values by name, found {type(values).__name__}")
    return values


def read_robustness(folder: Path) -> list[dict[str, str]]:
    """Read `robustness.csv`; [] if the run was not evaluated."""
    path = folder / "robustness.csv"
    return read_table(path) if path.is_file() else []


def read_curves(folder: Path) -> dict[str, Series]:
    """Training loss and validation accuracy over epochs; empty without metrics.csv.

    With several loss terms the loss is the cross-entropy, which is comparable between runs.
    """
    rows, _ = read_rows(folder / "metrics.csv")
    has_terms = any(row.get("train/loss_ce") for row in rows)
    columns = {"loss": "train/loss_ce" if has_terms else "train/loss", "accuracy": "val/top1"}
    return {name: series(rows, column) for name, column in columns.items()}


def epoch_markers(folder: Path) -> dict[str, int]:
    """Epochs (from 1) to mark in curves: the first of each stage (`masking`, ...) and `best.ckpt`.

    Stages that start in the first epoch are left out.
    """
    try:
        metrics = read_metrics(folder)
    except InputError:
        return {}
    prefix = "first_epoch/"
    first = {
        key.removeprefix(prefix): int(v) for key, v in metrics.items() if key.startswith(prefix)
    }
    if not first and (histories := list(masked_history(folder).values())):  # an older run
        first = {"masking": histories[0][0][0]}
    markers = {name: epoch for name, epoch in first.items() if epoch > 1}
    if (best := metrics.get("best/epoch")) is not None:
        markers["best.ckpt"] = int(best)
    return markers


def masked_history(folder: Path) -> dict[str, Series]:
    """Share of each joint's tokens that was masked, by epoch; {} without masking."""
    rows, _ = read_rows(folder / "metrics.csv")
    columns = [name for name in rows[0] if name.startswith("masked/")] if rows else []
    history = {column.removeprefix("masked/"): series(rows, column) for column in columns}
    return {joint: values for joint, values in history.items() if values[1]}


def masked_shares(folder: Path) -> dict[str, float]:
    """Share of each joint's tokens that was masked, over all epochs with masking."""
    history = masked_history(folder)
    return {joint: sum(values) / len(values) for joint, (_, values) in history.items()}


def masked_by_class(folder: Path) -> tuple[list[str], list[list[float]]]:
    """Class names and the masked share (K, V) of each joint; ([], []) without a record.

    Joints are in the order of the model's skeleton; NaN for classes without sequences.
    """
    path = folder / "masked_by_class.csv"
    rows = read_table(path) if path.is_file() else []
    shares = [[float(v or "nan") for v in list(row.values())[2:]] for row in rows]
    return [row["class"] for row in rows], shares
