"""Light decoders of masked autoencoders: encoded tokens to the values of every token.

They are discarded after pre-training. A decoder is built from the width and the stride of the
backbone and the number of coordinates to predict; a token has P = stride * channels values, in the
order (frame, coordinate).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.backbones.base import check_multiple
from maskclr_pl.backbones.sttformer import TupleBlock
from maskclr_pl.backbones.transformer import Block, init_weights


class TransformerDecoder(nn.Module):
    """MAMP's decoder of visible tokens.

    Mao et al., ICCV 2023, section 3.4, after He et al., "Masked Autoencoders Are Scalable Vision
    Learners", CVPR 2022. A learned mask token stands for every masked token, and the decoder's own
    positional embeddings are added to all. Parameter names are those of the published checkpoints
    without `decoder_`.

    Args:
        dim: Width of the tokens of the backbone.
        stride: Frames per token.
        channels: Coordinates to predict.
        frames: Length of the clips.
        joints: V.
        width: Width of the decoder, a multiple of `heads`.
        depth: Blocks (published: 3 for NTU RGB+D 60, 5 for NTU RGB+D 120 and PKU-MMD).
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over `width`.

    Raises:
        ValueError: If `heads` does not divide `width`.
    """

    takes_visible_tokens: ClassVar[bool] = True
    """Input are the visible tokens only, with their indices."""

    def __init__(
        self,
        dim: int,
        stride: int,
        channels: int,
        frames: int,
        joints: int,
        width: int = 256,
        depth: int = 3,
        heads: int = 8,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"decoder width {width} must be a multiple of heads {heads}")
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, frames // stride, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1, joints, width))
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, 0.0) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.pred = nn.Linear(width, stride * channels)
        init_weights(self, self.mask_token, self.temp_embed, self.pos_embed)

    def forward(
        self, tokens: Float[Tensor, "N K D"], keep: Int[Tensor, "N K"]
    ) -> Float[Tensor, "N S V P"]:
        """Predict the values of every token.

        Args:
            tokens: Visible tokens.
            keep: Their indices among the S * V tokens, step by step.
        """
        position = self.temp_embed + self.pos_embed  # (1, S, V, W)
        visible = self.embed(tokens)  # (N, K, W)
        index = keep.unsqueeze(-1).expand_as(visible)
        masked = self.mask_token.to(visible.dtype)
        x = masked.expand(len(tokens), position.shape[1] * position.shape[2], -1)  # (N, S * V, W)
        x = x.scatter(1, index, visible) + position.flatten(1, 2)
        for block in self.blocks:
            x, _ = block(x)
        return self.pred(self.norm(x)).unflatten(1, position.shape[1:3])


class STTFormerDecoder(nn.Module):
    """STTFormer blocks and a convolution to coordinates, over the tokens of all cells.

    The decoder of Wu et al. (SkeletonMAE) is not published; its shape here is ours.

    Args:
        dim: Width of the tokens of the backbone.
        stride: Frames per token, 1.
        channels: Coordinates to predict.
        frames: Length of the clips.
        joints: V.
        blocks: (out, query width) of each block.
        heads: Attention heads.
        tuple_frames: Frames per tuple.

    Raises:
        InputError: If the clips cannot be cut into tuples.
        ValueError: If a token has several frames.
    """

    def __init__(
        self,
        dim: int,
        stride: int,
        channels: int,
        frames: int,
        joints: int,
        blocks: Sequence[Sequence[int]] = ((128, 32), (64, 16), (64, 16)),
        heads: int = 3,
        tuple_frames: int = 6,
    ):
        super().__init__()
        if stride != 1:
            raise ValueError(
                f"decoder=sttformer needs tokens of one frame, got {stride}; pass "
                "decoder=transformer with backbone=transformer"
            )
        check_multiple(frames, tuple_frames)
        self.grid = (tuple_frames, joints)
        widths = [dim, *(int(width) for width, _ in blocks)]
        self.blocks = nn.ModuleList(
            TupleBlock(inputs, outputs, int(query), heads, tuple_frames * joints)
            for (inputs, outputs), (_, query) in zip(pairwise(widths), blocks, strict=True)
        )
        self.pred = nn.Conv2d(widths[-1], channels, 1)
        for module in self.blocks.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, tokens: Float[Tensor, "N T V D"]) -> Float[Tensor, "N T V P"]:
        """Predict the values of every cell."""
        x = tokens.unflatten(1, (-1, self.grid[0])).flatten(2, 3).movedim(-1, 1)  # (N, D, P, W)
        for block in self.blocks:
            x, _ = block(x)
        return self.pred(x).movedim(1, -1).unflatten(2, self.grid).flatten(1, 2)


class LinearDecoder(nn.Module):
    """One linear layer, for any backbone that replaces masked tokens itself.

    Xie et al., "SimMIM: a Simple Framework for Masked Image Modeling", CVPR 2022, section 3.3.

    Args:
        dim: Width of the tokens of the backbone.
        stride: Frames per token.
        channels: Coordinates to predict.
    """

    def __init__(self, dim: int, stride: int, channels: int):
        super().__init__()
        self.pred = nn.Linear(dim, stride * channels)

    def forward(self, tokens: Float[Tensor, "N S V D"]) -> Float[Tensor, "N S V P"]:
        """Predict the values of every token."""
        return self.pred(tokens)
