"""Row and column of a run in the paper's table, read from its folder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from maskclr_pl.backbones import Backbone
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.runs.predictions import read_predictions
from maskclr_pl.runs.read import read_config, read_metrics, run_folder_of
from maskclr_pl.runs.seeds import training_settings
from maskclr_pl.sources.ntu.protocols import PUBLISHED
from maskclr_pl.types import InputError

_C = TypeVar("_C")
_SPLITS = {"xsub_val": "XSub", "xview_val": "XView", "xset_val": "XSet"}
_CLASSES = {60: "NTU60", 120: "NTU120"}


class TableRow(NamedTuple):
    """Row of the paper's table."""

    method: str
    """Training of the backbone: MaskCLR, MAMP, supervised, ...; 3s- for three streams."""
    backbone: str
    protocol: str
    """full (all weights, all labels), linear, kNN, one-shot, 1 % of the labels, ..."""


@dataclass(frozen=True)
class Run:
    """Run with test results."""

    folder: Path
    row: TableRow
    benchmark: str
    top1: float
    clips: int
    """Number of test clips."""
    config: dict[str, Any]
    """config.yaml; for an ensemble, that of its first run with the streams and weights of all."""

    @property
    def seed(self) -> Any:
        """Seed of the run."""
        return self.config.get("seed")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings that affect the result, see `training_settings`; files are read once."""
        return training_settings(self.config, self.folder)

    def value(self, key: str) -> Any:
        """Return the effective value of a setting by its dotted name; None if there is none."""
        if key == "data.batch_size":
            return _batch(self.config)
        if key.startswith("init_from."):
            return self.settings.get(key)
        value = _get(self.config, key)
        if key == "optim.backbone_lr" and value is None:
            return _get(self.config, "optim.lr")
        return value


def read_run(folder: Path) -> Run:
    """Read a run folder with test results.

    Raises:
        InputError: If it is not the folder of a tested run.
    """
    try:
        run = _describe(folder)
        run.settings  # noqa: B018  # read now, so that errors name the folder
        return run
    except InputError:
        raise
    except Exception as error:  # damaged files raise errors of many types
        reason = " ".join(str(error).split())[:200]
        kind = type(error).__name__
        raise InputError(
            f"{folder}/config.yaml: not the configuration of a run ({kind}: {reason})"
        ) from error


def _describe(folder: Path) -> Run:
    top1 = read_metrics(folder).get("test/top1")
    if top1 is None:
        raise InputError(f"{folder}: metrics.json has no test/top1; pre-training has none")
    config = read_config(folder)
    clips = len(read_predictions(folder).name)
    if "ensemble" not in config:
        return Run(folder, table_row(config), benchmark_name(config), float(top1), clips, config)
    members = [read_config(Path(run)) for run in config["ensemble"]["runs"]]
    if any("ensemble" in member for member in members):
        raise InputError(f"{folder}: an ensemble of ensembles has no row in the table")
    # members may differ in their streams only
    rows = {
        table_row({**member, "clip": {**member["clip"], "stream": "joint"}}) for member in members
    }
    if len(rows) > 1:
        raise InputError(f"{folder}: an ensemble of different methods has no row in the table")
    row = rows.pop()
    streams = [_get(member, "clip.stream") for member in members]
    # one run per stream, or several runs of the same streams
    kind = "s" if len(set(streams)) == len(members) else "x"
    row = row._replace(method=f"{len(members)}{kind}-{row.method}")
    parts = {"streams": streams, "weights": config["ensemble"].get("weights")}
    config = {**members[0], "ensemble": parts}
    return Run(folder, row, benchmark_name(members[0]), float(top1), clips, config)


def table_row(config: dict[str, Any]) -> TableRow:
    """Derive the row of a run from its configuration."""
    method = _find_class(Method, config, "method")
    protocol = method.protocol if method else "full"
    labeled = _get(config, "data.label_fraction")
    if labeled is not None:
        named = isinstance(labeled, str)
        part = f"labels of {Path(labeled).name}" if named else f"{100 * labeled:g} % of the labels"
        protocol = part if protocol == "full" else f"{protocol}, {part}"
    stream = _get(config, "clip.stream")
    suffix = "" if stream in (None, "joint") else f" ({stream})"
    return TableRow(_training(config) + suffix, _class_name(config, "backbone"), protocol)


def _training(config: dict[str, Any]) -> str:
    """Name the training that the backbone went through."""
    method = _find_class(Method, config, "method")
    if method is None:
        return _class_name(config, "method")
    name, start = method.row_name(config), _get(config, "init_from")
    if name is not None:
        follows = start and issubclass(method, Classifier)
        return f"{name} after {_started_from(str(start))}" if follows else name
    if start:
        return _started_from(str(start))
    if _get(config, "backbone.weights"):
        backbone = _find_class(Backbone, config, "backbone")  # type: ignore[type-abstract]
        pretraining = backbone.pretraining if backbone else None
        return pretraining or f"weights of {_class_name(config, 'backbone')}"
    return "supervised" if method.trains_backbone else "random weights"


def _started_from(start: str) -> str:
    """Name the training of the run that provided the backbone."""
    folder = run_folder_of(start)
    try:
        config = read_config(folder)
    except InputError:
        return f"from {folder.name}"
    return _training(config)


def benchmark_name(config: dict[str, Any]) -> str:
    """Name the benchmark of a run: NTU60-XSub, ..., K400, or its store and test split."""
    split, classes = str(_get(config, "data.test_split")), _get(config, "clip.classes")
    small = split.startswith("ntu60_")
    name = _CLASSES.get(60 if small else classes)
    part = _SPLITS.get(split.removeprefix("ntu60_"))
    if name and part:
        return f"{name}-{part}"
    if classes == 400 and split == "val":
        return "K400"
    store = Path(str(_get(config, "data.path"))).stem
    return store if split == "test" else f"{store} {split}"


def published_clips(benchmark: str) -> int | None:
    """Return the published number of test clips of a benchmark; None if unknown."""
    clips = {
        f"{name}-{part}": PUBLISHED[f"NTU RGB+D {number}"].get(split)
        for number, name in _CLASSES.items()
        for split, part in _SPLITS.items()
    }
    return clips.get(benchmark)


def _batch(config: dict[str, Any]) -> int | None:
    """Return the number of clips per optimizer step, over all devices."""
    balanced = _get(config, "data.balanced")
    size = _get(config, "data.batch_size")
    size = balanced["classes"] * balanced["samples"] if balanced else size
    return None if size is None else size * (_get(config, "trainer.accumulate_grad_batches") or 1)


def _class_name(config: dict[str, Any], part: str) -> str:
    return str(_get(config, f"{part}._target_") or "").rsplit(".", 1)[-1]


def _find_class(base: type[_C], config: dict[str, Any], part: str) -> type[_C] | None:
    """Find the class of a part by name among the imported ones; a report runs no other code."""
    name, classes = _class_name(config, part), [base]
    for cls in classes:  # grows while it is walked
        if cls.__name__ == name:
            return cls
        classes += cls.__subclasses__()
    return None


def _get(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
