"""A training whose losses and scores are written down, to test what callbacks make of them."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from maskclr_pl.methods.stages import Stage

BATCHES, CLIPS = 4, 2


class Rows(Dataset):
    def __len__(self) -> int:
        return BATCHES * CLIPS

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"index": torch.tensor(index), "x": torch.ones(1)}


class Clips(L.LightningDataModule):
    """Eight clips in order, two a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.train = SimpleNamespace(names=[f"clip{i}" for i in range(BATCHES * CLIPS)])

    def train_dataloader(self) -> Any:
        return DataLoader(Rows(), batch_size=CLIPS)

    def val_dataloader(self) -> Any:
        return DataLoader(Rows(), batch_size=CLIPS)


class Scripted(L.LightningModule):
    """Its validation scores (top1, loss) by epoch, and training losses by step.

    Args:
        scores: Of the epochs.
        losses: Step, from 0, -> a number that the loss is multiplied by.
        stages: See `Stage`.
    """

    def __init__(
        self,
        scores: Sequence[tuple[float, float]] = (),
        losses: dict[int, float] | None = None,
        stages: Sequence[Stage] = (),
    ):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.scores, self.losses, self.stages = scores, losses or {}, tuple(stages)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return {"loss": self.layer(batch["x"]).mean() * self.losses.get(self.global_step, 1.0)}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        top1, loss = self.scores[self.current_epoch]
        self.log_dict({"val/top1": top1, "val/loss": loss}, batch_size=CLIPS)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(module: Scripted, folder: Path, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """Train on the CPU in a folder."""
    scored = {} if module.scores else {"limit_val_batches": 0}
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": len(module.scores) or 1, **scored, **options},
    )
    trainer.fit(module, Clips())
    return trainer
