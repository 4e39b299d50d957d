"""The worst that joints within reach can do: perturbations along the gradient, as a control.

Projected gradient descent of Madry et al., "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018, section 2.1: steps along the sign of the gradient of the cross-entropy, each
followed by a projection on the box of half-width `level` around the clip. Unlike noise it knows the
model: no disturbance of the same size is expected to do more harm. Every joint of every person in
every frame of the clip moves freely, so it is not a thing that an estimator would do.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskclr_pl.robustness.corruptions import Poses
from maskclr_pl.robustness.corruptions.noise import bounds
from maskclr_pl.types import Batch, InputError

Predict = Callable[[Float[Tensor, "B M T V C"], Batch], Float[Tensor, "B K"]]
"""Clips as the data module delivers them (maybe corrupted) and their batch to logits."""


@dataclass(frozen=True)
class Adversarial:
    """Moves the coordinates of visible joints so that the loss of the true class grows.

    Starts from the clip itself, so nothing is random. Of the points on the way, each clip keeps the
    one with the largest loss.

    Args:
        levels: Largest change of a coordinate (L-infinity), in half image widths or metres.
        steps: Gradient steps, each of 2.5 level / steps.

    Raises:
        InputError: If the levels are not above 0 and ascending, or there is no step.
    """

    levels: Sequence[float] = ()
    steps: int = 10
    name: ClassVar[str] = "adversarial"

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in itertools.pairwise((0.0, *self.levels, math.inf)))
        if self.steps < 1 or not rising:
            raise InputError(
                f"adversarial={list(self.levels)} with {self.steps} steps: expected ascending "
                "reaches above 0, and a step"
            )

    def __call__(
        self, predict: Predict, batch: Batch, level: float, poses: Poses
    ) -> Float[Tensor, "B M T V 3"]:
        """The perturbed clips; level 0 gives the clips themselves.

        Args:
            predict: The model, in eval mode.
            batch: Clips and their labels.
            level: Largest change of a coordinate.
            poses: What the clips consist of.
        """
        clip, label = batch["clip"], batch["label"]
        others = clip[..., poses.coordinates :]
        low, high = bounds(clip, level, poses)
        points = worst = clip[..., : poses.coordinates]
        largest = torch.full(label.shape, -math.inf, device=clip.device)
        for step in range(self.steps + 1):
            with torch.enable_grad():
                points = points.detach().requires_grad_()
                logits = predict(torch.cat((points, others), dim=-1), batch).float()
                losses = F.cross_entropy(logits, label, reduction="none")
            larger = (losses > largest)[:, None, None, None, None]
            worst = torch.where(larger, points.detach(), worst)
            largest = torch.maximum(largest, losses.detach())
            if step < self.steps:
                (slope,) = torch.autograd.grad(losses, points, torch.ones_like(losses))
                # where two joints meet, a step of the model may have no gradient
                along = slope.nan_to_num().sign()
                points = (points.detach() + 2.5 * level / self.steps * along).clamp(low, high)
        return torch.cat((worst, others), dim=-1)


NO_ATTACK = Adversarial()
