"""When to mask and how strongly, and a record of what was hidden."""

import dataclasses
from typing import Any

import lightning as L
from torch import Tensor

from maskclr_pl.masking import Masking


class MaskingCallback(L.Callback):
    """Puts a strategy into the method's `masking` slot from an epoch on.

    After each epoch with masking, `masked/<joint>` is the share of the epoch's tokens of that joint
    that were hidden (mean over joints: the ratio).

    Args:
        strategy: What to hide.
        start_epoch: First epoch with a masked pathway; before, there is the standard one alone. A
            value between 0 and 1 is a share of the training.
        ramp_epochs: Epochs over which the ratio grows linearly to the strategy's; 0 starts in full.

    Raises:
        ValueError: If an epoch count is negative.
    """

    def __init__(self, strategy: Masking, start_epoch: float = 0, ramp_epochs: int = 0):
        if start_epoch < 0 or ramp_epochs < 0:
            raise ValueError("start_epoch and ramp_epochs must not be negative")
        self.strategy, self.start_epoch, self.ramp_epochs = strategy, start_epoch, ramp_epochs
        self._first = int(start_epoch)
        self._hidden: Tensor | None = None
        self._batches = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a method without a masked pathway; turn a share into an epoch."""
        if stage == "fit" and not hasattr(pl_module, "masking"):
            raise TypeError(f"{type(pl_module).__name__} has no masked pathway")
        if 0 < self.start_epoch < 1:
            self._first = int(self.start_epoch * (trainer.max_epochs or 0))

    def masking_at(self, epoch: int) -> Masking | None:
        """The strategy of an epoch (a function of the epoch, so nothing has to be saved)."""
        since = epoch - self._first
        if since < 0:
            return None
        if since >= self.ramp_epochs:
            return self.strategy
        ratio = self.strategy.ratio * (since + 1) / (self.ramp_epochs + 1)
        return dataclasses.replace(self.strategy, ratio=ratio)  # type: ignore[type-var]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fill or empty the slot."""
        # a plain attribute of the method, which torch's type of a module does not know
        setattr(pl_module, "masking", self.masking_at(trainer.current_epoch))  # noqa: B010
        self._hidden, self._batches = None, 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Add up what was hidden, on the device."""
        mask = outputs.get("mask")
        if mask is not None and len(mask):
            share = mask.float().mean((0, 1))
            self._hidden = share if self._hidden is None else self._hidden + share
            self._batches += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the share of each joint."""
        if self._hidden is None:
            return
        shares = (self._hidden / self._batches).cpu()
        names: tuple[str, ...] = pl_module.skeleton.joints  # type: ignore[union-attr,assignment]
        values = {f"masked/{name}": share for name, share in zip(names, shares, strict=True)}
        pl_module.log_dict(values, sync_dist=True)
