"""Optimiser, schedule and parameter groups as one object."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Optim:
    """AdamW or SGD with a learning rate that changes at every step.

    Args:
        lr: Learning rate of everything but the backbone.
        backbone_lr: Of the backbone; by default `lr`.
        optimizer: `adamw` or `sgd`.
        betas: Of AdamW.
        momentum: Of SGD.
        nesterov: Whether the momentum of SGD is Nesterov's.
        weight_decay: Decoupled for AdamW, added to the gradient for SGD.
        decay: What is decayed: `matrices` (no norms, biases, embeddings), `tensors` (no norms and
            biases, as MAMP does), or `all` (as MotionBERT, MaskCLR and STTFormer do).
        layer_decay: Each layer of the backbone learns at this fraction of the rate of the layer
            above it (BEiT; MAMP fine-tunes with 0.8).
        warmup_epochs: Epochs of linear warm-up.
        schedule: After the warm-up: `cosine` to `min_lr`, `exponential` by `gamma` per epoch
            (MotionBERT: 0.99), `step` by `gamma` at `milestones`, or `constant`.
        gamma: See `schedule`.
        milestones: Epochs, see `schedule`.
        min_lr: Where the cosine ends, as a share of the start value.

    Raises:
        ValueError: If a choice is unknown.
    """

    lr: float = 1e-3
    backbone_lr: float | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: Sequence[float] = (0.9, 0.999)
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.01
    decay: Literal["matrices", "tensors", "all"] = "matrices"
    layer_decay: float = 1.0
    warmup_epochs: float = 0.0
    schedule: Literal["cosine", "exponential", "step", "constant"] = "cosine"
    gamma: float = 0.99
    milestones: Sequence[int] = ()
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        for key, known in (
            ("schedule", ("cosine", "exponential", "step", "constant")),
            ("optimizer", ("adamw", "sgd")),
            ("decay", ("matrices", "tensors", "all")),
        ):
            if getattr(self, key) not in known:
                raise ValueError(
                    f"{key} must be one of {', '.join(known)}, got {getattr(self, key)!r}"
                )

    def build(
        self,
        backbone: nn.Module,
        others: Iterable[nn.Module],
        steps: int,
        per_epoch: int,
        fused: bool = True,
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimiser and a scheduler to step after every batch.

        Args:
            backbone: Trained at `backbone_lr`.
            others: Trained at `lr`.
            steps: Steps of the whole training.
            per_epoch: Steps of an epoch.
            fused: One kernel for the whole step. It unscales gradients itself, so that Lightning
                cannot clip them under mixed precision.
        """
        groups = self._groups(backbone, others)
        one_kernel = fused or None  # None: torch chooses among the others
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                groups,
                lr=self.lr,
                momentum=self.momentum,
                nesterov=self.nesterov,
                fused=one_kernel,
            )
        else:
            optimizer = torch.optim.AdamW(
                groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), fused=one_kernel
            )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.factor(step, steps, per_epoch)
        )
        return optimizer, schedule

    def _groups(self, backbone: nn.Module, others: Iterable[nn.Module]) -> list[dict[str, Any]]:
        """Parameters that share learning rate and weight decay."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        backbone_lr = self.lr if self.backbone_lr is None else self.backbone_lr
        names = [name for name, _ in backbone.named_parameters()]
        top = max((layer_of(name, 0) for name in names), default=0) + 1
        for name, parameter in backbone.named_parameters():
            rate = backbone_lr * self.layer_decay ** (top - layer_of(name, top))
            groups[rate, self._decay(name, parameter)].append(parameter)
        for module in others:
            for name, parameter in module.named_parameters():
                groups[self.lr, self._decay(name, parameter)].append(parameter)
        return [
            {"params": trained, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
            if (trained := [one for one in parameters if one.requires_grad])
        ]

    def _decay(self, name: str, parameter: nn.Parameter) -> float:
        embedding = name.endswith(("_embed", "_token"))
        matrix = parameter.ndim > 1
        decayed = {
            "all": True,
            "tensors": matrix,
            "matrices": matrix and not embedding,
        }[self.decay]
        return self.weight_decay if decayed else 0.0

    def notes(self, epochs: int) -> list[str]:
        """Parts of the schedule that lie beyond the end of the training, a line each.

        Args:
            epochs: Of the training.
        """
        notes = []
        if self.warmup_epochs >= epochs:
            notes.append(
                f"optim.warmup_epochs={self.warmup_epochs:g} of {epochs} epochs: the learning rate "
                f"rises to the end and never reaches optim.lr={self.lr:g}"
            )
        beyond = [milestone for milestone in self.milestones if milestone >= epochs]
        if self.schedule == "step" and beyond:
            notes.append(
                f"optim.milestones={list(self.milestones)}: the training has {epochs} epochs, so "
                f"that the learning rate is not cut at {', '.join(map(str, beyond))}"
            )
        return notes

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        """The learning rate at a step, relative to its start value."""
        warmup = min(self.warmup_epochs * per_epoch, steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.schedule == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
            return self.min_lr + (1 - self.min_lr) * share
        if self.schedule == "exponential":
            return self.gamma ** (step // per_epoch)
        if self.schedule == "step":
            passed = sum(step // per_epoch >= milestone for milestone in self.milestones)
            return self.gamma**passed
        return 1.0


def layer_of(name: str, above: int) -> int:
    """Layer of a backbone's parameter: 0 for embeddings, i + 1 for block i, else `above`."""
    block = re.match(r"(?:blocks\w*|ts_attn)\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    embeds = ("joints_embed", "input_map", "pos_embed", "temp_embed", "mask_token")
    return 0 if name.startswith(embeds) else above
