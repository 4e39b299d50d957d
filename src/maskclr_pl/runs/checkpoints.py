"""Checkpoint files that survive a kill, a full disk and flipped bits."""

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
from maskclr_pl.files import atomic_path
from maskclr_pl.types import InputError

LAST, PREVIOUS, BEST = "last.ckpt", "last-1.ckpt", "best.ckpt"
"""In `checkpoints/`: the last one that was written, the last one before it, the chosen epoch."""


class DurableCheckpoints(TorchCheckpointIO):
    """Writes beside the target and renames what is on the disk; keeps the last.ckpt before it.

    What is read is compared with the checksums in the file.
    """

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            InputError: If it cannot be written; the older ones stay.
        """
        path = Path(path)
        content = io.BytesIO()  # torch.save hides what is wrong with a file
        torch.save(dict(checkpoint), content)
        with atomic_path(path) as partial:
            partial.write_bytes(content.getbuffer())
            if path.name == LAST and path.is_file():
                with atomic_path(path.with_name(PREVIOUS)) as before:
                    os.link(path, before)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, plain values only, to the CPU.

        Raises:
            InputError: If it is missing or damaged.
        """
        return read_weights(path)


def use_durable_checkpoints(trainer: L.Trainer) -> None:
    """Let a trainer write its checkpoints so, unless its strategy has a way of its own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = DurableCheckpoints()


class SavedCheckpoint(NamedTuple):
    """A checkpoint that a run can go on from."""

    path: Path
    content: dict[str, Any]
    notes: list[str]
    """Newer ones that are damaged, a line each."""


def newest_checkpoint(folder: Path) -> SavedCheckpoint | None:
    """The newest checkpoint of a run folder that can be read; None if there is none at all.

    Raises:
        InputError: If all of them are damaged.
    """
    damaged: list[str] = []
    for name in (LAST, PREVIOUS, BEST):
        path = folder / "checkpoints" / name
        if not path.is_file():
            continue
        try:
            content = read_weights(path)
        except InputError as error:
            damaged.append(str(error).partition(";")[0])
            continue
        return SavedCheckpoint(
            path, content, [f"{line}: the run goes on from {path}" for line in damaged]
        )
    if damaged:
        raise InputError(
            f"{damaged[0]}, and there is no other to go on from; remove {folder / 'checkpoints'} "
            f"and pass {override('resume', folder)} to train from the start"
        )
    return None


def checkpoint_problem(path: Path) -> str | None:
    """What is wrong with a checkpoint file, if it is missing or damaged."""
    try:
        read_weights(path)
    except InputError as error:
        return str(error).partition(";")[0]
    return None
