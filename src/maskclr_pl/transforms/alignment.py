"""Where 3D bodies stand and which way they face: deterministic steps, batched."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.transforms.base import check_joints, join, planes, visible_weight
from maskclr_pl.types import InputError

NUDGE = 1e-12
"""Metres that `Center` puts a joint beside the origin, where exact zeros mean missing."""


def forward_fill(
    values: Float[Tensor, "C *batch T"], known: Bool[Tensor, "*batch T"]
) -> Float[Tensor, "C *batch T"]:
    """Each unknown frame takes the value of the last known one before it, else of the first.

    A sequence without known frames stays as it is.
    """
    step = torch.arange(known.shape[-1], device=known.device).expand(known.shape)
    last = torch.where(known, step, -1).cummax(-1).values
    first = known.int().argmax(-1, keepdim=True)
    source = torch.where(last < 0, first, last)
    held = values.gather(-1, source.expand_as(values))
    return torch.where(known.any(-1, keepdim=True), held, values)


class Center(nn.Module):
    """Move the origin to a joint.

    A joint that then lies on the origin is still there, but exact zeros mean missing: it is put
    1e-12 m beside it. So every later step may judge each joint by itself, the bones of the root
    do not vanish, and no step needs to know which joint was the centre.

    Where the joint is missing, its place in the last frame before counts (at the start, in the
    first frame in which it is seen); for a person who never shows it, the mean of the joints seen.

    Args:
        joint: Index of the joint.
        per_frame: False: one shift for the whole clip and all persons, by the joint of the first
            person who is there, in the first frame of that person (the published preparation of
            NTU RGB+D, MAMP and STTFormer). True: each person in each frame by itself, which removes
            the way that is walked and the distance between persons (AimCLR).
    """

    def __init__(self, joint: int, per_frame: bool = False):
        super().__init__()
        self.joint, self.per_frame = joint, per_frame

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The centred clip, in metres as before."""
        check_joints(clip, [self.joint], "the joint to centre on is")
        channels = planes(clip)
        there = visible_weight(channels)
        origin = self._places(channels, there)
        if not self.per_frame:
            frames = there.sum(-1).sign()
            person = frames.amax(-1).argmax(-1)[..., None, None]
            first = frames.argmax(-1, keepdim=True)  # (*batch, M, 1)
            origin = origin.gather(-1, first.expand(*origin.shape[:-1], 1))
            origin = origin.gather(-2, person.expand(*origin.shape[:-2], 1, 1))
        out = channels - origin.unsqueeze(-1)
        return join(out.add_(NUDGE).mul_(there))

    def _places(
        self, channels: Float[Tensor, "3 *batch M T V"], there: Float[Tensor, "*batch M T V"]
    ) -> Float[Tensor, "3 *batch M T"]:
        """Where the joint is, or is taken to be, of each person in each frame."""
        known = there[..., self.joint] > 0
        mean = channels.sum(-1) / there.sum(-1).clamp(min=1)
        held = forward_fill(channels[..., self.joint], known)
        return torch.where(known.any(-1, keepdim=True), held, mean)


class FaceView(nn.Module):
    """Turn each person in each frame about the vertical so that the shoulders point along +x.

    The vector from the left to the right shoulder, projected on the x-z plane, becomes (+, 0): in
    camera space the person faces the camera. It removes the turning of the body, as published
    with AimCLR, whose code takes the direction of the turn from the whole clip and so turns some
    frames the wrong way; here each frame has its own. Where the shoulders are missing, or one
    stands above the other, the turn of the last frame before counts.

    Args:
        shoulders: Indices of the left and the right shoulder.

    Raises:
        InputError: If there are not two.
    """

    def __init__(self, shoulders: Sequence[int] | None):
        super().__init__()
        if shoulders is None or len(shoulders) != 2:
            raise InputError(
                f"shoulders={shoulders}: bodies are turned by their shoulders and this skeleton "
                "names no left_shoulder and right_shoulder; type clip.shoulders=[LEFT,RIGHT]"
            )
        self.left, self.right = shoulders

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The turned clip."""
        check_joints(clip, [self.left, self.right], "the shoulders are")
        channels = planes(clip)
        left, right = channels[..., self.left], channels[..., self.right]
        x, _, z = right - left
        width = torch.hypot(x, z)
        # a tenth of a millimetre has no direction
        known = (left != 0).any(0) & (right != 0).any(0) & (width > 1e-4)
        width = width.clamp(min=1e-4)
        turn = torch.stack((torch.where(known, x / width, 1.0), torch.where(known, z / width, 0.0)))
        return self.turn(clip, *forward_fill(turn, known))

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
