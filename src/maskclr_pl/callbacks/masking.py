"""When to mask and how strongly, and a record of what was hidden."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskclr_pl.masking import Masking
from maskclr_pl.methods.stages import Stage
from maskclr_pl.runs.results import write_table
from maskclr_pl.types import Batch

_SO_FAR = "hidden_in_epoch"
"""In a checkpoint: sums over the batches of the epoch in which it was written."""


class MaskingCallback(L.Callback):
    """Puts a strategy into the method's `masking` slot from an epoch on.

    After each epoch with masking, `masked/<joint>` is the share of the epoch's tokens of that joint
    that were hidden (mean over joints: the ratio). After the training, `masked_by_class.csv` in the
    trainer's `default_root_dir` (the run folder) says the same of each class, over all epochs with
    masking: class, sequences (of persons who are there, counted once an epoch), and a column for
    each joint. It is written where our data module names the classes.

    Args:
        strategy: What to hide.
        start_epoch: First epoch with a masked pathway; before, there is the standard one alone. A
            value between 0 and 1 is a share of the training.
        ramp_epochs: Epochs over which the ratio grows linearly to the strategy's, or a share of the
            training; 0 starts in full.

    Raises:
        ValueError: If an epoch count is negative, or neither whole nor a share.
    """

    def __init__(self, strategy: Masking, start_epoch: float = 0, ramp_epochs: float = 0):
        keys = "masking.start_epoch", "masking.ramp_epochs"
        self._stage = Stage("masking", keys[0], start_epoch, ramp_epochs, keys[1])
        self.strategy, self.stages = strategy, (self._stage,)
        self._hidden: Tensor | None = None  # (V + 1) of this rank: sums of shares, sequences
        self._classes: Sequence[str] = ()
        self._epoch: Tensor | None = None  # (K, V + 1) of this rank: sums of shares, sequences
        self._total: Tensor | None = None  # the same of all ranks and epochs

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a method without a masked pathway."""
        if stage == "fit" and not hasattr(pl_module, "masking"):
            raise TypeError(f"{type(pl_module).__name__} has no masked pathway")
        store = getattr(getattr(trainer, "datamodule", None), "store", None)
        self._classes = () if store is None else store.class_names

    def masking_at(self, epoch: int) -> Masking | None:
        """The strategy of an epoch (a function of the epoch, so nothing has to be saved)."""
        stage = self._stage
        if epoch < stage.first:
            return None
        if epoch >= stage.full:
            return self.strategy
        ratio = self.strategy.ratio * (epoch - stage.first + 1) / (stage.full - stage.first + 1)
        return dataclasses.replace(self.strategy, ratio=ratio)  # type: ignore[type-var]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fill or empty the slot: in the middle of an epoch, where a run is continued, too."""
        self._stage.resolve(trainer.max_epochs or 1)
        # a plain attribute of the method, which torch's type of a module does not know
        setattr(pl_module, "masking", self.masking_at(trainer.current_epoch))  # noqa: B010
        if self._hidden is not None:  # from a checkpoint
            self._hidden = self._hidden.to(pl_module.device)
        if self._epoch is not None:
            self._epoch = self._epoch.to(pl_module.device)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fill or empty the slot, and count from zero."""
        self._hidden, self._epoch = None, None
        self.on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Add up what was hidden, on the device."""
        mask = outputs.get("mask")
        if mask is not None and len(mask):
            share = mask.float().mean(1)
            sums = torch.cat((share, torch.ones_like(share[:, :1])), dim=1).sum(0)
            self._hidden = sums if self._hidden is None else self._hidden + sums
            if self._classes:
                sums = hidden_by_class(mask, batch, len(self._classes))
                self._epoch = sums if self._epoch is None else self._epoch + sums

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the share of each joint; add the epoch to the record by class."""
        if pl_module.masking is None:
            return
        if self._classes:
            self._keep(trainer, pl_module)
        joints = len(pl_module.skeleton)  # type: ignore[arg-type]
        sums = _sum(trainer, pl_module, self._hidden, (joints + 1,))
        if not sums[-1]:
            return  # nobody was there
        names: tuple[str, ...] = pl_module.skeleton.joints  # type: ignore[union-attr,assignment]
        shares = (sums[:-1] / sums[-1]).float()
        values = {f"masked/{name}": share for name, share in zip(names, shares, strict=True)}
        pl_module.log_dict(values, sync_dist=True)  # equal on all ranks

    def _keep(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        joints = len(pl_module.skeleton)  # type: ignore[arg-type]
        total = _sum(trainer, pl_module, self._epoch, (len(self._classes), joints + 1)).double()
        self._total = total if self._total is None else self._total + total

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """What was hidden in the epoch so far, on all ranks, for a run that goes on within it."""
        if getattr(pl_module, "masking", None) is None or not hasattr(pl_module, "skeleton"):
            return
        joints = len(pl_module.skeleton)  # type: ignore[arg-type]
        parts = {
            "hidden": (self._hidden, (joints + 1,)),
            "by_class": (self._epoch, (len(self._classes), joints + 1)),
        }
        checkpoint[_SO_FAR] = {
            name: _sum(trainer, pl_module, value, shape) for name, (value, shape) in parts.items()
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """See `on_save_checkpoint`: every rank goes on with its share."""
        if so_far := checkpoint.get(_SO_FAR):
            self._hidden = so_far["hidden"] / trainer.world_size
            self._epoch = so_far["by_class"] / trainer.world_size

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the record by class: also if nothing was left to train."""
        if self._total is None or not trainer.is_global_zero:
            return
        joints: tuple[str, ...] = pl_module.skeleton.joints  # type: ignore[union-attr,assignment]
        rows = []
        for name, (*hidden, count) in zip(self._classes, self._total.tolist(), strict=True):
            shares = [round(value / count, 6) if count else "" for value in hidden]
            row: dict[str, Any] = {"class": name, "sequences": int(count)}
            rows.append(row | dict(zip(joints, shares, strict=True)))
        write_table(Path(trainer.default_root_dir) / "masked_by_class.csv", rows)

    def state_dict(self) -> dict[str, Any]:
        """The record by class, so that a continued run goes on with it."""
        return {} if self._total is None else {"hidden_by_class": self._total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self._total = state_dict.get("hidden_by_class")


def _sum(
    trainer: L.Trainer, pl_module: L.LightningModule, value: Tensor | None, shape: tuple[int, ...]
) -> Tensor:
    """The sum over all ranks, on the CPU; None counts as zeros."""
    here = torch.zeros(shape, device=pl_module.device) if value is None else value
    return torch.as_tensor(trainer.strategy.reduce(here, reduce_op="sum")).cpu()


def hidden_by_class(
    mask: Bool[Tensor, "N S V"], batch: Batch, classes: int
) -> Float[Tensor, "K V+1"]:
    """Sums over the sequences of each class: the share of each joint that is hidden, and ones.

    Args:
        mask: Of the persons who are there, or of all (`persons=padded`), of which the others do
            not count.
        batch: Where the sequences come from.
        classes: K.
    """
    if len(mask) != len(batch["sequence"]):
        mask = mask.index_select(0, batch["sequence"])
    share = mask.float().mean(1)
    rows = torch.cat((share, torch.ones_like(share[:, :1])), dim=1)
    label = batch["label"][batch["sequence"] // batch["present"].shape[1]]
    return rows.new_zeros(classes, rows.shape[1]).index_add(0, label, rows)
