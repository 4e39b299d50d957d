"""How far a run is that is continued, and where it goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskclr_pl.callbacks import BestCheckpoint
from maskclr_pl.checkpoint.load import validated_state_dict
from maskclr_pl.errors import InputError
from maskclr_pl.methods.stages import Stage
from maskclr_pl.runs.checkpoints import BEST, checkpoint_problem, newest_checkpoint
from maskclr_pl.runs.history import EPOCH_ROW


class Progress(NamedTuple):
    """How far a run is."""

    path: Path
    """Checkpoint that it goes on from."""
    epochs: int
    """That are done."""
    step: int
    """Steps that the optimizer has taken."""
    middle: bool
    """Whether the checkpoint was written within an epoch."""
    planned: int
    """Epochs that it began with, of which shares are shares; -1 is unknown."""
    row: Mapping[str, float] = {}
    """Of metrics.csv, for the last of these epochs; the file may lack it."""
    notes: Sequence[str] = ()
    """Newer checkpoints that are damaged, a line each."""
    lost_best: str | None = None
    """What is wrong with the file of the best epoch so far."""


def read_progress(folder: Path) -> Progress | None:
    """Where a run goes on; None if it stopped before its first checkpoint.

    Raises:
        InputError: If the checkpoint is damaged, or its weights are not finite.
    """
    found = newest_checkpoint(folder)
    if found is None:
        return None
    path, content = found.path, found.content
    validated_state_dict(content, path)
    try:
        loop = content["loops"]["fit_loop"]
        epochs = int(loop["epoch_progress"]["current"]["processed"])
        started = int(loop["epoch_progress"]["current"]["started"])
        info = content["maskclr_pl"]
        planned = info.get("stage_epochs", info["config"]["trainer"]["max_epochs"])
        step = int(content["global_step"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{path}: does not say how far the training is; expected a checkpoint of "
            "maskclr_pl.train"
        ) from None
    return Progress(
        path=path,
        epochs=epochs,
        step=step,
        middle=started > epochs,
        planned=-1 if planned is None else int(planned),
        row=dict(content.get(EPOCH_ROW, {})),
        notes=found.notes,
        lost_best=_lost_best(folder, content),
    )


def _lost_best(folder: Path, content: Mapping[str, Any]) -> str | None:
    """What is wrong with best.ckpt, if a checkpoint knows of one that cannot be read."""
    known = content.get("callbacks", {}).get(BestCheckpoint.__qualname__, {})
    return checkpoint_problem(folder / "checkpoints" / BEST) if "best" in known else None


def resume_lines(
    folder: Path, done: Progress | None, epochs: int, stages: Sequence[Stage]
) -> list[str]:
    """Where a run goes on, and what stays as it was, a line each.

    Args:
        folder: Run folder.
        done: How far it is; None: nowhere.
        epochs: That it is to have.
        stages: Of the method and the callbacks, settled.

    Raises:
        InputError: If it has more epochs already.
    """
    if done is None:
        return [f"continues  from the start: {folder} has no checkpoints/last.ckpt yet"]
    if done.epochs > epochs:
        raise InputError(
            f"{done.path} has {done.epochs} epochs already, and trainer.max_epochs={epochs}; pass "
            "more epochs to train on"
        )
    lines = [f"note: {note}" for note in done.notes]
    if done.epochs == epochs:
        if done.lost_best:
            raise InputError(
                f"{done.lost_best}, and all {epochs} epochs are done; pass "
                f"trainer.max_epochs={2 * epochs} to train on, or use {done.path} as it is"
            )
        return [
            *lines,
            f"continues  all {epochs} epochs are done ({done.path}): nothing is left to train, the "
            f"model is tested again; pass trainer.max_epochs={2 * epochs} to train on",
        ]
    where = f"epoch {done.epochs + 1} of {epochs}{', in its middle' if done.middle else ''}"
    lines.append(f"continues  {where}, step {done.step}, from {done.path}")
    if done.lost_best:
        lines.append(f"note: {done.lost_best}: chosen anew from the epochs to come")
    if done.middle:
        lines.append(
            f"note: the training metrics of epoch {done.epochs + 1} are of its other batches"
        )
    if done.planned not in (-1, epochs):
        lines += [
            f"note: {stage.key}={stage.start:g} stays at epoch {stage.first + 1}: it is a "
            f"share of the {done.planned} epochs that the run began with"
            for stage in stages
            if 0 < stage.start < 1
        ]
    return lines
