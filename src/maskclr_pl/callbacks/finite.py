"""Stop a training whose loss or weights are NaN or infinite."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from maskclr_pl.backbones.weight_files import non_finite_tensors
from maskclr_pl.distributed import gather_objects
from maskclr_pl.runs.results import write_lines
from maskclr_pl.types import InputError

CLIPS = "not_finite.txt"
"""File in the run folder with the clips of the first batch whose loss is not finite."""


class StopOnNonFinite(L.Callback):
    """Ends the training at the first loss that is NaN or infinite.

    A step only stores a flag and its clip indices on the device. They are checked every
    `log_every_n_steps` steps (every step on a CPU), at the end of an epoch, and before a checkpoint
    is written, so that no checkpoint holds non-finite weights. Steps skipped by a gradient scaler
    (16-mixed) are no error: their loss is finite.
    """

    def __init__(self) -> None:
        self._flags: list[Tensor] = []
        self._clips: list[Tensor] = []
        self._steps: list[int] = []
        self._every = 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Clear the state of an earlier training; choose the interval of the checks."""
        self._clear()
        alone_on_cpu = pl_module.device.type == "cpu" and trainer.world_size == 1
        steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._every = 1 if alone_on_cpu else max(1, steps)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Store a flag for the loss; check the flags when it is time."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        if len(self._flags) >= self._every:  # kept until here for `_check_weights`
            self._clear()
        self._flags.append(~loss.detach().isfinite().all())
        self._clips.append(batch["index"])
        self._steps.append(trainer.global_step)
        if len(self._flags) >= self._every:
            self._check_losses(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the remaining losses, and the weights."""
        self._check_losses(trainer, pl_module)
        self._check_weights(trainer, pl_module, pl_module.state_dict())

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check losses and weights before they are written."""
        self._check_losses(trainer, pl_module)
        self._check_weights(trainer, pl_module, checkpoint["state_dict"])

    def _clear(self) -> None:
        self._flags, self._clips, self._steps = [], [], []

    def _check_losses(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        flags = torch.stack(self._flags).tolist() if self._flags else []
        first = flags.index(True) if True in flags else None
        if not trainer.strategy.reduce_boolean_decision(first is not None, all=False):
            return
        clips = [] if first is None else self._clips[first].tolist()
        steps = gather_objects(None if first is None else self._steps[first])
        step = min(step for step in steps if step is not None)
        self._stop(trainer, pl_module, f"the loss of step {step} is not finite", clips)

    def _check_weights(
        self, trainer: L.Trainer, pl_module: L.LightningModule, state: Mapping[str, Any]
    ) -> None:
        names = non_finite_tensors(state)
        if not trainer.strategy.reduce_boolean_decision(bool(names), all=False):
            return
        clips = self._clips[-1].tolist() if self._clips else []
        example = f", such as {names[0]}" if names else ""
        problem = f"weights are not finite after step {trainer.global_step}{example}"
        self._stop(trainer, pl_module, problem, clips)

    def _stop(
        self, trainer: L.Trainer, pl_module: L.LightningModule, problem: str, clips: list[int]
    ) -> None:
        data = getattr(getattr(trainer, "datamodule", None), "train", None)
        names = [str(index) if data is None else str(data.names[index]) for index in clips]
        names = [name for rank in gather_objects(names) for name in rank]
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero:
            write_lines(folder / CLIPS, names)
        last = folder / "checkpoints" / "last.ckpt"
        intact = f"; {last} is from the epoch before" if last.is_file() else ""
        rate = getattr(getattr(pl_module, "optim", None), "lr", None)
        changes = ["a lower optim.lr" + (f" (now {rate:g})" if rate is not None else "")]
        if not trainer.gradient_clip_val:
            changes.append("trainer.gradient_clip_val=1.0")
        if str(trainer.precision) != "32-true":
            changes.append(f"trainer.precision=32-true (now {trainer.precision})")
        raise InputError(
            f"epoch {trainer.current_epoch + 1}: {problem}; the names of the clips are in "
            f"{folder / CLIPS}{intact}; train again with {', or '.join(changes)}"
        )
