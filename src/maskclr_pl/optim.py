"""Optimizer, learning rate schedule and parameter groups."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from maskclr_pl.backbones.base import Backbone

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "exponential", "step", "constant"]
Decay = Literal["matrices", "tensors", "all"]


@dataclass(frozen=True)
class Optim:
    """AdamW or SGD with a learning rate that changes at every step.

    Args:
        lr: Learning rate of everything but the backbone.
        backbone_lr: Learning rate of the backbone; by default `lr`.
        optimizer: `adamw` or `sgd`.
        betas: Of AdamW.
        momentum: Of SGD.
        nesterov: Use Nesterov momentum with SGD.
        weight_decay: Decoupled for AdamW, added to the gradient for SGD.
        decay: Decayed parameters: `matrices` (no norms, biases, embeddings), `tensors` (no norms
            and biases, as MAMP), or `all` (as MotionBERT, MaskCLR and STTFormer).
        layer_decay: Learning rate of each backbone layer relative to the layer above it (BEiT; MAMP
            fine-tunes with 0.8).
        warmup_epochs: Epochs of linear warm-up.
        schedule: After the warm-up: `cosine` to `min_lr`, `exponential` by `gamma` per epoch
            (MotionBERT: 0.99), `step` by `gamma` at `milestones`, or `constant`.
        gamma: See `schedule`.
        milestones: Epochs, see `schedule`.
        min_lr: End of the cosine, relative to the start value.

    Raises:
        ValueError: If a choice is unknown.
    """

    lr: float = 1e-3
    backbone_lr: float | None = None
    optimizer: Optimizer = "adamw"
    betas: Sequence[float] = (0.9, 0.999)
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.01
    decay: Decay = "matrices"
    layer_decay: float = 1.0
    warmup_epochs: float = 0.0
    schedule: Schedule = "cosine"
    gamma: float = 0.99
    milestones: Sequence[int] = ()
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        for key, choices in (("schedule", Schedule), ("optimizer", Optimizer), ("decay", Decay)):
            if getattr(self, key) not in get_args(choices):
                raise ValueError(
                    f"{key} must be one of {', '.join(get_args(choices))}, "
                    f"got {getattr(self, key)!r}"
                )

    def build(
        self,
        backbone: nn.Module,
        others: Iterable[nn.Module],
        steps: int,
        per_epoch: int,
        fused: bool = True,
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Build the optimizer and a scheduler to step after every batch.

        Args:
            backbone: Trained at `backbone_lr`; a `Backbone` if `layer_decay` is not 1.
            others: Trained at `lr`.
            steps: Steps of the whole training.
            per_epoch: Steps per epoch.
            fused: One kernel for the whole step. It unscales gradients itself, so that Lightning
                cannot clip them under mixed precision.
        """
        groups = self._groups(backbone, others)
        one_kernel = fused or None  # None: torch chooses an implementation
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
        """Group parameters that share learning rate and weight decay."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        scale = self._layer_scales(backbone)
        backbone_lr = self.lr if self.backbone_lr is None else self.backbone_lr
        for name, parameter in backbone.named_parameters():
            groups[backbone_lr * scale[name], self._decay(name, parameter)].append(parameter)
        for module in others:
            for name, parameter in module.named_parameters():
                groups[self.lr, self._decay(name, parameter)].append(parameter)
        return [
            {"params": trainable, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
            if (trainable := [p for p in parameters if p.requires_grad])
        ]

    def _layer_scales(self, backbone: nn.Module) -> dict[str, float]:
        """Learning rate of each backbone parameter relative to the top of the backbone."""
        names = [name for name, _ in backbone.named_parameters()]
        if self.layer_decay == 1 or not isinstance(backbone, Backbone):
            return dict.fromkeys(names, 1.0)
        layers = {name: backbone.layer_index(name) for name in names}
        top = max((layer for layer in layers.values() if layer is not None), default=0) + 1
        return {
            name: 1.0 if layer is None else self.layer_decay ** (top - layer)
            for name, layer in layers.items()
        }

    def _decay(self, name: str, parameter: nn.Parameter) -> float:
        matrix = parameter.ndim > 1
        embedding = name.endswith(("_embed", "_token"))
        decayed = {"all": True, "tensors": matrix, "matrices": matrix and not embedding}
        return self.weight_decay if decayed[self.decay] else 0.0

    def notes(self, epochs: int) -> list[str]:
        """List parts of the schedule that lie beyond the end of a training of `epochs` epochs."""
        notes = []
        if self.warmup_epochs >= epochs:
            notes.append(
                f"optim.warmup_epochs={self.warmup_epochs:g} of {epochs} epochs: the learning rate "
                f"rises until the end and never reaches optim.lr={self.lr:g}"
            )
        beyond = [milestone for milestone in self.milestones if milestone >= epochs]
        if self.schedule == "step" and beyond:
            notes.append(
                f"optim.milestones={list(self.milestones)}: the training has {epochs} epochs, so "
                f"that the learning rate is not cut at {', '.join(map(str, beyond))}"
            )
        return notes

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        """Return the learning rate at a step, relative to its start value."""
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
