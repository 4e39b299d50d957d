"""What a run was: its row and column in the paper's table, read from its folder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from maskclr_pl.methods.stages import Stage
from maskclr_pl.runs.predictions import read_predictions
from maskclr_pl.runs.read import read_config, read_metrics, run_folder_of
from maskclr_pl.runs.seeds import training_settings
from maskclr_pl.sources.ntu.protocols import PUBLISHED
from maskclr_pl.types import InputError

_PRETRAINED = {"DSTformer": "MotionBERT", "Transformer": "MAMP"}
"""Backbone -> whose published weights `backbone.weights` are."""
_PROTOCOLS = {"LinearProbe": "linear", "KNN": "kNN", "OneShot": "one-shot"}
_SPLITS = {"xsub_val": "XSub", "xview_val": "XView", "xset_val": "XSet"}
_CLASSES = {60: "NTU60", 120: "NTU120"}


class TableRow(NamedTuple):
    """A row of the table."""

    method: str
    """What the backbone learnt from: MaskCLR, MAMP, supervised, ...; 3s-: so many streams."""
    backbone: str
    protocol: str
    """full (all weights, all labels), linear, kNN, one-shot, 1 % of the labels, ..."""


@dataclass(frozen=True)
class Run:
    """A tested run."""

    folder: Path
    row: TableRow
    benchmark: str
    top1: float
    clips: int
    """Of the test."""
    config: dict[str, Any]
    """config.yaml; of an ensemble, that of its first run, with its streams and weights."""

    @property
    def seed(self) -> Any:
        """Of the run."""
        return self.config.get("seed")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """See `training_settings`; files are read once."""
        return training_settings(self.config, self.folder)

    def value(self, key: str) -> Any:
        """A setting by its dotted name as it took effect; None if there is none."""
        if key == "data.batch_size":
            return _batch(self.config)
        if key.startswith("init_from."):
            return self.settings.get(key)
        value = _get(self.config, key)
        if key == "optim.backbone_lr" and value is None:
            return _get(self.config, "optim.lr")
        return value


def read_run(folder: Path) -> Run:
    """What a run folder holds.

    Raises:
        InputError: If it is no folder of a tested run.
    """
    try:
        run = _identified(folder)
        run.settings  # noqa: B018  # read here, with the rest
        return run
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file has in the place of settings
        reason = " ".join(str(error).split())[:200]
        kind = type(error).__name__
        raise InputError(
            f"{folder}/config.yaml: no settings of a run ({kind}: {reason})"
        ) from error


def _identified(folder: Path) -> Run:
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
    # the streams differ, the rest names the row
    rows = {
        table_row({**member, "clip": {**member["clip"], "stream": "joint"}}) for member in members
    }
    if len(rows) > 1:
        raise InputError(f"{folder}: an ensemble of different methods has no row in the table")
    row = rows.pop()
    streams = [_get(member, "clip.stream") for member in members]
    kind = (
        "s" if len(set(streams)) == len(members) else "x"
    )  # of streams, or of several runs of some
    row = row._replace(method=f"{len(members)}{kind}-{row.method}")
    parts = {"streams": streams, "weights": config["ensemble"].get("weights")}
    config = {**members[0], "ensemble": parts}
    return Run(folder, row, benchmark_name(members[0]), float(top1), clips, config)


def table_row(config: dict[str, Any]) -> TableRow:
    """The row of a run, from its configuration."""
    backbone, kind = (_class(config, part) for part in ("backbone", "method"))
    protocol = _PROTOCOLS.get(kind, "full")
    labelled = _get(config, "data.labelled")
    if labelled is not None:
        named = isinstance(labelled, str)
        part = (
            f"labels of {Path(labelled).name}" if named else f"{100 * labelled:g} % of the labels"
        )
        protocol = part if protocol == "full" else f"{protocol}, {part}"
    method = _method(config, kind, backbone)
    stream = _get(config, "clip.stream")
    suffix = "" if stream in (None, "joint") else f" ({stream})"
    return TableRow(method + suffix, backbone, protocol)


def _method(config: dict[str, Any], kind: str, backbone: str) -> str:
    """What the backbone learnt from."""
    if kind == "Lift":
        return "MotionBERT"
    if kind == "MaskedAutoencoder":
        return "MAMP" if _get(config, "method.target") == "motion" else "SkeletonMAE"
    masking = _class(config, "masking.strategy")
    if kind == "Recognizer" and masking and _masking_began(config):
        terms = _get(config, "loss.terms") or {}
        guided = masking == "AttentionGuidedMasking" and {"sample", "class"} <= set(terms)
        name = "MaskCLR" if guided else f"{masking}, loss {'+'.join(terms)}"
        start = _get(config, "init_from")
        return f"{name} after {_started_from(str(start))}" if start else name
    if kind not in ("Recognizer", *_PROTOCOLS):
        return kind
    if _get(config, "init_from"):
        return _started_from(str(config["init_from"]))
    if _get(config, "backbone.weights"):
        return _PRETRAINED.get(backbone, f"weights of {backbone}")
    return "supervised" if kind in ("Recognizer", "OneShot") else "random weights"


def _masking_began(config: dict[str, Any]) -> bool:
    """Whether a run came to the epoch from which it masks; without it, it is a supervised one."""
    epochs, start = _get(config, "trainer.max_epochs"), _get(config, "masking.start_epoch") or 0
    if not isinstance(epochs, int) or epochs < 0:  # as many as `max_steps` makes
        return True
    stage = Stage("masking", "masking.start_epoch", float(start))
    stage.resolve(epochs)
    return stage.first < epochs


def _started_from(start: str) -> str:
    """The method of the run that another one took its backbone from."""
    folder = run_folder_of(start)
    try:
        config = read_config(folder)
    except InputError:
        return f"from {folder.name}"
    return _method(config, _class(config, "method"), _class(config, "backbone"))


def benchmark_name(config: dict[str, Any]) -> str:
    """The column of a run: NTU60-XSub, ..., K400, or the name of the store and its test split."""
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
    """How many test clips a benchmark has as published; None where that is not known here."""
    found = {
        f"{name}-{part}": PUBLISHED[f"NTU RGB+D {number}"].get(split)
        for number, name in _CLASSES.items()
        for split, part in _SPLITS.items()
    }
    return found.get(benchmark)


def _batch(config: dict[str, Any]) -> int | None:
    """Clips per step of the optimizer, on all devices."""
    balanced = _get(config, "data.balanced")
    size = _get(config, "data.batch_size")
    size = balanced["classes"] * balanced["samples"] if balanced else size
    return None if size is None else size * (_get(config, "trainer.accumulate_grad_batches") or 1)


def _class(config: dict[str, Any], part: str) -> str:
    return str(_get(config, f"{part}._target_") or "").rsplit(".", 1)[-1]


def _get(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
