"""Adversarial perturbations of joints: the strongest disturbance of a given size, as a control.

Projected gradient descent (PGD) of Madry et al., "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018, section 2.1: steps along the sign of the gradient of the
cross-entropy, each projected onto the box of half-width `level` around the clip. Unlike noise it
uses the weights of the model, so noise of the same size is expected to do less harm. Every joint of
every person moves freely in every frame, which no pose estimator would do.
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
from maskclr_pl.robustness.corruptions.noise import coordinate_bounds
from maskclr_pl.types import Batch, InputError

Predict = Callable[[Float[Tensor, "B M T V C"], Batch], Float[Tensor, "B K"]]
"""Model function: (corrupted) clips and their batch -> logits."""


@dataclass(frozen=True)
class Adversarial:
    """Moves visible joints such that the loss of the true class grows (PGD).

    Starts at the clip itself, so nothing is random. The step with the largest loss of each clip is
    used.

    Args:
        levels: Largest changes of a coordinate (L-infinity), in half image widths or meters.
        steps: Number of gradient steps, each of size 2.5 level / steps.

    Raises:
        InputError: If levels are not finite, ascending and above 0, or `steps` is below 1.
    """

    levels: Sequence[float] = ()
    steps: int = 10
    name: ClassVar[str] = "adversarial"

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in itertools.pairwise((0.0, *self.levels, math.inf)))
        if self.steps < 1 or not ascending:
            raise InputError(
                f"adversarial={list(self.levels)} with {self.steps} steps: expected ascending "
                "levels above 0 and at least one step"
            )

    def __call__(
        self, predict: Predict, batch: Batch, level: float, poses: Poses
    ) -> Float[Tensor, "B M T V 3"]:
        """Perturb clips; level 0 returns them unchanged.

        Args:
            predict: The model in eval mode.
            batch: Clips and their labels.
            level: Largest change of a coordinate.
            poses: Format of the poses.
        """
        clip, label = batch["clip"], batch["label"]
        confidence = clip[..., poses.coordinates :]
        low, high = coordinate_bounds(clip, level, poses)
        points = worst_points = clip[..., : poses.coordinates]
        largest_loss = torch.full(label.shape, -math.inf, device=clip.device)
        for step in range(self.steps + 1):
            with torch.enable_grad():
                points = points.detach().requires_grad_()
                logits = predict(torch.cat((points, confidence), dim=-1), batch).float()
                losses = F.cross_entropy(logits, label, reduction="none")
            larger = (losses > largest_loss)[:, None, None, None, None]
            worst_points = torch.where(larger, points.detach(), worst_points)
            largest_loss = torch.maximum(largest_loss, losses.detach())
            if step < self.steps:
                (gradient,) = torch.autograd.grad(losses, points, torch.ones_like(losses))
                # models may have no gradient where two joints coincide
                direction = gradient.nan_to_num().sign()
                points = points.detach() + 2.5 * level / self.steps * direction
                points = points.clamp(low, high)
        return torch.cat((worst_points, confidence), dim=-1)


NO_ATTACK = Adversarial()
