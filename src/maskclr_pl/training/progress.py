"""Progress of a run that is resumed."""

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
    """Progress of a run."""

    path: Path
    """Checkpoint to resume from."""
    epochs: int
    """Finished epochs."""
    step: int
    """Optimizer steps."""
    middle: bool
    """True if the checkpoint was written within an epoch."""
    planned: int
    """Epochs that the run started with, to which stage starts below 1 refer; -1 is unknown."""
    row: Mapping[str, float] = {}
    """Row of metrics.csv for the last finished epoch, which the file may lack."""
    notes: Sequence[str] = ()
    """Notes on newer checkpoints that are damaged."""
    lost_best: str | None = None
    """Problem with best.ckpt, if it cannot be read."""


def read_progress(folder: Path) -> Progress | None:
    """Read the progress of a run; None if it stopped before its first checkpoint.

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
            f"{path}: no record of finished epochs; expected a checkpoint of maskclr_pl.train"
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
    """Return the problem with best.ckpt, if a checkpoint mentions one that cannot be read."""
    known = content.get("callbacks", {}).get(BestCheckpoint.__qualname__, {})
    return checkpoint_problem(folder / "checkpoints" / BEST) if "best" in known else None


def resume_lines(
    folder: Path, done: Progress | None, epochs: int, stages: Sequence[Stage]
) -> list[str]:
    """Describe where a run resumes, one log line each.

    Args:
        folder: Run folder.
        done: Progress of the run; None before the first checkpoint.
        epochs: Planned epochs.
        stages: Stages of the method and the callbacks, with absolute epochs.

    Raises:
        InputError: If the run has more epochs already, or all of them and no readable best.ckpt.
    """
    if done is None:
        return [f"resume     from the start: {folder} has no checkpoints/last.ckpt yet"]
    if done.epochs > epochs:
        raise InputError(
            f"{done.path} has {done.epochs} epochs already, but trainer.max_epochs={epochs}; pass "
            "a larger trainer.max_epochs"
        )
    lines = [f"note: {note}" for note in done.notes]
    if done.epochs == epochs:
        if done.lost_best:
            raise InputError(
                f"{done.lost_best}, and all {epochs} epochs are done; pass "
                f"trainer.max_epochs={2 * epochs} to continue, or use {done.path}"
            )
        return [
            *lines,
            f"resume     all {epochs} epochs are done ({done.path}): testing again; pass "
            f"trainer.max_epochs={2 * epochs} to continue training",
        ]
    position = f"{'within ' if done.middle else ''}epoch {done.epochs + 1} of {epochs}"
    lines.append(f"resume     {position}, step {done.step}, from {done.path}")
    if done.lost_best:
        lines.append(f"note: {done.lost_best}: selected again from the coming epochs")
    if done.middle:
        lines.append(
            f"note: training metrics of epoch {done.epochs + 1} cover its remaining batches only"
        )
    if done.planned not in (-1, epochs):
        lines += [
            f"note: {stage.key}={stage.start:g} stays at epoch {stage.first + 1}: it refers to "
            f"the {done.planned} epochs that the run started with"
            for stage in stages
            if 0 < stage.start < 1
        ]
    return lines
