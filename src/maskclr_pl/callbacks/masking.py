"""Schedule of the masking, and a record of the masked joints."""

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

_UNFINISHED = "hidden_in_epoch"
"""Checkpoint key for sums over the batches of an unfinished epoch."""


class MaskingCallback(L.Callback):
    """Sets the method's `masking` strategy from an epoch on.

    After each epoch with masking, `masked/<joint>` is the share of that joint's tokens that were
    masked (its mean over joints is the ratio). After the training, `masked_by_class.csv` in the run
    folder (the trainer's `default_root_dir`) has the shares by class, over all epochs with masking:
    class, sequences (of present persons, counted once per epoch), and a column for each joint. It
    is written if the data module names the classes.

    Args:
        strategy: Masking strategy.
        start_epoch: First epoch with the masked pathway. A value between 0 and 1 is a share of the
            training.
        ramp_epochs: Epochs, or share of the training, over which the ratio grows linearly to the
            strategy's; 0 starts at the full ratio.

    Raises:
        ValueError: If an epoch count is negative, or neither whole nor a share.
    """

    def __init__(self, strategy: Masking, start_epoch: float = 0, ramp_epochs: float = 0):
        keys = "masking.start_epoch", "masking.ramp_epochs"
        self._stage = Stage("masking", keys[0], start_epoch, ramp_epochs, keys[1])
        self.strategy, self.stages = strategy, (self._stage,)
        self._masked: Tensor | None = None  # (V + 1) of this rank: sums of shares, sequences
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
        """The strategy in an epoch; depends on the epoch alone, so there is no state to save."""
        stage = self._stage
        if epoch < stage.first:
            return None
        if epoch >= stage.full:
            return self.strategy
        ratio = self.strategy.ratio * (epoch - stage.first + 1) / (stage.full - stage.first + 1)
        return dataclasses.replace(self.strategy, ratio=ratio)  # type: ignore[type-var]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the strategy, also when a run is resumed within an epoch."""
        self._stage.resolve(trainer.max_epochs or 1)
        # a plain attribute, unknown to torch's type of a module
        setattr(pl_module, "masking", self.masking_at(trainer.current_epoch))  # noqa: B010
        if self._masked is not None:  # from a checkpoint
            self._masked = self._masked.to(pl_module.device)
        if self._epoch is not None:
            self._epoch = self._epoch.to(pl_module.device)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the strategy and reset the sums."""
        self._masked, self._epoch = None, None
        self.on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Add up the masked shares, on the device."""
        mask = outputs.get("mask")
        if mask is not None and len(mask):
            share = mask.float().mean(1)
            sums = torch.cat((share, torch.ones_like(share[:, :1])), dim=1).sum(0)
            self._masked = sums if self._masked is None else self._masked + sums
            if self._classes:
                sums = masked_sums(mask, batch, len(self._classes))
                self._epoch = sums if self._epoch is None else self._epoch + sums

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the share of each joint; add the epoch to the record by class."""
        if pl_module.masking is None:
            return
        if self._classes:
            self._add_epoch(trainer, pl_module)
        joints = len(pl_module.skeleton)  # type: ignore[arg-type]
        sums = _sum(trainer, pl_module, self._masked, (joints + 1,))
        if not sums[-1]:
            return  # no person was present
        names: tuple[str, ...] = pl_module.skeleton.joints  # type: ignore[union-attr,assignment]
        shares = (sums[:-1] / sums[-1]).float()
        values = {f"masked/{name}": share for name, share in zip(names, shares, strict=True)}
        pl_module.log_dict(values, sync_dist=True)  # equal on all ranks

    def _add_epoch(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        joints = len(pl_module.skeleton)  # type: ignore[arg-type]
        total = _sum(trainer, pl_module, self._epoch, (len(self._classes), joints + 1)).double()
        self._total = total if self._total is None else self._total + total

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the sums of the unfinished epoch over all ranks, for a resume within it."""
        if getattr(pl_module, "masking", None) is None or not hasattr(pl_module, "skeleton"):
            return
        joints = len(pl_module.skeleton)  # type: ignore[arg-type]
        parts = {
            "hidden": (self._masked, (joints + 1,)),
            "by_class": (self._epoch, (len(self._classes), joints + 1)),
        }
        checkpoint[_UNFINISHED] = {
            name: _sum(trainer, pl_module, value, shape) for name, (value, shape) in parts.items()
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """See `on_save_checkpoint`; each rank continues with an equal share."""
        if sums := checkpoint.get(_UNFINISHED):
            self._masked = sums["hidden"] / trainer.world_size
            self._epoch = sums["by_class"] / trainer.world_size

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the record by class, also if no epoch was left to train."""
        if self._total is None or not trainer.is_global_zero:
            return
        joints: tuple[str, ...] = pl_module.skeleton.joints  # type: ignore[union-attr,assignment]
        rows = []
        for name, (*masked, count) in zip(self._classes, self._total.tolist(), strict=True):
            shares = [round(value / count, 6) if count else "" for value in masked]
            row: dict[str, Any] = {"class": name, "sequences": int(count)}
            rows.append(row | dict(zip(joints, shares, strict=True)))
        write_table(Path(trainer.default_root_dir) / "masked_by_class.csv", rows)

    def state_dict(self) -> dict[str, Any]:
        """Store the record by class, for a resumed run."""
        return {} if self._total is None else {"hidden_by_class": self._total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self._total = state_dict.get("hidden_by_class")


def _sum(
    trainer: L.Trainer, pl_module: L.LightningModule, value: Tensor | None, shape: tuple[int, ...]
) -> Tensor:
    """Sum over all ranks, on the CPU; None counts as zeros."""
    local = torch.zeros(shape, device=pl_module.device) if value is None else value
    return torch.as_tensor(trainer.strategy.reduce(local, reduce_op="sum")).cpu()


def masked_sums(mask: Bool[Tensor, "N S V"], batch: Batch, classes: int) -> Float[Tensor, "K V+1"]:
    """Sum over the sequences of each class: the masked share of each joint, and ones.

    Args:
        mask: Masks of the present persons, or of all slots (`persons=padded`), of which absent
            ones do not count.
        batch: Batch of the sequences.
        classes: Number of classes K.
    """
    if len(mask) != len(batch["sequence"]):
        mask = mask.index_select(0, batch["sequence"])
    share = mask.float().mean(1)
    rows = torch.cat((share, torch.ones_like(share[:, :1])), dim=1)
    label = batch["label"][batch["sequence"] // batch["present"].shape[1]]
    return rows.new_zeros(classes, rows.shape[1]).index_add(0, label, rows)
