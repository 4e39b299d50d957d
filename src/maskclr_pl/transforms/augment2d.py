"""Published augmentation of image-plane skeletons (MotionBERT, MaskCLR), batched.

Both transforms treat all persons of a clip alike and leave missing joints (confidence 0) and absent
persons at zero. The released code moves those as well, so that an absent person becomes a point
beside the body; `set_released` (compat=released) reproduces that.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.errors import InputError
from maskclr_pl.transforms.base import join, planes, uniform


class RandomMove(nn.Module):
    """Move a clip slowly: rotation, scale and shift drawn at both ends, linear in between.

    x' = s (cos a x - sin a y) + tx, y' = s (sin a x + cos a y) + ty. As published the movement is
    relative to the image: about its origin, with shifts in units of half its longer side, so its
    effect depends on size and position of the body in the image. Relative to the body, it is about
    the center of the box around everything visible in the clip (all persons, all frames; see
    `CropScale`), with shifts in units of half the longer side of that box.

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
        """True: missing joints and absent persons move as well, see `set_released`."""

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the moved clip."""
        angle = uniform(clip, -self.angle, self.angle, 2)
        scale = uniform(clip, *self.scale, 2)
        shift = uniform(clip, -self.shift, self.shift, 2, 2)
        center = None
        if self.relative_to == "body":
            points = planes(clip).flatten(-3)  # (3, *batch, M * T * V)
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
            values = torch.lerp(ends[..., :1], ends[..., 1:], time)
            return values.unsqueeze(-2).unsqueeze(-1)

        radians, factor = over_time(angle * (math.pi / 180)), over_time(scale)
        cos, sin = factor * radians.cos(), factor * radians.sin()
        channels = planes(clip)
        x, y, score = channels
        shift_x, shift_y = over_time(shift[..., 0, :]), over_time(shift[..., 1, :])
        if center is not None:
            center_x, center_y = center[..., None, None, None]
            x, y = x - center_x, y - center_y
            shift_x, shift_y = shift_x + center_x, shift_y + center_y
        out = torch.empty_like(channels)
        torch.addcmul(shift_x, cos, x, out=out[0]).addcmul_(sin, y, value=-1)
        torch.addcmul(shift_y, cos, y, out=out[1]).addcmul_(sin, x)
        if not released:
            out[:2] *= score.sign()
        out[2] = score
        return join(out)


def bounding_box(
    points: Float[Tensor, "2 *batch P"], visible: Float[Tensor, "*batch P"]
) -> tuple[Float[Tensor, " 2 *batch"], Float[Tensor, " *batch"]]:
    """Return the box around visible points (1, else 0).

    Returns:
        center: Center of the box.
        extent: Its longer side. Both are 0 for fewer than four points or a box without extent.
    """
    # move invisible points far beyond each extreme (both ends of lerp are exact)
    far = points.new_full((), 1e30)
    low = torch.lerp(far, points, visible).amin(-1)
    high = torch.lerp(-far, points, visible).amax(-1)
    extent = (high - low).amax(0)
    usable = (visible.sum(-1) >= 4) & (extent > 0)
    return torch.where(usable, (low + high) / 2, 0.0), torch.where(usable, extent, 0.0)


class CropScale(nn.Module):
    """Center and scale the box around everything visible in a clip; clip to [-1, 1].

    With side S = ratio * max(width, height) of the box over all persons, frames and joints with
    confidence, x' = 2 (x - center) / S. Fewer than four visible points, or a box without extent,
    give an empty clip.

    Args:
        ratio: Range that the ratio is drawn from, [1, 3] in training; equal ends for testing (2).

    Example:
        >>> clip = torch.rand(8, 2, 81, 17, 3)
        >>> CropScale(ratio=(2.0, 2.0))(clip)[..., :2].abs().max() < 0.51  # half of [-1, 1]
        tensor(True)
    """

    def __init__(self, ratio: Sequence[float] = (2.0, 2.0)):
        super().__init__()
        self.ratio = (ratio[0], ratio[1])
        self.released = False
        """True: missing joints and absent persons move as well, see `set_released`; they never
        count for the box."""

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """Return the cropped clip."""
        channels = planes(clip).flatten(-3)  # (3, *batch, M * T * V)
        visible = channels[2].sign()
        center, extent = bounding_box(channels[:2], visible)
        usable = extent > 0
        low, high = self.ratio
        ratio = uniform(clip, low, high) if low < high else low  # testing draws nothing
        factor = torch.where(usable, 2 / (ratio * extent), 0.0)
        weight = usable.unsqueeze(-1) if self.released else visible * usable.unsqueeze(-1)

        # no out= here: gradients would not flow through it
        one, zero = torch.ones_like(factor), torch.zeros_like(factor)
        out = channels * torch.stack((factor, factor, one)).unsqueeze(-1)
        out -= torch.stack((*(center * factor), zero)).unsqueeze(-1)
        out.clamp_(-1, 1).mul_(weight)
        return join(out.unflatten(-1, clip.shape[-4:-1]))


def set_released(steps: Iterable[nn.Module]) -> None:
    """Make these transforms move missing joints and absent persons, as the released code does."""
    for step in steps:
        if isinstance(step, RandomMove | CropScale):
            step.released = True
