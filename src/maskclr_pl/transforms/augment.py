"""Published augmentation of image-plane skeletons (MotionBERT, MaskCLR), batched.

Both transforms treat all persons of a clip alike and leave missing joints (confidence 0) and
absent persons at zero; the released code moves their zeros to a constant point.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.transforms.base import join, planes, uniform


class RandomMove(nn.Module):
    """A slow global motion: rotation, scale and shift drawn at both ends, linear in between.

    x' = s (cos a x - sin a y) + tx, y' = s (sin a x + cos a y) + ty, about the image origin.

    Args:
        angle: Largest rotation in degrees.
        scale: Range of the scale.
        shift: Largest shift, in units of half the longer image side.
    """

    def __init__(
        self,
        angle: float = 10.0,
        scale: Sequence[float] = (0.9, 1.1),
        shift: float = 0.1,
    ):
        super().__init__()
        self.angle, self.scale, self.shift = angle, (scale[0], scale[1]), shift

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The moved clip."""
        angle = uniform(clip, -self.angle, self.angle, 2)
        scale = uniform(clip, *self.scale, 2)
        shift = uniform(clip, -self.shift, self.shift, 2, 2)
        return self.move(clip, angle, scale, shift)

    @staticmethod
    def move(
        clip: Float[Tensor, "*batch M T V 3"],
        angle: Float[Tensor, "*batch 2"],
        scale: Float[Tensor, "*batch 2"],
        shift: Float[Tensor, "*batch 2 2"],
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Apply given values at the first and the last frame.

        Args:
            clip: Clips.
            angle: Degrees.
            scale: Factors.
            shift: (axis, end) shifts along x and y.
        """
        time = torch.linspace(0, 1, clip.shape[-3], device=clip.device, dtype=clip.dtype)

        def over_time(ends: Tensor) -> Tensor:  # (*batch, 2) -> (*batch, 1, T, 1)
            line = torch.lerp(ends[..., :1], ends[..., 1:], time)
            return line.unsqueeze(-2).unsqueeze(-1)

        radians, factor = over_time(angle * (math.pi / 180)), over_time(scale)
        cos, sin = factor * radians.cos(), factor * radians.sin()
        channels = planes(clip)
        x, y, score = channels
        seen = score.sign()
        out = torch.empty_like(channels)
        torch.addcmul(over_time(shift[..., 0, :]), cos, x, out=out[0]).addcmul_(sin, y, value=-1)
        torch.addcmul(over_time(shift[..., 1, :]), cos, y, out=out[1]).addcmul_(sin, x)
        out[:2] *= seen
        out[2] = score
        return join(out)


def visible_box(
    points: Float[Tensor, "2 *batch P"], seen: Float[Tensor, "*batch P"]
) -> tuple[Float[Tensor, "2 *batch"], Float[Tensor, "*batch"]]:
    """The box around the points that are seen (1, else 0).

    Returns:
        centre: Of the box.
        extent: Its longer side. Both are 0 with fewer than four points, or without extent.
    """
    # hidden points go far out of the way of each extreme (both ends of lerp are exact)
    far = points.new_full((), 1e30)
    low = torch.lerp(far, points, seen).amin(-1)
    high = torch.lerp(-far, points, seen).amax(-1)
    extent = (high - low).amax(0)
    usable = (seen.sum(-1) >= 4) & (extent > 0)
    return torch.where(usable, (low + high) / 2, 0.0), torch.where(usable, extent, 0.0)


class CropScale(nn.Module):
    """Centre and scale the box around everything visible in a clip; clip to [-1, 1].

    With side S = ratio * max(width, height) of the box over all persons, frames and joints with
    confidence, x' = 2 (x - centre) / S. Fewer than four visible points, or a box without extent,
    give an empty clip.

    Args:
        ratio: Range that the ratio is drawn from, [1, 3] in training; equal ends for testing (2).
    """

    def __init__(self, ratio: Sequence[float] = (2.0, 2.0)):
        super().__init__()
        self.ratio = (ratio[0], ratio[1])

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The cropped clip."""
        channels = planes(clip).flatten(-3)
        score = channels[2]
        centre, extent = visible_box(channels[:2], score.sign())
        usable = extent > 0
        low, high = self.ratio
        ratio = uniform(clip, low, high) if low < high else low  # testing draws nothing
        factor = torch.where(usable, 2 / (ratio * extent), 0.0)
        seen = score.sign().mul_(usable.unsqueeze(-1))

        # no out=, through which no gradient would find its way
        one, nothing = torch.ones_like(factor), torch.zeros_like(factor)
        out = channels * torch.stack((factor, factor, one)).unsqueeze(-1)
        out -= torch.stack((*(centre * factor), nothing)).unsqueeze(-1)
        out.clamp_(-1, 1).mul_(seen)
        return join(out.unflatten(-1, clip.shape[-4:-1]))
