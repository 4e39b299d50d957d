"""Checkpoint files that survive kills, full disks and corruption."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.command_line import override
from maskclr_pl.errors import InputError
from maskclr_pl.files import atomic_path

LAST, PREVIOUS, BEST = "last.ckpt", "last-1.ckpt", "best.ckpt"
"""Files in `checkpoints/`: the last one written, the one before it, and the selected epoch."""


class DurableCheckpoints(TorchCheckpointIO):
    """Writes atomically and keeps the previous last.ckpt; verifies checksums on read."""

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            InputError: If it cannot be written; older ones stay.
        """
        path = Path(path)
        content = io.BytesIO()  # torch.save hides the reason of failed file writes
        torch.save(dict(checkpoint), content)
        with atomic_path(path) as partial:
            partial.write_bytes(content.getbuffer())
            if path.name == LAST and path.is_file():
                with atomic_path(path.with_name(PREVIOUS)) as previous:
                    os.link(path, previous)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of plain values to the CPU.

        Raises:
            InputError: If it is missing or damaged.
        """
        return read_weights(path)


def use_durable_checkpoints(trainer: L.Trainer) -> None:
    """Use `DurableCheckpoints`, unless the strategy has its own checkpoint format."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = DurableCheckpoints()


class SavedCheckpoint(NamedTuple):
    """A checkpoint from which a run can continue."""

    path: Path
    content: dict[str, Any]
    notes: list[str]
    """One line for each newer checkpoint that is damaged."""


def newest_checkpoint(folder: Path) -> SavedCheckpoint | None:
    """Read the newest intact checkpoint of a run folder; None if there is no checkpoint.

    Raises:
        InputError: If all checkpoints are damaged.
    """
    damaged: list[str] = []
    for name in (LAST, PREVIOUS, BEST):
        path = folder / "checkpoints" / name
        if not path.is_file():
            continue
        try:
            content = read_weights(path)
        except InputError as error:
            damaged.append(_first_clause(error))
            continue
        notes = [f"{problem}: the run continues from {path}" for problem in damaged]
        return SavedCheckpoint(path, content, notes)
    if damaged:
        raise InputError(
            f"{damaged[0]}, and no other checkpoint is intact; remove {folder / 'checkpoints'} "
            f"and pass {override('resume', folder)} to train from the start"
        )
    return None


def checkpoint_problem(path: Path) -> str | None:
    """Describe what is wrong with a checkpoint file; None if it is intact."""
    try:
        read_weights(path)
    except InputError as error:
        return _first_clause(error)
    return None


def _first_clause(error: InputError) -> str:
    return str(error).partition(";")[0]
