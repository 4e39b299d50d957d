"""Published augmentation of 3D skeletons (MAMP, STTFormer, AimCLR), batched.

Zeros are missing joints, before and after. Clips are centered (`Center`), so that rotation and
shear act about the body. All persons and frames of a clip share its draw.
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
    """Return R = Rz Ry Rx for angles about x, y, z in rad.

    Signs as published: Rx = [[1, 0, 0], [0, cos, sin], [0, -sin, cos]], Ry = [[cos, 0, -sin],
    [0, 1, 0], [sin, 0, cos]], Rz = [[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]].
    """
    (cx, cy, cz), (sx, sy, sz) = angle.cos().unbind(-1), angle.sin().unbind(-1)
    rows = (
        torch.stack((cz * cy, cz * sy * sx + sz * cx, sz * sx - cz * sy * cx), -1),
        torch.stack((-sz * cy, cz * cx - sz * sy * sx, sz * sy * cx + cz * sx), -1),
        torch.stack((sy, -cy * sx, cy * cx), -1),
    )
    return torch.stack(rows, -2)


class RandomRotation(nn.Module):
    """Rotate by three angles, each uniform in [-angle, angle] (MAMP, STTFormer).

    Args:
        angle: Largest angle in rad.

    Example:
        >>> clip = torch.randn(8, 2, 120, 25, 3)
        >>> rotated = RandomRotation(angle=0.3)(clip)
        >>> torch.allclose(rotated.norm(dim=-1), clip.norm(dim=-1), atol=1e-4)
        True
    """

    def __init__(self, angle: float = 0.3):
        super().__init__()
        self.angle = angle

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the rotated clip."""
        return apply_matrix(clip, rotation_matrix(uniform(clip, -self.angle, self.angle, 3)))


class RotateMainAxis(nn.Module):
    """Rotate mostly about one axis, drawn from the three (AimCLR).

    The angles are never negative, as in the released code.

    Args:
        main: Largest angle about the main axis in degrees.
        minor: Largest angle about the two others.

    Example:
        >>> RotateMainAxis(main=30.0, minor=1.0)(torch.randn(8, 2, 50, 25, 3)).shape
        torch.Size([8, 2, 50, 25, 3])
    """

    def __init__(self, main: float = 30.0, minor: float = 1.0):
        super().__init__()
        self.main, self.minor = main, minor

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the rotated clip."""
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
    """Apply x' = A x with a unit diagonal and six entries uniform in [-beta, beta] (AimCLR).

    Args:
        beta: Largest shear.

    Example:
        >>> Shear(beta=0.5)(torch.randn(8, 2, 50, 25, 3)).shape
        torch.Size([8, 2, 50, 25, 3])
    """

    def __init__(self, beta: float = 0.5):
        super().__init__()
        self.beta = beta

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the sheared clip."""
        unit = torch.eye(3, device=clip.device)
        entries = uniform(clip, -self.beta, self.beta, 3, 3)
        return apply_matrix(clip, torch.lerp(entries, unit, unit))


class GaussianNoise(nn.Module):
    """Add independent noise to each coordinate of each visible joint (AimCLR).

    The released code also fills absent persons with noise.

    Args:
        sigma: Standard deviation in meters; 0.01 in the released code.
        p: Probability per clip.

    Example:
        >>> clip = torch.randn(8, 2, 50, 25, 3)
        >>> clip[:, 1] = 0  # absent persons stay absent
        >>> GaussianNoise(sigma=0.01, p=1.0)(clip)[:, 1].any()
        tensor(False)
    """

    def __init__(self, sigma: float = 0.01, p: float = 0.5):
        super().__init__()
        self.sigma, self.p = sigma, p

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the noisy clip."""
        sigma = self.sigma * bernoulli(clip, self.p)
        return self.add(clip, normal_like(clip, 0) * sigma[..., None, None, None, None])

    @staticmethod
    def add(
        clip: Float[Tensor, "*batch M T V 3"], noise: Float[Tensor, "*batch M T V 3"]
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Add given noise to the visible joints."""
        channels = planes(clip)
        return join((channels + planes(noise)).mul_(visible_weight(channels)))


class AxisMask(nn.Module):
    """Set one coordinate, drawn from the three, to zero (AimCLR).

    Args:
        p: Probability per clip.

    Example:
        >>> (AxisMask(p=1.0)(torch.randn(8, 2, 50, 25, 3)) == 0).float().mean()  # a third
        tensor(0.3333)
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the clip, flattened along one axis."""
        axis = uniform(clip, 0, 3).long()
        return self.mask(clip, torch.where(bernoulli(clip, self.p), axis, -1))

    @staticmethod
    def mask(
        clip: Float[Tensor, "*batch M T V 3"], axis: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Zero the coordinate `axis` (0, 1, 2) of each clip, or none (-1)."""
        keep = torch.arange(3, device=clip.device) != axis.unsqueeze(-1)  # (*batch, 3)
        return join(planes(clip) * keep.movedim(-1, 0)[..., None, None, None])


class SpatialFlip(nn.Module):
    """Swap left and right joints (AimCLR). Coordinates are not mirrored, as published.

    Args:
        pairs: (left, right) joint indices.
        p: Probability per clip.

    Example:
        >>> clip = torch.randn(8, 2, 50, 25, 3)
        >>> flipped = SpatialFlip(pairs=[(4, 8)], p=1.0)(clip)
        >>> torch.equal(flipped[..., 4, :], clip[..., 8, :])
        True
    """

    def __init__(self, pairs: Sequence[Sequence[int]], p: float = 0.5):
        super().__init__()
        self.p = p
        self.joints = [joint for pair in pairs for joint in pair]
        partners = [joint for left, right in pairs for joint in (right, left)]
        self.index: Tensor
        self.partners: Tensor
        self.register_buffer("index", torch.tensor(self.joints, dtype=torch.int64), False)
        self.register_buffer("partners", torch.tensor(partners, dtype=torch.int64), False)

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the clip with relabeled joints."""
        return self.flip(clip, bernoulli(clip, self.p))

    def flip(
        self, clip: Float[Tensor, "*batch M T V 3"], selected: Bool[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Swap the joints of the selected clips."""
        check_joints(clip, self.joints, "pairs")
        order = torch.arange(clip.shape[-2], device=clip.device)
        order[self.index] = self.partners
        channels = planes(clip)
        flipped = channels.index_select(-1, order)
        return join(torch.where(selected[..., None, None, None], flipped, channels))
