"""The vanilla joint space-time transformer of MAMP.

Mao et al., "Masked Motion Predictors are Strong 3D Action Representation Learners", ICCV 2023,
section 3.1. Parameter names are those of the published checkpoints.
"""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskclr_pl.backbones.base import Backbone
from maskclr_pl.backbones.layers import MLP, Attention, DropPath, apply_mask_token
from maskclr_pl.backbones.pretrained import load_published_weights, read_weights
from maskclr_pl.types import Features, InputError


class Block(nn.Module):
    """Attention and MLP, pre-norm, each with a residual of its own.

    (The vanilla block of MaskCLR's released code loses the first residual.)
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
        """The tokens, and the attention that each received if asked for."""
        out, received = self.attn(self.norm1(x), with_received=with_received)
        x = x + self.drop_path(out)
        return x + self.drop_path(self.mlp(self.norm2(x))), received


def init_weights(model: nn.Module, *embeddings: Tensor) -> None:
    """MAMP's initial weights of Linear layers, and of positions and tokens."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for embedding in embeddings:
        nn.init.trunc_normal_(embedding, std=0.02)


class _Patches(nn.Module):
    """Linear embedding of patches of several frames of one joint (a strided convolution)."""

    def __init__(self, channels: int, dim: int, frames: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, (frames, 1), stride=(frames, 1))

    def forward(self, x: Float[Tensor, "N T V C"]) -> Float[Tensor, "N S V D"]:
        weight = self.proj.weight.flatten(1)  # (D, C * frames), frames fastest
        steps = x.unflatten(1, (-1, self.proj.kernel_size[0])).permute(0, 1, 3, 4, 2).flatten(3)
        # the same sums as the convolution, as one matrix product
        return nn.functional.linear(steps, weight, self.proj.bias)


class Transformer(Backbone):
    """Every patch (a joint over a few frames) attends to every other of its person.

    Importance is the attention received in the last block: the map's mean over heads and queries
    for each patch, shared evenly by the frames of the patch.

    Args:
        dim: Width of the tokens.
        depth: Blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over `dim`.
        patch_frames: Frames per patch (the stride of the token steps).
        max_frames: Longest clip; shorter ones use the first temporal embeddings.
        joints: V.
        channels: C.
        drop_path: Probability that the last block is skipped in training, for each person; it grows
            linearly from 0 at the first (published: 0.3 for fine-tuning).
        weights: Published checkpoint to start from.

    Raises:
        InputError: If the weights do not fit.
        ValueError: If `heads` does not divide `dim`, or `patch_frames` does not divide
            `max_frames`.
    """

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
        """Tokens of some patches, computed as if the others did not exist.

        Args:
            x: Sequences.
            keep: The patches of each sequence that are seen, as indices into its S * V ones (step
                by step).
        """
        x, _ = self._embed(x, None)
        x = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        for block in self.blocks:
            x, _ = self.run(block, x)
        return self.norm(x)

    def _embed(
        self, x: Float[Tensor, "N T V C"], mask: Bool[Tensor, "N S V"] | None
    ) -> tuple[Float[Tensor, "N L D"], torch.Size]:
        """The embedded patches, and the sizes (S, V) of their grid."""
        if problem := self.check_frames(x.shape[1]):
            raise InputError(problem)
        x = self.joints_embed(x)
        grid = x.shape[1:3]
        position = self.pos_embed + self.temp_embed[:, : grid[0]]
        hidden = None if mask is None else mask.unsqueeze(-1)
        return apply_mask_token(x, hidden, self.mask_token, position).flatten(1, 2), grid

    def check_frames(self, frames: int) -> str | None:
        """Why a clip length does not fit, in one line; None if it does."""
        if frames > self.max_frames:
            return (
                f"clips of {frames} frames, but this Transformer has embeddings for "
                f"{self.max_frames}; type clip.frames={self.max_frames} or fewer, or "
                f"backbone.max_frames={-(-frames // self.stride) * self.stride}"
            )
        return check_multiple(frames, self.stride, self.max_frames)


def check_multiple(frames: int, step: int, longest: int | None = None) -> str | None:
    """Why clips cannot be cut into steps of several frames, and the nearest lengths that can."""
    if frames % step == 0:
        return None
    below = frames // step * step
    near = [n for n in (below, below + step) if n > 0 and (longest is None or n <= longest)]
    return (
        f"clips of {frames} frames cannot be cut into steps of {step}; type "
        f"clip.frames={' or clip.frames='.join(map(str, near))}"
    )
