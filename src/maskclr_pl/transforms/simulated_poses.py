"""Simulated pose estimates from 3D clips, for MotionBERT's pre-training.

Zhu et al., "MotionBERT: A Unified Perspective on Learning Human Motion Representations", ICCV 2023,
section 3.3 and the released code.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.transforms.augment2d import bounding_box
from maskclr_pl.transforms.augment3d import SpatialFlip
from maskclr_pl.transforms.base import (
    bernoulli,
    join,
    normal_like,
    planes,
    uniform,
    uniform_like,
    visible_weight,
)

_NEAR, _FAR, _BIAS, _STD = 0.028, 1.1, -0.00459, 0.1431
"""Published fit of a detector's confidence to the distance d of a point from the truth:
near / (d + near) + far * d, plus Gaussian noise of this mean and standard deviation."""


class CropScale3D(nn.Module):
    """Scale centered 3D clips (meters, y up) to the units of 2D clips (y down), z along with x, y.

    With side S = max(width, height) / ratio of the box over all persons, frames and visible joints,
    x' = 2 (x - center) / S, y' = -2 (y - center) / S, z' = 2 z / S. Published z is shifted by -1,
    which root-relative targets do not see. Fewer than four joints give an empty clip.

    Args:
        ratio: Range, in (0, 1], of the part of [-1, 1] that the box fills; published: [0.25, 1].

    Example:
        >>> CropScale3D(ratio=(0.25, 1.0))(torch.randn(8, 2, 50, 17, 3))[..., :2].abs().max() < 1.01
        tensor(True)
    """

    def __init__(self, ratio: Sequence[float] = (0.25, 1.0)):
        super().__init__()
        self.ratio = (ratio[0], ratio[1])

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the scaled clip."""
        channels = planes(clip)
        visible = visible_weight(channels).flatten(-3)  # (*batch, M * T * V)
        x, y, z = channels = channels.flatten(-3)
        center, extent = bounding_box(channels[:2], visible)
        factor = torch.where(extent > 0, 2 * uniform(clip, *self.ratio) / extent, 0.0)
        center, factor = center.unsqueeze(-1), factor.unsqueeze(-1)
        out = torch.stack((x - center[0], center[1] - y, z)) * (factor * visible)
        return join(out.unflatten(-1, clip.shape[-4:-1]))


class Mirror(nn.Module):
    """Mirror a clip: swap left and right joints, negate x.

    Args:
        pairs: (left, right) joint indices.
        p: Probability per clip; published: 0.5.

    Example:
        >>> clip = torch.randn(8, 2, 50, 17, 3)
        >>> torch.equal(Mirror(pairs=[(4, 1)], p=1.0)(clip)[..., 4, 0], -clip[..., 1, 0])
        True
    """

    def __init__(self, pairs: Sequence[Sequence[int]], p: float = 0.5):
        super().__init__()
        self.p = p
        self.exchange = SpatialFlip(pairs)

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the clip, mirrored or not."""
        selected = bernoulli(clip, self.p)
        x, y, z = planes(self.exchange.flip(clip, selected))
        return join((torch.where(selected[..., None, None, None], -x, x), y, z))


def project(clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
    """Project (x, y, z) orthographically to (x, y, confidence), 1 for visible joints.

    Example:
        >>> project(torch.tensor([[[[0.5, 0.2, 3.0], [0.0, 0.0, 0.0]]]]))
        tensor([[[[0.5000, 0.2000, 1.0000],
                  [0.0000, 0.0000, 0.0000]]]])
    """
    channels = planes(clip)
    return join((channels[0], channels[1], visible_weight(channels)))


class Project(nn.Module):
    """`project` as a transform, for 3D clips and a backbone that was trained to lift 2D poses.

    Example:
        >>> Project()(torch.randn(8, 2, 50, 17, 3))[..., 2].unique()
        tensor([1.])
    """

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the projected clip."""
        return project(clip)


class PoseNoise(nn.Module):
    """Simulate slow and fast errors of a pose estimator, and the confidences it would report.

    At key frames evenly spread over the clip each joint is displaced by Gaussian noise or, with
    probability 1 - `weight`, by up to `wide` / 2 along each axis; in between the displacement
    changes linearly. Gaussian jitter is added to every frame and does not lower the confidence. A
    joint whose confidence falls to 0 is missing.

    Args:
        std: Standard deviation of the Gaussian in image units. Published: one for each of the 17
            joints, 0.0034 to 0.0095 (the list itself is in a file of MotionBERT's); the default is
            ours.
        weight: Probability of the Gaussian; published: one per joint, 0.70 to 1.00.
        wide: Width of the uniform displacement.
        key_frames: Number of key frames.
        jitter: Standard deviation of the jitter.

    Example:
        >>> clip = project(torch.randn(8, 2, 50, 17, 3))
        >>> PoseNoise(std=0.01)(clip)[..., 2].mean() < clip[..., 2].mean()
        tensor(True)
    """

    def __init__(
        self,
        std: float = 0.0065,
        weight: float = 0.85,
        wide: float = 0.06,
        key_frames: int = 27,
        jitter: float = 0.002,
    ):
        super().__init__()
        self.std, self.weight, self.wide = std, weight, wide
        self.key_frames, self.jitter = key_frames, jitter

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the noisy clip (x, y, confidence)."""
        channels = planes(clip)
        shift = self.displacement(channels[:2])
        score = self.confidence(shift.norm(dim=0))
        points = channels[:2] + shift + self.jitter * normal_like(shift, 1)
        visible = channels[2].sign() * score.sign()
        return join(torch.cat((points, score.unsqueeze(0))) * visible)

    def displacement(self, like: Float[Tensor, "2 *batch T V"]) -> Float[Tensor, "2 *batch T V"]:
        """Draw the slow part of the noise."""
        *batch, frames, joints = like.shape
        keys = like.new_empty(*batch, joints, self.key_frames)
        narrow = normal_like(keys, 1) * self.std
        wide = (uniform_like(keys, 1) - 0.5) * self.wide
        noise = torch.where(uniform_like(keys[0], 0) < self.weight, narrow, wide)
        noise = noise.flatten(0, -3)  # (2 * batch, V, key frames)
        noise = F.interpolate(noise, frames, mode="linear", align_corners=True)
        return noise.view(*batch, joints, frames).transpose(-1, -2)

    @staticmethod
    def confidence(distance: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Draw the confidence, in [0, 1], of points at a distance from the truth."""
        fit = _NEAR / (distance + _NEAR) + _FAR * distance
        return (fit + _BIAS + _STD * normal_like(distance, 0)).clamp(0, 1)


class DropJoints(nn.Module):
    """Drop joints at random, one by one and in whole frames.

    The released code drops the same frames in every clip of a batch; here each clip has its own.

    Args:
        joint_p: Probability for each joint in each frame; published: 0.05.
        frame_p: Probability for each frame, of all persons; published: 0.1.

    Example:
        >>> DropJoints(joint_p=1.0)(torch.rand(8, 2, 50, 17, 3)).any()
        tensor(False)
    """

    def __init__(self, joint_p: float = 0.05, frame_p: float = 0.1):
        super().__init__()
        self.joint_p, self.frame_p = joint_p, frame_p

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the clip with zeros for dropped joints."""
        channels = planes(clip)
        keep_joint = uniform_like(channels[0], 0) >= self.joint_p
        keep_frame = uniform(clip, 0, 1, 1, clip.shape[-3], 1) >= self.frame_p
        return join(channels * (keep_joint & keep_frame))
