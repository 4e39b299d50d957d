"""Random masks, independent of the clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from maskclr_pl.distributed import draw_for_persons
from maskclr_pl.masking.base import PooledMasking, sample_mask


def uniform(shape: Sequence[int], device: torch.device, generator: Generator | None) -> Tensor:
    """Draw uniform numbers in [0, 1) for the sequences of the first axis."""
    return draw_for_persons(shape, device, lambda x, g: x.uniform_(generator=g), generator)


@dataclass(frozen=True)
class RandomMasking(PooledMasking):
    """Mask items uniformly at random: the control for guided strategies.

    Args:
        ratio: See `PooledMasking`, likewise `scope` and `tube_length`.
        scope: `clip`, `frame` or `tube`.
        tube_length: Steps per tube with scope=tube.

    Example:
        >>> masking = RandomMasking(ratio=0.5, scope="tube")  # the same joints in all frames
        >>> mask = masking(torch.rand(1, 8, 4, 3), None, stride=1)
        >>> mask.sum((1, 2)), bool((mask == mask[:, :1]).all())
        (tensor([16]), True)
    """

    uses_importance: ClassVar[bool] = False

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"] | None,
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """See `Masking`."""
        draws = uniform(x.shape[:3], x.device, generator)
        # means of uniform draws are exchangeable, so that their order is uniform as well
        pools = self.to_pools(draws, stride)
        mask = sample_mask(pools, round(self.ratio * pools.shape[-1]))
        return self.to_tokens(mask, x.shape[1] // stride, x.shape[2])


@dataclass(frozen=True)
class FrameJointMasking:
    """SkeletonMAE's masking: whole frames, then joints of the remaining frames.

    Wu et al., "SkeletonMAE: Spatial-Temporal Masked Autoencoders for Self-supervised Skeleton
    Action Recognition", 2023. Both draws are uniform, with new joints for each frame. If tokens
    span several frames, a frame is a token step.

    Args:
        ratio: Share of the joints to mask in the remaining frames.
        frame_ratio: Share of the frames to mask.

    Raises:
        ValueError: If a ratio is out of range.

    Example:
        >>> masking = FrameJointMasking(ratio=0.5, frame_ratio=0.4)
        >>> masking(torch.rand(1, 10, 4, 3), None, stride=1).sum()  # 4 frames, 2 joints in 6 others
        tensor(28)
    """

    ratio: float = 0.5
    frame_ratio: float = 0.4
    uses_importance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1 or not 0 <= self.frame_ratio <= 1:
            raise ValueError(
                f"masking ratio and frame_ratio must be in [0, 1], "
                f"got {self.ratio} and {self.frame_ratio}"
            )

    def __call__(
        self,
        x: Float[Tensor, "N T V C"],
        importance: Float[Tensor, "N T V"] | None,
        stride: int,
        generator: Generator | None = None,
    ) -> Bool[Tensor, "N S V"]:
        """See `Masking`."""
        steps, joints = x.shape[1] // stride, x.shape[2]
        draws = uniform((len(x), steps, joints + 1), x.device, generator)
        frames = sample_mask(draws[..., 0], round(self.frame_ratio * steps))
        return frames.unsqueeze(-1) | sample_mask(draws[..., 1:], round(self.ratio * joints))

    def num_masked(self, steps: int, joints: int) -> int:
        """See `Masking`."""
        frames = round(self.frame_ratio * steps)
        return frames * joints + (steps - frames) * round(self.ratio * joints)
