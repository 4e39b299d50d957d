"""STTFormer: attention inside tuples of consecutive frames, convolution between them.

Qiu et al., "Spatio-Temporal Tuples Transformer for Skeleton-Based Action Recognition", 2022.
Parameter names are those of the published checkpoints.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.backbones.base import Backbone
from maskclr_pl.backbones.layers import BatchNorm2d, apply_mask_token
from maskclr_pl.backbones.pretrained import load_published_weights, read_weights
from maskclr_pl.backbones.transformer import check_multiple
from maskclr_pl.types import Features, InputError

Kind = Literal["contrib", "tuple", "slot"]
_SLOPE = 0.1  # of the leaky ReLU


def _convolution(inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1)) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=padding), BatchNorm2d(outputs))


class TupleBlock(nn.Module):
    """Attention among the slots (frame in the tuple, joint), then a convolution over the tuples.

    A map has one entry for each source slot u and target slot w, the same for all tuples:
    A = tanh(q_u . k_w / (d P)) * alpha + att0, with the product over the d channels and P tuples,
    and a learned prior att0. It is signed and not normalised; the values are the input itself.
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
        """Queries and keys; the position of a slot enters here only."""
        both = self.to_qkvs(x + self.position).unflatten(1, (2, self.heads, self.dim))
        return both[:, 0], both[:, 1]

    def attention(
        self, query: Float[Tensor, "N H d P W"], key: Float[Tensor, "N H d P W"]
    ) -> Float[Tensor, "N H W W"]:
        """The map; the first slot axis is the source."""
        query, key = query.flatten(2, 3), key.flatten(2, 3)
        scores = query.transpose(2, 3) @ key / query.shape[2]
        return scores.tanh() * self.alphas + self.att0s

    def forward(
        self, x: Float[Tensor, "N C P W"], read: Kind | None = None
    ) -> tuple[Float[Tensor, "N O P W"], Float[Tensor, "N P W"] | None]:
        """Features of the tuples, and the importance of their slots if asked for."""
        query, key = self.query_key(x)
        weights = self.attention(query, key)
        scores = None if read is None else self.importance(read, x, query, key, weights)
        out = (x.flatten(1, 2).unsqueeze(1) @ weights).unflatten(2, x.shape[1:3]).flatten(1, 2)
        residual = self.ress(x)
        out = F.leaky_relu(self.out_nets(out) + residual, _SLOPE)
        # the same residual again, as published
        out = F.leaky_relu(self.ff_net(out) + residual, _SLOPE)
        return F.leaky_relu(self.out_nett(out) + self.rest(out), _SLOPE), scores

    @torch.no_grad()
    def importance(
        self, kind: Kind, x: Tensor, query: Tensor, key: Tensor, weights: Tensor
    ) -> Float[Tensor, "N P W"]:
        """See `STTFormer`."""
        with torch.autocast(x.device.type, enabled=False):
            if kind == "tuple":
                steps = zip(query.float().unbind(3), key.float().unbind(3), strict=True)
                maps = (self.attention(q.unsqueeze(3), k.unsqueeze(3)) for q, k in steps)
                return torch.stack([one.abs().sum(3).mean(1) for one in maps], dim=1)
            given = weights.float().abs().sum(3).mean(1).unsqueeze(1)
            if kind == "slot":
                return given.expand(-1, x.shape[2], -1)
            return given * x.float().norm(dim=1)


def _position(channels: int, slots: int) -> Float[Tensor, "1 C 1 W"]:
    """The fixed sine and cosine code of a slot, the same in all tuples."""
    slot = torch.arange(slots, dtype=torch.float64)
    pairs = torch.arange(0, channels, 2, dtype=torch.float64)
    angle = (pairs * (-math.log(10_000) / channels)).exp().unsqueeze(1) * slot
    code = torch.stack((angle.sin(), angle.cos()), dim=1).flatten(0, 1)[:channels]
    return code.float().view(1, channels, 1, slots)


class STTFormer(Backbone):
    """Tuples of six frames; one attention map per head and person, shared by the tuples.

    Tokens are the cells (frame, joint) of the last block. Importance is read from its map A, whose
    first index is the source u that is summed out, with w over the targets:

    * `contrib`: (mean over heads of the sum over w of |A[u, w]|) * norm of the value of u in
      each tuple, the amount that a cell sends to all others in the pass that was run.
    * `tuple`: the same sum over a map made from the queries and keys of each tuple alone; per
      frame, but not the map that was used.
    * `slot`: the sum alone, the same for all tuples.

    Each sequence is scaled to sum to 1. Hidden cells are replaced after the input map, so that its
    BatchNorm sees the joints themselves; convolutions over slots and tuples let neighbours of a
    hidden cell see that it is hidden. A published use of STTFormer with masks does not exist;
    both definitions are ours.

    Args:
        blocks: (in, out, query width) of each block.
        heads: Attention heads.
        tuple_frames: Frames per tuple; clips must be a multiple of it.
        joints: V.
        channels: C.
        importance: See above.
        weights: Published checkpoint to start from.

    Raises:
        InputError: If the weights do not fit.
        ValueError: If the widths of the blocks do not follow from each other, or importance is none
            of the three.
    """

    stride = 1

    def __init__(
        self,
        blocks: Sequence[Sequence[int]] = (
            *((64, 64, 16), (64, 64, 16), (64, 128, 32), (128, 128, 32)),
            *((128, 256, 64), (256, 256, 64), (256, 256, 64), (256, 256, 64)),
        ),
        heads: int = 3,
        tuple_frames: int = 6,
        joints: int = 25,
        channels: int = 3,
        importance: Kind = "contrib",
        weights: str | Path | None = None,
    ):
        super().__init__()
        if not blocks or any(len(block) != 3 for block in blocks):
            raise ValueError(f"blocks must be the in, out and query width of each, got {blocks}")
        if any(a[1] != b[0] for a, b in itertools.pairwise(blocks)):
            raise ValueError(f"each block must take the width of the one before, got {blocks}")
        if importance not in get_args(Kind):
            raise ValueError(f"importance must be {', '.join(get_args(Kind))}, got {importance!r}")
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
        _, frames, joints, channels = x.shape
        if problem := self.check_frames(frames):
            raise InputError(problem)
        tuples = frames // self.tuple_frames
        x = x.permute(0, 3, 1, 2).reshape(x.shape[0], channels, tuples, self.tuple_frames * joints)
        x = self.input_map(x)
        hidden = None if mask is None else mask.reshape(x.shape[0], 1, *x.shape[2:])
        x = apply_mask_token(x, hidden, self.mask_token)
        scores = None
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            x, scores = self.run(block, x, self.importance if with_importance and last else None)
        tokens = x.movedim(1, -1).reshape(x.shape[0], frames, joints, self.dim)
        if scores is None:
            return Features(tokens)
        scores = scores.reshape(x.shape[0], frames, joints)
        total = scores.sum((1, 2), keepdim=True)
        return Features(tokens, torch.where(total > 0, scores / total, 1 / (frames * joints)))

    def check_frames(self, frames: int) -> str | None:
        """Why a clip length does not fit, in one line; None if it does."""
        return check_multiple(frames, self.tuple_frames)
