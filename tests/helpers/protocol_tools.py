"""A small labelled set, backbones and trainers for the evaluation protocols."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.optim import Optim
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import Features

CHAIN = Skeleton("chain", ("root", "left_hand", "right_hand"), (-1, 0, 0))
NAMES = ("a", "b", "c", "d", "e", "f")


def toy_store(folder: Path, clips: int = 36, classes: int = 3, **splits: list[str]) -> Store:
    """Clip i is of class i % classes, which decides where the left hand is; one or two persons.

    The last third is `test`, unless splits are given.
    """
    rng = np.random.default_rng(0)
    recordings = []
    for i in range(clips):
        label, persons = i % classes, 1 + i % 2
        keypoint = rng.uniform(190, 210, (persons, 6 + i % 5, len(CHAIN), 2)).astype(np.float32)
        angle = 2 * np.pi * label / classes
        keypoint[:, :, 1] += 100 * np.array([np.cos(angle), np.sin(angle)])
        recordings.append(Recording(f"c{i:02d}", label, keypoint, frame_size=(400, 400)))
    names = [one.name for one in recordings]
    cut = len(names) * 2 // 3
    return write_store(
        folder / "toy.h5",
        recordings,
        skeleton=CHAIN,
        splits=splits or {"train": names[:cut], "test": names[cut:]},
        class_names=list(NAMES[:classes]),
    )


def toy_data(store: Store, **options: Any) -> SkeletonDataModule:
    splits = {"train_split": "train", "test_split": "test"}
    sizes = {"frames": 4, "persons": 2, "batch_size": 5, "val_fraction": 0.25}
    return SkeletonDataModule(str(store.path), **{**splits, **sizes, **options})


class Coordinates(Backbone):
    """The joints as they are: what a probe can do is known."""

    stride = 1
    dim = 3

    def forward(self, x: Any, *, mask: Any = None, with_importance: bool = False) -> Features:
        return Features(x)


class Noisy(Backbone):
    """With all that a frozen backbone must not let through: BatchNorm and dropout."""

    stride = 1
    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(3, self.dim), nn.BatchNorm1d(self.dim)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Any, *, mask: Any = None, with_importance: bool = False) -> Features:
        rows = self.norm(self.embed(x).flatten(0, 2)).unflatten(0, x.shape[:3])
        return Features(self.dropout(rows))


def shared(**optim: Any) -> dict[str, Any]:
    """What every method is given."""
    same = {"augment": nn.Identity(), "preprocess": nn.Identity(), "skeleton": CHAIN}
    return {**same, "optim": Optim(**{"lr": 0.1, "warmup_epochs": 0, **optim})}


def trainer(epochs: int = 2, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **{**quiet, **options},
    )


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


class Recorder(L.LightningModule):
    """Remembers the epoch, number, clips and frames of every batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, index):
        clips = batch["index"].tolist(), batch["frame"].tolist()
        self.seen.append((self.current_epoch, index, *clips))
        return self.weight.sum()

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        self.trainer.estimated_stepping_batches  # noqa: B018  # makes the loaders, as ours do
        return torch.optim.SGD(self.parameters(), lr=0.1)
