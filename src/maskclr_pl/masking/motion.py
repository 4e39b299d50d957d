"""Motion-aware masks (MAMP)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from maskclr_pl.masking.base import draw_mask, relative_to_max
from maskclr_pl.visibility import visible_joints


@dataclass(frozen=True)
class MotionAwareMasking:
    """Motion-aware masking: moving joints are more likely to be masked.

    Mao et al., "Masked Motion Predictors are Strong 3D Action Representation Learners", ICCV 2023,
    section 3.2. The motion of a token is the mean absolute difference between its patch of
    coordinates and that of the joint one step before; the first step copies the second. Tokens are
    drawn without replacement from softmax(motion / (temperature * max motion)).

    The released code keeps int(L (1 - ratio)) of L tokens, which rounds down by one in floating
    point (74 of 750 at 0.9); here round(ratio * L) are masked.

    Args:
        ratio: Share of the tokens of a sequence to mask.
        temperature: > 0; small nearly always masks the fastest joints, large is nearly uniform.
            Published: 0.8 for NTU RGB+D 60 and PKU-MMD, 0.75 for NTU RGB+D 120.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> mask = MotionAwareMasking(ratio=0.9)(torch.rand(2, 8, 25, 3), None, stride=4)
        >>> mask.shape, mask.sum((1, 2))
        (torch.Size([2, 2, 25]), tensor([45, 45]))
    """

    ratio: float = 0.9
    temperature: float = 0.8
    uses_importance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1 or not self.temperature > 0:
            raise ValueError(
                f"masking needs a ratio in [0, 1] and a positive temperature, "
                f"got {self.ratio} and {self.temperature}"
            )

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"] | None,
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """See `Masking`; `x` holds coordinates without confidence."""
        steps, joints = x.shape[1] // stride, x.shape[2]
        mask = draw_mask(self.logits(x, stride), self.num_masked(steps, joints), generator)
        return mask.view(-1, steps, joints)

    def num_masked(self, steps: int, joints: int) -> int:
        """See `Masking`."""
        return round(self.ratio * steps * joints)

    def logits(self, x: Float[Tensor, "N T V C"], stride: int) -> Float[Tensor, "N L"]:
        """Compute unnormalized log-probabilities of the L = S * V tokens, step by step."""
        return relative_to_max(self.motion(x, stride).flatten(1), self.temperature)

    @staticmethod
    def motion(x: Float[Tensor, "N T V C"], stride: int) -> Float[Tensor, "N S V"]:
        """Compute the mean absolute difference of each patch to the previous one, in units of `x`.

        A joint that is missing (zeros) in either frame counts as not moving.
        """
        x = x.float()
        visible = visible_joints(x)
        both = visible[:, stride:] & visible[:, :-stride]
        motion = (x[:, stride:] - x[:, :-stride]).abs().mean(-1) * both
        motion = motion.unflatten(1, (-1, stride)).mean(2)  # (N, S - 1, V)
        if not motion.shape[1]:
            return x.new_zeros(len(x), 1, x.shape[2])
        return torch.cat((motion[:, :1], motion), dim=1)
