"""Where the weights of a run come from, and whether they have seen what it is measured on."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.checkpoint.load import checkpoint_path
from maskclr_pl.checkpoint.trained_on import TrainingRecord, check_start, start_advice
from maskclr_pl.config.container import to_container
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.errors import InputError
from maskclr_pl.methods import Classifier, Method


def training_record(
    cfg: DictConfig, data: SkeletonDataModule, method: Method, last: Path | None
) -> tuple[dict[str, Any], list[str]]:
    """The clips that the weights of a run are trained on, by it and before it.

    Args:
        cfg: Complete.
        data: Of this run.
        method: Of this run.
        last: Checkpoint that it continues from, if it does; it was checked at its start.

    Returns:
        The record for the checkpoints of this run, and notes on clips that it is measured on and
        that were trained on before, a line each.

    Raises:
        InputError: If `init_from` was trained, with labels, on such clips, and `init_overlap` does
            not accept it.
    """
    record = TrainingRecord()
    notes: list[str] = []
    if last is not None:
        record = TrainingRecord.read(read_weights(last), str(cfg.resume))
    elif cfg.init_from:
        record, notes = _checked_start(cfg, data)
    if any(parameter.requires_grad for parameter in method.parameters()):
        record = record.trained(data.train, labels=isinstance(method, Classifier))
    return record.plain(), [f"note: {note}" for note in notes]


def _checked_start(cfg: DictConfig, data: SkeletonDataModule) -> tuple[TrainingRecord, list[str]]:
    choice = cfg.get("init_overlap", "refuse")
    if choice not in ("refuse", "keep"):
        raise InputError(f"init_overlap={choice}: expected refuse or keep")
    content = read_weights(checkpoint_path(cfg.init_from))
    record = TrainingRecord.read(content, str(cfg.init_from))
    try:
        theirs = dict(content["maskclr_pl"]["config"]["data"])
    except Exception:  # the weights count, whatever a damaged file says of them
        theirs = {}
    parts = {"validation": data.val, "test": data.test, "exemplar": data.exemplars}
    advice = start_advice(to_container(cfg.data), theirs)
    return record, check_start(record, parts, str(cfg.init_from), advice, choice == "keep")
