"""Optimiser, schedule and parameter groups as one object."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Optim:
    """AdamW with a learning rate that changes at every step.

    Args:
        lr: Learning rate of everything but the backbone.
        backbone_lr: Of the backbone; by default `lr`.
        weight_decay: Decoupled weight decay.
        decay_all: Also decay norms, biases and embeddings, as the released MotionBERT and MaskCLR
            code does.
        warmup_epochs: Epochs of linear warm-up.
        schedule: After the warm-up: `cosine` to 0, `exponential` by `gamma` per epoch
            (MotionBERT: 0.99), or `constant`.
        gamma: See `schedule`.

    Raises:
        ValueError: If the schedule is unknown.
    """

    lr: float = 1e-3
    backbone_lr: float | None = None
    weight_decay: float = 0.01
    decay_all: bool = False
    warmup_epochs: float = 0.0
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    gamma: float = 0.99

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "exponential", "constant"):
            raise ValueError(
                f"schedule must be cosine, exponential or constant, got {self.schedule!r}"
            )

    def build(
        self, backbone: nn.Module, others: Iterable[nn.Module], steps: int, epochs: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimiser and a scheduler to step after every batch.

        Args:
            backbone: Trained at `backbone_lr`.
            others: Trained at `lr`.
            steps: Steps of the whole training.
            epochs: Epochs of the whole training.
        """
        groups = []
        backbone_lr = self.lr if self.backbone_lr is None else self.backbone_lr
        for rate, modules in ((backbone_lr, [backbone]), (self.lr, list(others))):
            trained = [p for module in modules for p in module.named_parameters()]
            trained = [(name, p) for name, p in trained if p.requires_grad]
            for decayed in (True, False):
                chosen = [p for name, p in trained if self._decays(name, p) == decayed]
                if chosen:
                    decay = self.weight_decay if decayed else 0.0
                    groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
        optimizer = torch.optim.AdamW(groups)
        per_epoch = max(1, steps // max(1, epochs))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.factor(step, steps, per_epoch)
        )
        return optimizer, schedule

    def _decays(self, name: str, parameter: nn.Parameter) -> bool:
        if self.decay_all:
            return True
        return parameter.ndim > 1 and not name.endswith(("_embed", "_token"))

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        """The learning rate at a step, relative to its start value."""
        warmup = min(self.warmup_epochs * per_epoch, steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
        if self.schedule == "exponential":
            return self.gamma ** (step // per_epoch)
        return 1.0
