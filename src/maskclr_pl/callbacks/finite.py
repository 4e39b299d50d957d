"""Stop a training whose loss or weights are no longer finite."""

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
"""In the run folder: the names of the clips of the first batch whose loss is not finite."""


class StopOnNonFinite(L.Callback):
    """Ends the training with the first loss that is NaN or infinite.

    A step only keeps a flag and the indices of its clips on the device. They are looked at every
    `log_every_n_steps` steps (at every step on a CPU), and at the end of an epoch. Whatever writes
    a checkpoint, nothing is written that is not finite: what stands there is of an earlier epoch.
    Steps that a gradient scaler skips (16-mixed) are no error, their loss is finite.
    """

    def __init__(self) -> None:
        self._flags: list[Tensor] = []
        self._clips: list[Tensor] = []
        self._steps: list[int] = []
        self._every = 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget an earlier training; choose how often to look."""
        self._forget()
        alone_on_cpu = pl_module.device.type == "cpu" and trainer.world_size == 1
        steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._every = 1 if alone_on_cpu else max(1, steps)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep whether the loss is finite."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return
        if len(self._flags) >= self._every:  # the last batch is kept after a look
            self._forget()
        self._flags.append(~loss.detach().isfinite().all())
        self._clips.append(batch["index"])
        self._steps.append(trainer.global_step)
        if len(self._flags) >= self._every:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the losses since the last look, and at the weights."""
        self._look(trainer, pl_module)
        self._look_at_weights(trainer, pl_module, pl_module.state_dict())

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look before anything is written."""
        self._look(trainer, pl_module)
        self._look_at_weights(trainer, pl_module, checkpoint["state_dict"])

    def _forget(self) -> None:
        self._flags, self._clips, self._steps = [], [], []

    def _look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        flags = torch.stack(self._flags).tolist() if self._flags else []
        first = flags.index(True) if True in flags else None
        if not trainer.strategy.reduce_boolean_decision(first is not None, all=False):
            return
        clips = [] if first is None else self._clips[first].tolist()
        step = None if first is None else self._steps[first]
        step = min(one for one in gather_objects(step) if one is not None)
        self._end(trainer, pl_module, f"the loss of step {step} is not finite", clips)

    def _look_at_weights(
        self, trainer: L.Trainer, pl_module: L.LightningModule, state: Mapping[str, Any]
    ) -> None:
        names = non_finite_tensors(state)
        if not trainer.strategy.reduce_boolean_decision(bool(names), all=False):
            return
        clips = self._clips[-1].tolist() if self._clips else []
        shown = f", as {names[0]}" if names else ""
        problem = f"weights are not finite after step {trainer.global_step}{shown}"
        self._end(trainer, pl_module, problem, clips)

    def _end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, problem: str, clips: list[int]
    ) -> None:
        data = getattr(getattr(trainer, "datamodule", None), "train", None)
        names = [str(index) if data is None else str(data.names[index]) for index in clips]
        names = [name for part in gather_objects(names) for name in part]
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero:
            write_lines(folder / CLIPS, names)
        last = folder / "checkpoints" / "last.ckpt"
        kept = f"; {last} is of the epoch before" if last.is_file() else ""
        rate = getattr(getattr(pl_module, "optim", None), "lr", None)
        changes = [f"a lower optim.lr (now {rate:g})" if rate is not None else "a lower optim.lr"]
        if not trainer.gradient_clip_val:
            changes.append("trainer.gradient_clip_val=1.0")
        if str(trainer.precision) != "32-true":
            changes.append(f"trainer.precision=32-true (now {trainer.precision})")
        raise InputError(
            f"epoch {trainer.current_epoch + 1}: {problem}; the names of the clips are in "
            f"{folder / CLIPS}{kept}; train again with {', or '.join(changes)}"
        )
