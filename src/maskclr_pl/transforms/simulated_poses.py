"""From 3D clips to what a pose estimator would have made of them (MotionBERT's pre-training).

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

_NEAR, _FAR, _BIAS, _SPREAD = 0.028, 1.1, -0.00459, 0.1431
"""Published fit of an estimator's confidence to the distance d of a point from the truth:
near / (d + near) + far * d, plus Gaussian noise of this mean and standard deviation."""


class CropScale3D(nn.Module):
    """Centred 3D clips (metres, y up) to the units of 2D clips, z along with x and y (y down).

    With side S = max(width, height) / ratio of the box over all persons, frames and joints that are
    there, x' = 2 (x - centre) / S, y' = -2 (y - centre) / S, z' = 2 z / S. Published z is shifted
    by -1, which root-relative targets do not see. Fewer than four joints give an empty clip.

    Args:
        ratio: Range, in (0, 1], of the part of [-1, 1] that the box fills; published: [0.25, 1].
    """

    def __init__(self, ratio: Sequence[float] = (0.25, 1.0)):
        super().__init__()
        self.ratio = (ratio[0], ratio[1])

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The cropped clip."""
        channels = planes(clip)
        there = visible_weight(channels).flatten(-3)
        x, y, z = channels = channels.flatten(-3)
        centre, extent = bounding_box(channels[:2], there)
        factor = torch.where(extent > 0, 2 * uniform(clip, *self.ratio) / extent, 0.0)
        centre, factor = centre.unsqueeze(-1), factor.unsqueeze(-1)
        out = torch.stack((x - centre[0], centre[1] - y, z)) * (factor * there)
        return join(out.unflatten(-1, clip.shape[-4:-1]))


class Mirror(nn.Module):
    """A clip as seen in a mirror: left and right joints exchanged, x negated.

    Args:
        pairs: (left, right) joint indices.
        p: Probability per clip; published: 0.5.
    """

    def __init__(self, pairs: Sequence[Sequence[int]], p: float = 0.5):
        super().__init__()
        self.p = p
        self.exchange = SpatialFlip(pairs)

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The clip, mirrored or not."""
        which = bernoulli(clip, self.p)
        x, y, z = planes(self.exchange.flip(clip, which))
        return join((torch.where(which[..., None, None, None], -x, x), y, z))


def project(clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
    """Orthographic projection: (x, y, z) to (x, y, confidence), 1 for joints that are there."""
    channels = planes(clip)
    return join((channels[0], channels[1], visible_weight(channels)))


class Project(nn.Module):
    """`project` as a transform: what a backbone that learnt to lift is shown of 3D clips."""

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The projected clip."""
        return project(clip)


class PoseNoise(nn.Module):
    """Errors of a pose estimator, slow and fast, and the confidences that it would report.

    At key frames evenly spread over the clip each joint is displaced by Gaussian noise or, with
    probability 1 - `weight`, by up to `wide` / 2 along each axis; in between the displacement
    changes linearly. A Gaussian jitter of every frame comes on top, which the confidence does not
    know of. A joint whose confidence falls to 0 is missing.

    Args:
        std: Of the Gaussian, in image units. Published: one for each of the 17 joints, 0.0034 to
            0.0095 (the list itself is in a file of MotionBERT's); the default is ours.
        weight: Probability of the Gaussian; published likewise, 0.70 to 1.00.
        wide: Width of the uniform displacement.
        key_frames: Number of key frames.
        jitter: Standard deviation of the jitter.
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
        """The noisy clip (x, y, confidence)."""
        channels = planes(clip)
        shift = self.displacement(channels[:2])
        score = self.confidence(shift.norm(dim=0))
        moved = channels[:2] + shift + self.jitter * normal_like(shift, 1)
        known = channels[2].sign() * score.sign()
        return join(torch.cat((moved, score.unsqueeze(0))) * known)

    def displacement(self, like: Float[Tensor, "2 *batch T V"]) -> Float[Tensor, "2 *batch T V"]:
        """The slow part of the noise."""
        *lead, frames, joints = like.shape
        keys = like.new_empty(*lead, joints, self.key_frames)
        narrow = normal_like(keys, 1) * self.std
        wide = (uniform_like(keys, 1) - 0.5) * self.wide
        noise = torch.where(uniform_like(keys[0], 0) < self.weight, narrow, wide)
        noise = F.interpolate(noise.flatten(0, -3), frames, mode="linear", align_corners=True).view(
            *lead, joints, frames
        )
        return noise.transpose(-1, -2)

    @staticmethod
    def confidence(distance: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Confidence in [0, 1] of points that far from the truth."""
        fit = _NEAR / (distance + _NEAR) + _FAR * distance
        return (fit + _BIAS + _SPREAD * normal_like(distance, 0)).clamp(0, 1)


class DropJoints(nn.Module):
    """Joints lost at random, one by one and in whole frames.

    The released code loses the same frames in every clip of a batch; here each clip has its own.

    Args:
        joint_p: Probability for each joint in each frame; published: 0.05.
        frame_p: Probability for each frame, of all persons; published: 0.1.
    """

    def __init__(self, joint_p: float = 0.05, frame_p: float = 0.1):
        super().__init__()
        self.joint_p, self.frame_p = joint_p, frame_p

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The clip with zeros where something is lost."""
        channels = planes(clip)
        kept = uniform_like(channels[0], 0) >= self.joint_p
        frames = uniform(clip, 0, 1, 1, clip.shape[-3], 1) >= self.frame_p
        return join(channels * (kept & frames))
