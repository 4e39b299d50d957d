"""Crops, resizing, flips and smoothing in time, batched.

No step averages or interpolates a visible joint with a missing one (exact zeros). The released
codes do, and so invent poses near the origin where a person appears or leaves.

A crop that would contain nobody is not made: the whole clip is used. Training on it would teach the
class of an empty clip. One of several persons may well be outside of a crop; `Method.pack` then
leaves that person out.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskclr_pl.errors import InputError
from maskclr_pl.transforms.base import bernoulli, join, planes, uniform, visible_weight


def take_frames(
    channels: Float[Tensor, "C *batch M T V"], frame: Int[Tensor, "*batch T2"]
) -> Float[Tensor, "C *batch M T2 V"]:
    """Select frames by index, different ones per clip, the same for all channels and persons."""
    *sequences, T, V = channels.shape
    count = channels[..., 0, 0].numel()
    start = T * torch.arange(count, device=channels.device).view(*sequences, 1)
    index = start + frame.unsqueeze(-2)
    rows = channels.reshape(-1, V).index_select(0, index.flatten())
    return rows.view(*index.shape, V)


def occupied_frames(clip: Float[Tensor, "*batch M T V C"]) -> Bool[Tensor, "*batch T"]:
    """Return in which frames somebody is visible."""
    return visible_weight(planes(clip)).sum(-1).sum(-2) > 0


class ValidCropResize(nn.Module):
    """Crop a share of the valid frames and resize it linearly (MAMP, STTFormer).

    Frames up to the last occupied one are valid; the rest is padding. Output frame i shows the time
    (i + 0.5) L / frames - 0.5 of the crop of L frames, clamped to its ends (half-pixel centers, no
    smoothing). A joint that is missing in one of the two frames around that time is as in the
    nearer one: moved there, or missing.

    Training crops are at least `min_frames` long; a clip with fewer valid frames is used whole, and
    so is one whose crop would contain nobody. A single valid frame is repeated; a clip without any
    stays empty.

    Args:
        frames: Length of the output.
        proportion: [p] for testing: the p valid frames in the middle. [low, high] for training: the
            share is uniform between them, the position as well.
        min_frames: Shortest crop in training.

    Raises:
        InputError: If `proportion` is not such a list.

    Example:
        >>> crop = ValidCropResize(frames=120, proportion=[0.5, 1.0])
        >>> crop(torch.randn(8, 2, 300, 25, 3)).shape
        torch.Size([8, 2, 120, 25, 3])
    """

    def __init__(self, frames: int, proportion: Sequence[float], min_frames: int = 64):
        super().__init__()
        if len(proportion) not in (1, 2) or not 0 < proportion[0] <= proportion[-1] <= 1:
            raise InputError(
                f"proportion={list(proportion)}: expected [p], or [low, high] with "
                "0 < low <= high <= 1; published are [0.95] for testing, [0.5,1.0] for training"
            )
        if frames < 1:
            raise InputError(f"frames={frames}: expected an integer of at least 1")
        self.frames, self.min_frames = frames, min_frames
        self.low, self.high, self.is_random = proportion[0], proportion[-1], len(proportion) == 2

    def forward(self, clip: Float[Tensor, "*batch M T V C"]) -> Float[Tensor, "*batch M T2 V C"]:
        """Return the clip with `frames` frames."""
        occupied = occupied_frames(clip)
        valid = self.valid_frames(occupied)
        if self.is_random:
            share, position = uniform(clip, self.low, self.high), uniform(clip, 0, 1)
            start, length = self.crop(valid, share, position, self.min_frames)
        else:
            start, length = self.middle(valid, self.low)
        frame = torch.arange(occupied.shape[-1], device=clip.device)
        begin, end = start.unsqueeze(-1), (start + length).unsqueeze(-1)
        is_empty = ~(occupied & (frame >= begin) & (frame < end)).any(-1)
        start, length = torch.where(is_empty, 0, start), torch.where(is_empty, valid, length)
        return self.resize(clip, start, length, self.frames)

    @staticmethod
    def valid_frames(occupied: Bool[Tensor, "*batch T"]) -> Int[Tensor, "*batch"]:
        """Count the frames up to the last occupied one."""
        count = torch.arange(1, occupied.shape[-1] + 1, device=occupied.device)
        return (count * occupied).amax(-1)

    @staticmethod
    def middle(
        valid: Int[Tensor, "*batch"], share: float
    ) -> tuple[Int[Tensor, "*batch"], Int[Tensor, "*batch"]]:
        """Return start and length of the middle part; margins are rounded down, as published."""
        margin = (valid.double() * (1 - share) / 2).long()
        return margin, valid - 2 * margin

    @staticmethod
    def crop(
        valid: Int[Tensor, "*batch"],
        share: Float[Tensor, "*batch"],
        position: Float[Tensor, "*batch"],
        min_frames: int,
    ) -> tuple[Int[Tensor, "*batch"], Int[Tensor, "*batch"]]:
        """Return start and length of the part given by `share` and `position`, both in [0, 1]."""
        length = (valid * share).long().clamp(min=min_frames).minimum(valid)
        last_start = valid - length
        return ((last_start + 1) * position).long().minimum(last_start), length

    @staticmethod
    def resize(
        clip: Float[Tensor, "*batch M T V C"],
        start: Int[Tensor, "*batch"],
        length: Int[Tensor, "*batch"],
        frames: int,
    ) -> Float[Tensor, "*batch M T2 V C"]:
        """Stretch frames [start, start + length) of each clip to `frames` frames."""
        start, length = start.unsqueeze(-1), length.clamp(min=1).unsqueeze(-1)
        # times in units of 1 / (2 * frames), as integers, so that weights have no rounding error
        time = (2 * torch.arange(frames, device=clip.device) + 1) * length - frames
        time = time.clamp(min=0)  # (*batch, T2)
        first = time // (2 * frames)
        weight = (time - first * (2 * frames)).to(clip.dtype) / (2 * frames)
        channels = planes(clip)
        before = take_frames(channels, start + first)
        after = take_frames(channels, start + (first + 1).minimum(length - 1))
        weight = weight[..., None, :, None]
        nearer = weight.round()
        both = visible_weight(before).mul_(visible_weight(after))
        return join(before.lerp(after, torch.addcmul(nearer, both, weight - nearer)))


class TemporalCrop(nn.Module):
    """Shift in time by up to T // padding_ratio frames, mirrored at the ends (AimCLR).

    The clip is padded at both ends with its mirror image, in which the frame at the edge is
    repeated, and T frames are cut from the result.

    Args:
        padding_ratio: The larger, the smaller the shift; 6 as published.

    Example:
        >>> TemporalCrop(padding_ratio=6)(torch.randn(8, 2, 50, 25, 3)).shape
        torch.Size([8, 2, 50, 25, 3])
    """

    def __init__(self, padding_ratio: int = 6):
        super().__init__()
        self.padding_ratio = padding_ratio

    def forward(self, clip: Float[Tensor, "*batch M T V C"]) -> Float[Tensor, "*batch M T V C"]:
        """Return the shifted clip."""
        padding = clip.shape[-3] // self.padding_ratio
        start = uniform(clip, 0, 2 * padding + 1).long().clamp(max=2 * padding)
        occupied = occupied_frames(clip)
        shifted = self.shifted(occupied.shape[-1], start, padding)
        start = torch.where(occupied.gather(-1, shifted).any(-1), start, padding)
        return self.crop(clip, start, padding)

    @staticmethod
    def crop(
        clip: Float[Tensor, "*batch M T V C"], start: Int[Tensor, "*batch"], padding: int
    ) -> Float[Tensor, "*batch M T V C"]:
        """Cut T frames, beginning at `start`, from the clip padded by `padding` frames."""
        return join(take_frames(planes(clip), TemporalCrop.shifted(clip.shape[-3], start, padding)))

    @staticmethod
    def shifted(frames: int, start: Int[Tensor, "*batch"], padding: int) -> Int[Tensor, "*batch T"]:
        """Return the indices of the frames in a crop."""
        frame = torch.arange(frames, device=start.device) + start.unsqueeze(-1) - padding
        frame = torch.where(frame < 0, -1 - frame, frame)
        return torch.where(frame >= frames, 2 * frames - 1 - frame, frame)


class TemporalFlip(nn.Module):
    """Reverse the frames (AimCLR).

    Args:
        p: Probability per clip.

    Example:
        >>> clip = torch.randn(8, 2, 50, 25, 3)
        >>> torch.equal(TemporalFlip(p=1.0)(clip), clip.flip(2))
        True
    """

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, clip: Float[Tensor, "*batch M T V C"]) -> Float[Tensor, "*batch M T V C"]:
        """Return the clip, forwards or backwards."""
        return self.flip(clip, bernoulli(clip, self.p))

    @staticmethod
    def flip(
        clip: Float[Tensor, "*batch M T V C"], selected: Bool[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch M T V C"]:
        """Reverse the selected clips."""
        channels = planes(clip)
        return join(torch.where(selected[..., None, None, None], channels.flip(-2), channels))


class GaussianBlur(nn.Module):
    """Smooth each coordinate over time (AimCLR).

    Args:
        kernel: Number of taps, odd.
        sigma: Range of the width in frames, drawn per clip.
        p: Probability per clip.
        normalize: True: a weighted mean over the frames in which the joint is visible, so that
            joints are not drawn to the origin at the ends of the clip or beside missing frames.
            False: the sum with weights exp(-i^2 / (2 sigma^2)) as released, which also enlarges
            poses up to five times and shrinks them towards the ends of the clip.

    Example:
        >>> clip = torch.ones(8, 2, 50, 25, 3)
        >>> torch.allclose(GaussianBlur(kernel=15, sigma=(0.1, 2.0), p=1.0)(clip), clip)
        True
    """

    def __init__(
        self,
        kernel: int = 15,
        sigma: Sequence[float] = (0.1, 2.0),
        p: float = 0.5,
        normalize: bool = True,
    ):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"kernel={kernel}: expected an odd number of taps")
        self.kernel, self.sigma, self.p, self.normalize = kernel, tuple(sigma), p, normalize

    def forward(self, clip: Float[Tensor, "*batch M T V C"]) -> Float[Tensor, "*batch M T V C"]:
        """Return the smoothed clip."""
        sigma = uniform(clip, self.sigma[0], self.sigma[1])
        sigma = torch.where(bernoulli(clip, self.p), sigma, 1e-3)  # so narrow: one tap, no change
        return self.blur(clip, self.taps(sigma, self.kernel), self.normalize)

    @staticmethod
    def taps(sigma: Float[Tensor, "*batch"], kernel: int) -> Float[Tensor, "*batch K"]:
        """Return the weights, 1 in the middle."""
        offset = torch.arange(kernel, device=sigma.device) - kernel // 2
        return (-0.5 * (offset / sigma.unsqueeze(-1)) ** 2).exp()

    @staticmethod
    def blur(
        clip: Float[Tensor, "*batch M T V C"], taps: Float[Tensor, "*batch K"], normalize: bool
    ) -> Float[Tensor, "*batch M T V C"]:
        """Sum neighboring frames with weights; missing joints stay missing and do not count."""
        channels = planes(clip)
        visible = visible_weight(channels)
        # the last plane sums the weights
        summands = torch.cat((channels, visible.unsqueeze(0))) if normalize else channels
        out = torch.zeros_like(summands)
        T, reach = clip.shape[-3], taps.shape[-1] // 2
        for offset in range(-min(reach, T - 1), min(reach, T - 1) + 1):
            weight = taps[..., reach + offset, None, None, None]
            low, high = max(0, -offset), T - max(0, offset)
            out[..., low:high, :].addcmul_(weight, summands[..., low + offset : high + offset, :])
        if normalize:
            out = out[:-1] / out[-1].clamp(min=1)
        return join(out.mul_(visible))
