"""Published augmentation of image-plane skeletons (MotionBERT, MaskCLR), batched.

Both transforms treat all persons of a clip alike and leave missing joints (confidence 0) and
absent persons at zero. The released code moves them like all other points, so that the zeros of
an absent person become a point beside the body: `released` (compat=released) does the same.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.transforms.base import join, planes, uniform
from maskclr_pl.types import InputError


class RandomMove(nn.Module):
    """A slow global motion: rotation, scale and shift drawn at both ends, linear in between.

    x' = s (cos a x - sin a y) + tx, y' = s (sin a x + cos a y) + ty. Published, it is relative to
    the image: about its origin, and shifts are in units of half its longer side. How much the
    body moves then depends on its size in the picture and on where it stands. Relative to the
    body, it is about the center of the box around everything visible in the clip (that of
    `CropScale`: all persons, all frames), and shifts are in units of half the longer side of that
    box: the image does not matter.

    Args:
        angle: Largest rotation in degrees.
        scale: Range of the scale.
        shift: Largest shift along each axis.
        relative_to: `image` (published) or `body`.

    Raises:
        InputError: If `relative_to` is neither.

    Example:
        >>> step = RandomMove(angle=10.0, scale=(0.9, 1.1), shift=0.2, relative_to="body")
        >>> step(torch.rand(8, 2, 81, 17, 3)).shape  # (B, M, T, V, C)
        torch.Size([8, 2, 81, 17, 3])
    """

    def __init__(
        self,
        angle: float = 10.0,
        scale: Sequence[float] = (0.9, 1.1),
        shift: float = 0.1,
        relative_to: str = "image",
    ):
        super().__init__()
        if relative_to not in ("image", "body"):
            raise InputError(f"relative_to={relative_to}: expected image or body")
        self.angle, self.scale, self.shift = angle, (scale[0], scale[1]), shift
        self.relative_to = relative_to
        self.released = False
        """True: missing joints and absent persons are moved as well (see the module)."""

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The moved clip."""
        angle = uniform(clip, -self.angle, self.angle, 2)
        scale = uniform(clip, *self.scale, 2)
        shift = uniform(clip, -self.shift, self.shift, 2, 2)
        center = None
        if self.relative_to == "body":
            points = planes(clip).flatten(-3)
            center, extent = bounding_box(points[:2], points[2].sign())
            shift = shift * (extent / 2)[..., None, None]
        return self.move(clip, angle, scale, shift, center, self.released)

    @staticmethod
    def move(
        clip: Float[Tensor, "*batch M T V 3"],
        angle: Float[Tensor, "*batch 2"],
        scale: Float[Tensor, "*batch 2"],
        shift: Float[Tensor, "*batch 2 2"],
        center: Float[Tensor, " 2 *batch"] | None = None,
        released: bool = False,
    ) -> Float[Tensor, "*batch M T V 3"]:
        """Apply given values at the first and the last frame.

        Args:
            clip: Clips.
            angle: Degrees.
            scale: Factors.
            shift: (axis, end) shifts along x and y.
            center: Point to rotate and scale about; the origin by default.
            released: Move missing joints and absent persons as well.
        """
        time = torch.linspace(0, 1, clip.shape[-3], device=clip.device, dtype=clip.dtype)

        def over_time(ends: Tensor) -> Tensor:  # (*batch, 2) -> (*batch, 1, T, 1)
            line = torch.lerp(ends[..., :1], ends[..., 1:], time)
            return line.unsqueeze(-2).unsqueeze(-1)

        radians, factor = over_time(angle * (math.pi / 180)), over_time(scale)
        cos, sin = factor * radians.cos(), factor * radians.sin()
        channels = planes(clip)
        x, y, score = channels
        to_x, to_y = over_time(shift[..., 0, :]), over_time(shift[..., 1, :])
        if center is not None:
            center_x, center_y = center[..., None, None, None]
            x, y = x - center_x, y - center_y
            to_x, to_y = to_x + center_x, to_y + center_y
        out = torch.empty_like(channels)
        torch.addcmul(to_x, cos, x, out=out[0]).addcmul_(sin, y, value=-1)
        torch.addcmul(to_y, cos, y, out=out[1]).addcmul_(sin, x)
        if not released:
            out[:2] *= score.sign()
        out[2] = score
        return join(out)


def bounding_box(
    points: Float[Tensor, "2 *batch P"], seen: Float[Tensor, "*batch P"]
) -> tuple[Float[Tensor, " 2 *batch"], Float[Tensor, " *batch"]]:
    """The box around the points that are seen (1, else 0).

    Returns:
        center: Of the box.
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
    """Center and scale the box around everything visible in a clip; clip to [-1, 1].

    With side S = ratio * max(width, height) of the box over all persons, frames and joints with
    confidence, x' = 2 (x - center) / S. Fewer than four visible points, or a box without extent,
    give an empty clip.

    Args:
        ratio: Range that the ratio is drawn from, [1, 3] in training; equal ends for testing (2).
    """

    def __init__(self, ratio: Sequence[float] = (2.0, 2.0)):
        super().__init__()
        self.ratio = (ratio[0], ratio[1])
        self.released = False
        """True: missing joints and absent persons are moved as well (see the module); the box is
        that of what is visible all the same."""

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The cropped clip."""
        channels = planes(clip).flatten(-3)
        score = channels[2]
        center, extent = bounding_box(channels[:2], score.sign())
        usable = extent > 0
        low, high = self.ratio
        ratio = uniform(clip, low, high) if low < high else low  # testing draws nothing
        factor = torch.where(usable, 2 / (ratio * extent), 0.0)
        kept = usable.unsqueeze(-1) if self.released else score.sign().mul_(usable.unsqueeze(-1))

        # no out=, through which no gradient would find its way
        one, nothing = torch.ones_like(factor), torch.zeros_like(factor)
        out = channels * torch.stack((factor, factor, one)).unsqueeze(-1)
        out -= torch.stack((*(center * factor), nothing)).unsqueeze(-1)
        out.clamp_(-1, 1).mul_(kept)
        return join(out.unflatten(-1, clip.shape[-4:-1]))


def set_released(steps: Iterable[nn.Module]) -> None:
    """Let these transforms treat missing joints and absent persons as the released code does."""
    for step in steps:
        if isinstance(step, RandomMove | CropScale):
            step.released = True
