"""Training clips behind the weights of a run, and their overlap with its evaluation clips."""

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
    """Record the clips that the weights of a run are trained on, by this run and earlier ones.

    Args:
        cfg: Complete.
        data: Of this run.
        method: Of this run.
        last: Checkpoint that a resumed run continues from.

    Returns:
        The record for the checkpoints of this run, and notes on evaluation clips that earlier
        runs were trained on.

    Raises:
        InputError: If `init_from` was trained with labels on evaluation clips of this run, and
            `init_overlap=refuse`.
    """
    record = TrainingRecord()
    notes: list[str] = []
    if last is not None:
        record = TrainingRecord.read(read_weights(last), str(cfg.resume))
    elif cfg.init_from:
        record, notes = _checked_start(cfg, data)
    if any(parameter.requires_grad for parameter in method.parameters()):
        record = record.trained(data.train, labels=isinstance(method, Classifier))
    return record.to_dict(), [f"note: {note}" for note in notes]


def _checked_start(cfg: DictConfig, data: SkeletonDataModule) -> tuple[TrainingRecord, list[str]]:
    policy = cfg.get("init_overlap", "refuse")
    if policy not in ("refuse", "keep"):
        raise InputError(f"init_overlap={policy}: expected refuse or keep")
    content = read_weights(checkpoint_path(cfg.init_from))
    record = TrainingRecord.read(content, str(cfg.init_from))
    try:
        origin_data = dict(content["maskclr_pl"]["config"]["data"])
    except Exception:  # weights remain usable without a description
        origin_data = {}
    parts = {"validation": data.val, "test": data.test, "exemplar": data.exemplars}
    advice = start_advice(to_container(cfg.data), origin_data)
    return record, check_start(record, parts, str(cfg.init_from), advice, policy == "keep")
