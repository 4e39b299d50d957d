"""The vanilla joint space-time transformer of MAMP.

Mao et al., "Masked Motion Predictors are Strong 3D Action Representation Learners", ICCV 2023,
section 3.1. Parameter names are those of the published checkpoints.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskclr_pl.backbones.base import (
    Backbone,
    axis_size,
    check_longest,
    check_multiple,
    count_blocks,
)
from maskclr_pl.backbones.layers import MLP, Attention, DropPath, apply_mask_token
from maskclr_pl.backbones.pretrained import load_published_weights
from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.types import Features


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each with a residual connection.

    The vanilla block of MaskCLR's released code drops the first residual.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "N L D"], with_received: bool = False
    ) -> tuple[Float[Tensor, "N L D"], Float[Tensor, "N L"] | None]:
        """Return the tokens and, with `with_received`, the attention each one received."""
        out, received = self.attn(self.norm1(x), with_received=with_received)
        x = x + self.drop_path(out)
        return x + self.drop_path(self.mlp(self.norm2(x))), received


def init_weights(model: nn.Module, *embeddings: Tensor) -> None:
    """Initialize Linear layers, positions and mask tokens as MAMP does."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for embedding in embeddings:
        nn.init.trunc_normal_(embedding, std=0.02)


class _Patches(nn.Module):
    """Linear embedding of patches: one joint over several frames (a strided convolution)."""

    def __init__(self, channels: int, dim: int, frames: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, (frames, 1), stride=(frames, 1))

    def forward(self, x: Float[Tensor, "N T V C"]) -> Float[Tensor, "N S V D"]:
        weight = self.proj.weight.flatten(1)  # (D, C * frames), frames fastest
        steps = x.unflatten(1, (-1, self.proj.kernel_size[0]))  # (N, S, frames, V, C)
        steps = steps.permute(0, 1, 3, 4, 2).flatten(3)  # (N, S, V, C * frames)
        # equals the convolution, as one matrix product
        return nn.functional.linear(steps, weight, self.proj.bias)


class Transformer(Backbone):
    """Joint space-time transformer: every patch attends to every other patch of its person.

    A patch is one joint over `patch_frames` frames. Importance is the attention received in the
    last block (mean over heads and queries), split evenly among the frames of a patch.

    Args:
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over `dim`.
        patch_frames: Frames per patch, the stride of the token steps.
        max_frames: Longest clip; shorter ones use the first temporal embeddings.
        joints: V.
        channels: C.
        drop_path: Probability of skipping the last block in training, per person; it grows linearly
            from 0 in the first block (published for fine-tuning: 0.3).
        weights: Published checkpoint to start from.

    Raises:
        InputError: If the weights do not fit.
        ValueError: If `heads` does not divide `dim`, or `patch_frames` does not divide
            `max_frames`.

    Example:
        >>> backbone = Transformer(dim=32, depth=1, heads=2, patch_frames=4, joints=25)
        >>> tokens, importance = backbone(torch.rand(2, 8, 25, 3), with_importance=True)
        >>> tokens.shape, importance.shape
        (torch.Size([2, 2, 25, 32]), torch.Size([2, 8, 25]))
    """

    embedding_names = ("joints_embed", "temp_embed", "pos_embed", "mask_token")
    block_names = ("blocks",)
    drops_masked_tokens = True
    published_key = "blocks.0.attn."
    pretraining = "MAMP"

    def __init__(
        self,
        dim: int = 256,
        depth: int = 8,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        patch_frames: int = 4,
        max_frames: int = 120,
        joints: int = 25,
        channels: int = 3,
        drop_path: float = 0.0,
        weights: str | Path | None = None,
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} must be a multiple of heads {heads}")
        if max_frames % patch_frames:
            raise ValueError(
                f"max_frames {max_frames} must be a multiple of patch_frames {patch_frames}"
            )
        self.dim, self.stride, self.max_frames = dim, patch_frames, max_frames
        self.joints_embed = _Patches(channels, dim, patch_frames)
        self.temp_embed = nn.Parameter(torch.zeros(1, max_frames // patch_frames, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1, joints, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, dim))
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim)
        init_weights(self, self.temp_embed, self.pos_embed, self.mask_token)
        if weights is not None:
            self.loaded = load_published_weights(self, read_weights(weights))

    def forward(
        self,
        x: Float[Tensor, "N T V C"],
        *,
        mask: Bool[Tensor, "N S V"] | None = None,
        with_importance: bool = False,
    ) -> Features:
        """See `Backbone.forward`."""
        x, grid = self._embed(x, mask)
        received = None
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            x, received = self.run(block, x, with_importance and last)
        tokens = self.norm(x).unflatten(1, grid)
        if received is None:
            return Features(tokens)
        share = received / (received.shape[1] * self.stride)
        return Features(tokens, share.unflatten(1, grid).repeat_interleave(self.stride, dim=1))

    def encode_visible(
        self, x: Float[Tensor, "N T V C"], keep: Int[Tensor, "N K"]
    ) -> Float[Tensor, "N K D"]:
        """See `Backbone.encode_visible`; `keep` counts patches step by step."""
        x, _ = self._embed(x, None)
        x = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))  # (N, K, D)
        for block in self.blocks:
            x, _ = self.run(block, x)
        return self.norm(x)

    def _embed(
        self, x: Float[Tensor, "N T V C"], mask: Bool[Tensor, "N S V"] | None
    ) -> tuple[Float[Tensor, "N L D"], torch.Size]:
        """Return the embedded patches and the size (S, V) of their grid."""
        self.check_frames(x.shape[1])
        x = self.joints_embed(x)  # (N, S, V, D)
        grid = x.shape[1:3]
        position = self.pos_embed + self.temp_embed[:, : grid[0]]
        mask = None if mask is None else mask.unsqueeze(-1)
        return apply_mask_token(x, mask, self.mask_token, position).flatten(1, 2), grid

    def check_frames(self, frames: int) -> None:
        """See `Backbone.check_frames`."""
        check_longest(frames, self.max_frames, "Transformer", self.stride)
        check_multiple(frames, self.stride, self.max_frames)

    @classmethod
    def published_sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """See `Backbone.published_sizes`."""
        dim = axis_size(weights, "blocks.0.mlp.fc1.weight", 1)
        return {
            "dim": dim,
            "depth": count_blocks(weights, "blocks"),
            "patch_frames": axis_size(weights, "joints_embed.proj.weight", 2),
            "joints": axis_size(weights, "pos_embed", -2),
            "mlp_ratio": axis_size(weights, "blocks.0.mlp.fc1.weight", 0) / max(1, dim),
        }
