"""STTFormer: attention inside tuples of consecutive frames, convolution between them.

Qiu et al., "Spatio-Temporal Tuples Transformer for Skeleton-Based Action Recognition", 2022.
Parameter names are those of the published checkpoints.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.backbones.base import Backbone, axis_size, check_multiple
from maskclr_pl.backbones.layers import BatchNorm2d, apply_mask_token
from maskclr_pl.backbones.pretrained import load_published_weights
from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.types import Features

ImportanceKind = Literal["contrib", "tuple", "slot"]
_SLOPE = 0.1  # leaky ReLU


def _convolution(inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1)) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=padding), BatchNorm2d(outputs))


class TupleBlock(nn.Module):
    """Attention among the slots of a tuple, then a convolution over the tuples.

    A slot is one joint in one frame of a tuple. The map has one entry per source slot u and target
    slot w, shared by all tuples: A = tanh(q_u . k_w / (d P)) * alpha + att0, where the product sums
    over d channels and P tuples and att0 is a learned prior. A is signed and not normalized; the
    values are the input itself.

    Axes: C input channels, P tuples, W slots, H heads, d query channels, O output channels.
    """

    def __init__(self, inputs: int, outputs: int, dim: int, heads: int, slots: int):
        super().__init__()
        self.dim, self.heads = dim, heads
        self.position: Tensor
        self.register_buffer("position", _position(inputs, slots), persistent=False)
        self.to_qkvs = nn.Conv2d(inputs, 2 * heads * dim, 1)
        self.alphas = nn.Parameter(torch.ones(1, heads, 1, 1))
        self.att0s = nn.Parameter(torch.full((1, heads, slots, slots), 1 / slots))
        self.out_nets = _convolution(inputs * heads, outputs, (1, 5))
        self.ff_net = _convolution(outputs, outputs)
        self.out_nett = _convolution(outputs, outputs, (3, 1))
        same = inputs == outputs
        self.ress = nn.Identity() if same else _convolution(inputs, outputs)
        self.rest = nn.Identity() if same else _convolution(outputs, outputs)

    def query_key(
        self, x: Float[Tensor, "N C P W"]
    ) -> tuple[Float[Tensor, "N H d P W"], Float[Tensor, "N H d P W"]]:
        """Return queries and keys, the only place where slot positions enter."""
        both = self.to_qkvs(x + self.position).unflatten(1, (2, self.heads, self.dim))
        return both[:, 0], both[:, 1]

    def attention(
        self, query: Float[Tensor, "N H d P W"], key: Float[Tensor, "N H d P W"]
    ) -> Float[Tensor, "N H W W"]:
        """Return the attention map; the first slot axis is the source."""
        query, key = query.flatten(2, 3), key.flatten(2, 3)
        scores = query.transpose(2, 3) @ key / query.shape[2]
        return scores.tanh() * self.alphas + self.att0s

    def forward(
        self, x: Float[Tensor, "N C P W"], read: ImportanceKind | None = None
    ) -> tuple[Float[Tensor, "N O P W"], Float[Tensor, "N P W"] | None]:
        """Return the features of the tuples and, with `read`, the importance of their slots."""
        query, key = self.query_key(x)
        weights = self.attention(query, key)
        scores = None if read is None else self.importance(read, x, query, key, weights)
        values = x.flatten(1, 2).unsqueeze(1)  # (N, 1, C * P, W), the same for all heads
        out = (values @ weights).unflatten(2, x.shape[1:3]).flatten(1, 2)  # (N, H * C, P, W)
        residual = self.ress(x)
        out = F.leaky_relu(self.out_nets(out) + residual, _SLOPE)
        # as published, the same residual a second time
        out = F.leaky_relu(self.ff_net(out) + residual, _SLOPE)
        return F.leaky_relu(self.out_nett(out) + self.rest(out), _SLOPE), scores

    @torch.no_grad()
    def importance(
        self, kind: ImportanceKind, x: Tensor, query: Tensor, key: Tensor, weights: Tensor
    ) -> Float[Tensor, "N P W"]:
        """See `STTFormer`."""
        with torch.autocast(x.device.type, enabled=False):
            if kind == "tuple":
                steps = zip(query.float().unbind(3), key.float().unbind(3), strict=True)
                maps = (self.attention(q.unsqueeze(3), k.unsqueeze(3)) for q, k in steps)
                return torch.stack([a.abs().sum(3).mean(1) for a in maps], dim=1)
            outgoing = weights.float().abs().sum(3).mean(1).unsqueeze(1)  # (N, 1, W)
            if kind == "slot":
                return outgoing.expand(-1, x.shape[2], -1)
            return outgoing * x.float().norm(dim=1)


def _position(channels: int, slots: int) -> Float[Tensor, "1 C 1 W"]:
    """Return the fixed sinusoidal position code of each slot, shared by all tuples."""
    slot = torch.arange(slots, dtype=torch.float64)
    even = torch.arange(0, channels, 2, dtype=torch.float64)
    angle = (even * (-math.log(10_000) / channels)).exp().unsqueeze(1) * slot
    code = torch.stack((angle.sin(), angle.cos()), dim=1).flatten(0, 1)[:channels]
    return code.float().view(1, channels, 1, slots)


class STTFormer(Backbone):
    """Attention inside tuples of six frames, with one map per head and person for all tuples.

    Tokens are the cells (frame, joint) of the last block. Importance is read from its attention map
    A[u, w], summed over the targets w:

    * `contrib`: (mean over heads of sum over w of |A[u, w]|) * norm of the value of u in each
      tuple: how much a cell contributes to all others in the actual forward pass.
    * `tuple`: the same sum over a map computed from the queries and keys of each tuple alone: per
      frame, but not the map used by the forward pass.
    * `slot`: the sum alone, identical for all tuples.

    Each sequence is scaled to sum to 1. Cells are masked after the input map, so that its BatchNorm
    sees real joints; convolutions over slots and tuples let the neighbors of a masked cell detect
    it. No use of STTFormer with masks is published: masking and importance are ours.

    Args:
        blocks: (in, out, query width) of each block.
        heads: Attention heads.
        tuple_frames: Frames per tuple; clip lengths must be a multiple of it.
        joints: V.
        channels: C.
        importance: `contrib`, `tuple` or `slot`, see above.
        weights: Published checkpoint to start from.

    Raises:
        InputError: If the weights do not fit.
        ValueError: If the widths of consecutive blocks differ, or `importance` is unknown.

    Example:
        >>> backbone = STTFormer(blocks=[(8, 8, 4), (8, 16, 4)], joints=25)
        >>> tokens, importance = backbone(torch.rand(2, 12, 25, 3), with_importance=True)
        >>> tokens.shape, importance.shape
        (torch.Size([2, 12, 25, 16]), torch.Size([2, 12, 25]))
    """

    stride = 1
    embedding_names = ("input_map", "mask_token")
    block_names = ("blocks",)
    published_key = "blocks.0.to_qkvs."

    def __init__(
        self,
        blocks: Sequence[Sequence[int]] = (
            (64, 64, 16),
            (64, 64, 16),
            (64, 128, 32),
            (128, 128, 32),
            (128, 256, 64),
            (256, 256, 64),
            (256, 256, 64),
            (256, 256, 64),
        ),
        heads: int = 3,
        tuple_frames: int = 6,
        joints: int = 25,
        channels: int = 3,
        importance: ImportanceKind = "contrib",
        weights: str | Path | None = None,
    ):
        super().__init__()
        if not blocks or any(len(block) != 3 for block in blocks):
            raise ValueError(f"blocks must be the in, out and query width of each, got {blocks}")
        if any(a[1] != b[0] for a, b in itertools.pairwise(blocks)):
            raise ValueError(f"each block must take the width of the one before, got {blocks}")
        if importance not in get_args(ImportanceKind):
            raise ValueError(
                f"importance must be {', '.join(get_args(ImportanceKind))}, got {importance!r}"
            )
        self.dim, self.tuple_frames, self.importance = int(blocks[-1][1]), tuple_frames, importance
        slots = tuple_frames * joints
        width = int(blocks[0][0])
        self.input_map = nn.Sequential(
            nn.Conv2d(channels, width, 1), BatchNorm2d(width), nn.LeakyReLU(_SLOPE)
        )
        self.mask_token = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.blocks = nn.ModuleList(
            TupleBlock(int(inputs), int(outputs), int(dim), heads, slots)
            for inputs, outputs, dim in blocks
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        if weights is not None:
            self.loaded = load_published_weights(self, read_weights(weights))

    def forward(
        self,
        x: Float[Tensor, "N T V C"],
        *,
        mask: Bool[Tensor, "N T V"] | None = None,
        with_importance: bool = False,
    ) -> Features:
        """See `Backbone.forward`."""
        count, frames, joints, channels = x.shape
        self.check_frames(frames)
        tuples = frames // self.tuple_frames
        slots = self.tuple_frames * joints
        x = x.permute(0, 3, 1, 2).reshape(count, channels, tuples, slots)  # (N, C, P, W)
        x = self.input_map(x)
        mask = None if mask is None else mask.reshape(count, 1, tuples, slots)
        x = apply_mask_token(x, mask, self.mask_token)
        scores = None
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            x, scores = self.run(block, x, self.importance if with_importance and last else None)
        tokens = x.movedim(1, -1).reshape(count, frames, joints, self.dim)
        if scores is None:
            return Features(tokens)
        scores = scores.reshape(count, frames, joints)
        total = scores.sum((1, 2), keepdim=True)
        return Features(tokens, torch.where(total > 0, scores / total, 1 / (frames * joints)))

    def check_frames(self, frames: int) -> None:
        """See `Backbone.check_frames`."""
        check_multiple(frames, self.tuple_frames)

    @classmethod
    def published_sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """See `Backbone.published_sizes`."""
        return {"heads": axis_size(weights, "blocks.0.att0s", 1)}
