"""Published augmentation of 3D skeletons (MAMP, STTFormer, AimCLR), batched.

A zero triple is a joint that is missing, before and after; clips are centred (`Center`), so that
rotation and shear act about the body. All persons and frames of a clip share its draw.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskclr_pl.transforms.base import (
    bernoulli,
    check_joints,
    join,
    normal_like,
    planes,
    uniform,
    visible_weight,
)


def apply_matrix(
    clip: Float[Tensor, "*batch M T V 3"], matrix: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch M T V 3"]:
    """Apply x' = A x to every joint, one matrix per clip, in full precision on every device."""
    x, y, z = planes(clip)
    a = matrix[..., None, None, None]  # over M, T, V
    out = x.new_empty((3, *x.shape))
    for row in range(3):
        torch.mul(a[..., row, 0, :, :, :], x, out=out[row])
        out[row].addcmul_(a[..., row, 1, :, :, :], y).addcmul_(a[..., row, 2, :, :, :], z)
    return join(out)


def rotation_matrix(angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """R = Rz Ry Rx of angles about x, y, z in rad.

    Signs as published: Rx = [[1, 0, 0], [0, cos, sin], [0, -sin, cos]], Ry = [[cos, 0, -sin],
    [0, 1, 0], [sin, 0, cos]], Rz = [[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]].
    """
    (cx, cy, cz), (sx, sy, sz) = angle.cos().unbind(-1), angle.sin().unbind(-1)
    entries = (
        *(cz * cy, cz * sy * sx + sz * cx, sz * sx - cz * sy * cx),
        *(-sz * cy, cz * cx - sz * sy * sx, sz * sy * cx + cz * sx),
        *(sy, -cy * sx, cy * cx),
    )
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


class RandomRotation(nn.Module):
    """Rotation by three angles, each uniform in [-angle, angle] (MAMP, STTFormer).

    Args:
        angle: Largest angle in rad.
    """

    def __init__(self, angle: float = 0.3):
        super().__init__()
        self.angle = angle

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The rotated clip."""
        return apply_matrix(clip, rotation_matrix(uniform(clip, -self.angle, self.angle, 3)))


class RotateMainAxis(nn.Module):
    """Rotation mostly about one axis, which is drawn from the three (AimCLR).

    The angles are never negative, as in the released code.

    Args:
        main: Largest angle about the main axis in degrees.
        minor: Largest angle about the two others.
    """

    def __init__(self, main: float = 30.0, minor: float = 1.0):
        super().__init__()
        self.main, self.minor = main, minor

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The rotated clip."""
        axis = uniform(clip, 0, 3, 1).long()
        is_main = axis == torch.arange(3, device=clip.device)
        largest = torch.where(is_main, self.main, self.minor)
        return self.rotate(clip, uniform(clip, 0, 1, 3) * largest)

    @staticmethod
    def rotate(
        clip: Float[Tensor, "*batch M T V 3"], angle: Float[Tensor, "*batch 3"]
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Rotate about x, then y, then z by degrees."""
        return apply_matrix(clip, rotation_matrix(angle * (math.pi / 180)))


class Shear(nn.Module):
    """x' = A x, where A has a unit diagonal and the six others uniform in [-beta, beta] (AimCLR).

    Args:
        beta: Largest shear.
    """

    def __init__(self, beta: float = 0.5):
        super().__init__()
        self.beta = beta

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The sheared clip."""
        unit = torch.eye(3, device=clip.device)
        return apply_matrix(
            clip, torch.lerp(uniform(clip, -self.beta, self.beta, 3, 3), unit, unit)
        )


class GaussianNoise(nn.Module):
    """Independent noise on each coordinate of each joint that is there (AimCLR).

    The released code also fills absent persons with noise.

    Args:
        sigma: Standard deviation in metres; 0.01 in the released code.
        p: Probability per clip.
    """

    def __init__(self, sigma: float = 0.01, p: float = 0.5):
        super().__init__()
        self.sigma, self.p = sigma, p

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The noisy clip."""
        level = self.sigma * bernoulli(clip, self.p)
        return self.add(clip, normal_like(clip, 0) * level[..., None, None, None, None])

    @staticmethod
    def add(
        clip: Float[Tensor, "*batch M T V 3"], noise: Float[Tensor, "*batch M T V 3"]
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Add given noise to the joints that are there."""
        channels = planes(clip)
        return join((channels + planes(noise)).mul_(visible_weight(channels)))


class AxisMask(nn.Module):
    """Set one coordinate, drawn from the three, to zero (AimCLR).

    Args:
        p: Probability per clip.
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The clip, flattened along one axis."""
        axis = uniform(clip, 0, 3).long()
        return self.mask(clip, torch.where(bernoulli(clip, self.p), axis, -1))

    @staticmethod
    def mask(
        clip: Float[Tensor, "*batch M T V 3"], axis: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Zero the coordinate `axis` (0, 1, 2) of each clip, or none (-1)."""
        kept = torch.arange(3, device=clip.device) != axis.unsqueeze(-1)
        return join(planes(clip) * kept.movedim(-1, 0)[..., None, None, None])


class SpatialFlip(nn.Module):
    """Exchange left and right joints (AimCLR). Coordinates are not mirrored, as published.

    Args:
        pairs: (left, right) joint indices.
        p: Probability per clip.
    """

    def __init__(self, pairs: Sequence[Sequence[int]], p: float = 0.5):
        super().__init__()
        self.p = p
        self.joints = [joint for pair in pairs for joint in pair]
        self.index: Tensor
        self.partners: Tensor
        partners = [joint for left, right in pairs for joint in (right, left)]
        self.register_buffer("index", torch.tensor(self.joints, dtype=torch.int64), False)
        self.register_buffer("partners", torch.tensor(partners, dtype=torch.int64), False)

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The relabelled clip."""
        return self.flip(clip, bernoulli(clip, self.p))

    def flip(
        self, clip: Float[Tensor, "*batch M T V 3"], which: Bool[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Exchange the joints of the clips that are marked."""
        check_joints(clip, self.joints, "the pairs of left and right joints are")
        order = torch.arange(clip.shape[-2], device=clip.device)
        order[self.index] = self.partners
        channels = planes(clip)
        flipped = channels.index_select(-1, order)
        return join(torch.where(which[..., None, None, None], flipped, channels))
