"""Reading back what a run folder holds."""

from pathlib import Path
from typing import Any

from maskclr_pl.command_line import override
from maskclr_pl.reading import read_json, read_yaml
from maskclr_pl.runs.checkpoints import BEST, LAST, PREVIOUS
from maskclr_pl.runs.history import read_rows
from maskclr_pl.runs.moved import update_config
from maskclr_pl.runs.results import read_table, series
from maskclr_pl.types import InputError


def read_metrics(folder: Path) -> dict[str, Any]:
    """`metrics.json` of a run.

    Raises:
        InputError: If the folder holds no finished run.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no metrics.json; type the run folder that train printed last, or "
            f"{override('resume', folder)} to finish it"
        )
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected values by name, found {type(values).__name__}")
    return values


def read_config(folder: Path) -> dict[str, Any]:
    """`config.yaml` of a run folder.

    Raises:
        InputError: If there is none, or it is damaged.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder}: no config.yaml; is it a run folder?")
    return dict(update_config(read_yaml(path)))


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run, or other results: a configuration or a checkpoint.

    A command that was killed at its start leaves neither.
    """
    if any((folder / "checkpoints" / name).is_file() for name in (LAST, PREVIOUS, BEST)):
        return True
    try:
        return bool(read_config(folder))
    except InputError:
        return False


def run_folder_of(run_or_checkpoint: str) -> Path:
    """The run folder that `init_from` names, itself or by a checkpoint in it."""
    path = Path(run_or_checkpoint)
    return path.parent.parent if path.suffix == ".ckpt" else path


def find_runs(folder: Path) -> list[Path]:
    """The folder itself if it is a run, otherwise the finished runs inside of it, by name.

    Raises:
        InputError: If there is none.
    """
    if (folder / "metrics.json").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.rglob("metrics.json"))
    if not found:
        raise InputError(f"{folder}: no run folder, and none inside of it")
    return found


def read_curves(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Training loss and validation accuracy over epochs; empty without metrics.csv.

    Of several terms the loss is the cross-entropy, which runs with other terms can be compared by.
    """
    rows, _ = read_rows(folder / "metrics.csv")
    labelled = any(row.get("train/loss_ce") for row in rows)
    columns = {"loss": "train/loss_ce" if labelled else "train/loss", "accuracy": "val/top1"}
    return {name: series(rows, column) for name, column in columns.items()}


def epoch_markers(folder: Path) -> dict[str, int]:
    """Epochs of a run that matter to its curves, from 1: `masking`, ... (its begin), `best.ckpt`.

    A stage that is there from the first epoch on is left out.
    """
    try:
        metrics = read_metrics(folder)
    except InputError:
        return {}
    begin = {
        key.removeprefix("first_epoch/"): int(value)
        for key, value in metrics.items()
        if key.startswith("first_epoch/")
    }
    if not begin and (histories := list(masked_history(folder).values())):  # an older run
        begin = {"masking": histories[0][0][0]}
    begin = {name: epoch for name, epoch in begin.items() if epoch > 1}
    best = metrics.get("best/epoch")
    return begin if best is None else {**begin, "best.ckpt": int(best)}


def masked_history(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Epochs and share of each joint's tokens that was hidden in them; {} without masking."""
    rows, _ = read_rows(folder / "metrics.csv")
    columns = [name for name in rows[0] if name.startswith("masked/")] if rows else []
    found = {column.removeprefix("masked/"): series(rows, column) for column in columns}
    return {joint: history for joint, history in found.items() if history[1]}


def masked_shares(folder: Path) -> dict[str, float]:
    """Share of each joint's tokens that was hidden, over the epochs with masking; {} for none."""
    history = masked_history(folder)
    return {joint: sum(values) / len(values) for joint, (_, values) in history.items()}


def masked_by_class(folder: Path) -> tuple[list[str], list[list[float]]]:
    """Classes and the share of each joint that was hidden in them; ([], []) without a record.

    The joints are in the order of the model's skeleton; NaN for a class that was never seen.
    """
    path = folder / "masked_by_class.csv"
    rows = read_table(path) if path.is_file() else []
    shares = [[float(v or "nan") for v in list(row.values())[2:]] for row in rows]
    return [row["class"] for row in rows], shares


def read_robustness(folder: Path) -> list[dict[str, str]]:
    """`robustness.csv` of a run; [] if it was not evaluated."""
    path = folder / "robustness.csv"
    return read_table(path) if path.is_file() else []
