"""Deterministic alignment of 3D bodies: position and facing direction, batched."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.errors import InputError
from maskclr_pl.transforms.base import check_joints, join, planes, visible_weight
from maskclr_pl.visibility import visible_joints

NUDGE = 1e-12
"""Offset in meters that `Center` adds, because exact zeros mark missing joints."""
_NARROWEST = 1e-4
"""Distance of the shoulders in meters below which they have no direction."""


def forward_fill(
    values: Float[Tensor, "C *batch T"], valid: Bool[Tensor, "*batch T"]
) -> Float[Tensor, "C *batch T"]:
    """Replace invalid frames by the last valid frame before them, at the start by the first one.

    A sequence without valid frames is returned as it is.
    """
    step = torch.arange(valid.shape[-1], device=valid.device).expand(valid.shape)
    last = torch.where(valid, step, -1).cummax(-1).values
    first = valid.int().argmax(-1, keepdim=True)
    source = torch.where(last < 0, first, last)
    filled = values.gather(-1, source.expand_as(values))
    return torch.where(valid.any(-1, keepdim=True), filled, values)


class Center(nn.Module):
    """Move the origin to a joint.

    The joint itself ends up 1e-12 m beside the origin, because exact zeros mark missing joints. So
    bones that end in it stay visible to later steps.

    Where the joint is missing, its last position before counts (at the start, the first position
    after); for a person whose joint is never visible, the mean of the visible joints in each frame.

    Args:
        joint: Index of the joint.
        per_frame: False: shift the whole clip by the joint of the first present person in that
            person's first frame (published preparation of NTU RGB+D, MAMP and STTFormer). True:
            shift each person in each frame, which removes the walked path and the distance between
            persons (AimCLR).

    Example:
        >>> clip = torch.randn(8, 2, 50, 25, 3)  # (B, M, T, V, 3) in meters
        >>> Center(joint=0, per_frame=True)(clip)[..., 0, :].abs().max() < 1e-11
        tensor(True)
    """

    def __init__(self, joint: int, per_frame: bool = False):
        super().__init__()
        self.joint, self.per_frame = joint, per_frame

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the centered clip in meters."""
        check_joints(clip, [self.joint], "joint")
        channels = planes(clip)
        visible = visible_weight(channels)
        origin = self._origin(channels, visible)  # (3, *batch, M, T)
        if not self.per_frame:
            occupied = visible.sum(-1).sign()  # (*batch, M, T)
            person = occupied.amax(-1).argmax(-1)[..., None, None]
            first = occupied.argmax(-1, keepdim=True)  # (*batch, M, 1)
            origin = origin.gather(-1, first.expand(*origin.shape[:-1], 1))
            origin = origin.gather(-2, person.expand(*origin.shape[:-2], 1, 1))
        out = channels - origin.unsqueeze(-1)
        return join(out.add_(NUDGE).mul_(visible))

    def _origin(
        self, channels: Float[Tensor, "3 *batch M T V"], visible: Float[Tensor, "*batch M T V"]
    ) -> Float[Tensor, "3 *batch M T"]:
        """Return the position of the joint, or its replacement, per person and frame."""
        valid = visible[..., self.joint] > 0
        mean = channels.sum(-1) / visible.sum(-1).clamp(min=1)
        filled = forward_fill(channels[..., self.joint], valid)
        return torch.where(valid.any(-1, keepdim=True), filled, mean)


class FaceView(nn.Module):
    """Turn each person in each frame about the vertical so that the shoulders point along +x.

    The vector from the left to the right shoulder, projected on the x-z plane, becomes (+, 0): in
    camera space the person faces the camera. This removes the turning of the body, as in AimCLR.
    AimCLR's code takes the direction of the turn from the whole clip and so turns some frames the
    wrong way; here each frame has its own. Where a shoulder is missing, or one is above the other,
    the turn of the last frame before is used.

    Args:
        shoulders: Indices of the left and the right shoulder.

    Raises:
        InputError: If there are not two.

    Example:
        >>> turned = FaceView(shoulders=(4, 8))(torch.randn(8, 2, 50, 25, 3))
        >>> (turned[..., 8, 0] > turned[..., 4, 0]).all()  # right of the left shoulder
        tensor(True)
    """

    def __init__(self, shoulders: Sequence[int] | None):
        super().__init__()
        if shoulders is None or len(shoulders) != 2:
            raise InputError(
                f"shoulders={shoulders}: expected two joints, and the skeleton has no "
                "left_shoulder and right_shoulder; pass clip.shoulders=[LEFT,RIGHT]"
            )
        self.left, self.right = shoulders

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the turned clip."""
        check_joints(clip, [self.left, self.right], "shoulders")
        left, right = clip[..., self.left, :], clip[..., self.right, :]  # (*batch, M, T, 3)
        x, _, z = (right - left).unbind(-1)
        width = torch.hypot(x, z)
        valid = visible_joints(left) & visible_joints(right) & (width > _NARROWEST)
        width = width.clamp(min=_NARROWEST)
        cos, sin = torch.where(valid, x / width, 1.0), torch.where(valid, z / width, 0.0)
        return self.turn(clip, *forward_fill(torch.stack((cos, sin)), valid))

    @staticmethod
    def turn(
        clip: Float[Tensor, "*batch M T V 3"],
        cos: Float[Tensor, "*batch M T"],
        sin: Float[Tensor, "*batch M T"],
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Turn by x' = cos x + sin z, z' = cos z - sin x in each frame of each person."""
        x, y, z = planes(clip)
        cos, sin = cos.unsqueeze(-1), sin.unsqueeze(-1)
        return join((torch.addcmul(cos * x, sin, z), y, torch.addcmul(cos * z, sin, x, value=-1)))
