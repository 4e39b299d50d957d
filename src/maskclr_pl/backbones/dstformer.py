"""DSTformer: the dual-stream spatio-temporal transformer of MotionBERT.

Zhu et al., "MotionBERT: A Unified Perspective on Learning Human Motion Representations", ICCV 2023,
section 3.2. Parameter names are those of the published checkpoints.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.backbones.base import Backbone, axis_size, check_longest, count_blocks
from maskclr_pl.backbones.layers import MLP, Attention, apply_mask_token
from maskclr_pl.backbones.pretrained import load_published_weights
from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.types import Features

AttentionMap = Literal["st_spatial", "ts_spatial", "st_temporal", "ts_temporal"]


class _Block(nn.Module):
    """Spatial and temporal attention, each followed by an MLP; pre-norm, with residuals.

    Args:
        dim: Width.
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over `dim`.
        order: "st" attends over joints first, "ts" over frames first.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, order: str):
        super().__init__()
        self.order = order
        self.maps = {"s": f"{order}_spatial", "t": f"{order}_temporal"}
        for axis in ("s", "t"):
            setattr(self, f"norm1_{axis}", nn.LayerNorm(dim, eps=1e-6))
            setattr(self, f"attn_{axis}", Attention(dim, heads))
            setattr(self, f"norm2_{axis}", nn.LayerNorm(dim, eps=1e-6))
            setattr(self, f"mlp_{axis}", MLP(dim, int(dim * mlp_ratio)))

    def forward(
        self, x: Float[Tensor, "N T V D"], read: Sequence[str] = ()
    ) -> tuple[Float[Tensor, "N T V D"], list[Float[Tensor, "N T V"]]]:
        """Return the tokens and the attention received in each map that `read` names."""
        received = []
        for axis in self.order:
            normed = getattr(self, f"norm1_{axis}")(x)
            if axis == "t":
                normed = normed.transpose(1, 2)  # (N, V, T, D): attend over frames
            with_received = self.maps[axis] in read
            out, sums = getattr(self, f"attn_{axis}")(normed, with_received=with_received)
            if sums is not None:
                received.append(sums if axis == "s" else sums.transpose(1, 2))
            x = x + (out if axis == "s" else out.transpose(1, 2))
            x = x + getattr(self, f"mlp_{axis}")(getattr(self, f"norm2_{axis}")(x))
        return x, received


class _PreLogits(nn.Module):
    """Representation layer before the published heads: Linear, tanh."""

    def __init__(self, dim: int, rep_dim: int):
        super().__init__()
        self.fc = nn.Linear(dim, rep_dim)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.fc(x))


class DSTformer(Backbone):
    """Dual-stream transformer: joints-then-frames and frames-then-joints, fused in every layer.

    Importance is the attention received: selected maps averaged over heads and summed over queries,
    averaged over the maps (and layers), divided by T * V. The default, as in MaskCLR's code, is the
    spatial map of the joints-then-frames stream in the last layer. The figure in the paper's first
    version averages the last attention of either stream ("st_temporal", "ts_spatial"). Which stream
    attends to the discriminative joints varies between runs; in small models on toy data, both
    spatial maps ("st_spatial", "ts_spatial") were more reliable.

    Args:
        dim: Width of the transformer (published: 512; lite 256).
        rep_dim: Width of the output tokens.
        depth: Number of layers.
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs over `dim` (published: 2; lite 4).
        max_frames: Longest clip; shorter ones use the first temporal embeddings.
        joints: V.
        channels: C.
        importance: Attention maps that define importance.
        importance_layers: Use the `last` layer or `all`.
        init_std: Standard deviation of the initial weights. The published 0.02 suits a width of
            512; narrow models then keep uniform attention for a long time.
        weights: Published checkpoint to start from.

    Raises:
        InputError: If the weights do not fit.
        ValueError: If `heads` does not divide `dim`, or an attention map is unknown.

    Example:
        >>> backbone = DSTformer(dim=32, rep_dim=48, depth=2, heads=4, joints=17)
        >>> tokens, importance = backbone(torch.rand(2, 8, 17, 3), with_importance=True)
        >>> tokens.shape, importance.shape
        (torch.Size([2, 8, 17, 48]), torch.Size([2, 8, 17]))
    """

    stride = 1
    embedding_names = ("joints_embed", "pos_embed", "temp_embed", "mask_token")
    block_names = ("blocks_st", "blocks_ts", "ts_attn")
    published_key = "blocks_st.0."
    pretraining = "MotionBERT"

    def __init__(
        self,
        dim: int = 512,
        rep_dim: int = 512,
        depth: int = 5,
        heads: int = 8,
        mlp_ratio: float = 2.0,
        max_frames: int = 243,
        joints: int = 17,
        channels: int = 3,
        importance: Sequence[AttentionMap] = ("st_spatial",),
        importance_layers: Literal["last", "all"] = "last",
        init_std: float = 0.02,
        weights: str | Path | None = None,
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} must be a multiple of heads {heads}")
        if not importance or not set(importance) <= set(get_args(AttentionMap)):
            raise ValueError(
                f"importance must name maps among {', '.join(get_args(AttentionMap))}, "
                f"got {list(importance)}"
            )
        if importance_layers not in ("last", "all"):
            raise ValueError(f"importance_layers must be last or all, got {importance_layers!r}")
        self.dim, self.max_frames = rep_dim, max_frames
        self.importance, self.importance_layers = tuple(importance), importance_layers
        self.joints_embed = nn.Linear(channels, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, joints, dim))
        self.temp_embed = nn.Parameter(torch.zeros(1, max_frames, 1, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks_st = nn.ModuleList(_Block(dim, heads, mlp_ratio, "st") for _ in range(depth))
        self.blocks_ts = nn.ModuleList(_Block(dim, heads, mlp_ratio, "ts") for _ in range(depth))
        self.ts_attn = nn.ModuleList(nn.Linear(2 * dim, 2) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pre_logits = _PreLogits(dim, rep_dim)
        self._init_weights(init_std)
        if weights is not None:
            self.loaded = load_published_weights(self, read_weights(weights))

    def _init_weights(self, std: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
        for embedding in (self.pos_embed, self.temp_embed, self.mask_token):
            nn.init.trunc_normal_(embedding, std=0.02)
        for name, value in self.ts_attn.named_parameters():  # equal weights at first
            nn.init.constant_(value, 0.5 if name.endswith("bias") else 0.0)

    def forward(
        self,
        x: Float[Tensor, "N T V C"],
        *,
        mask: Bool[Tensor, "N T V"] | None = None,
        with_importance: bool = False,
    ) -> Features:
        """See `Backbone.forward`."""
        frames = x.shape[1]
        self.check_frames(frames)
        position = self.pos_embed.unsqueeze(1) + self.temp_embed[:, :frames]  # (1, T, V, D)
        mask = None if mask is None else mask.unsqueeze(-1)
        x = apply_mask_token(self.joints_embed(x), mask, self.mask_token, position)
        received: list[Tensor] = []
        for layer, (st, ts, fuse) in enumerate(
            zip(self.blocks_st, self.blocks_ts, self.ts_attn, strict=True)
        ):
            last = layer == len(self.ts_attn) - 1
            read = with_importance and (last or self.importance_layers == "all")
            streams = []
            for block in (st, ts):
                out, sums = self.run(block, x, self.importance if read else ())
                streams.append(out)
                received += sums
            weight = fuse(torch.cat(streams, dim=-1)).softmax(-1)  # (N, T, V, 2)
            x = streams[0] * weight[..., :1] + streams[1] * weight[..., 1:]
        tokens = self.pre_logits(self.norm(x))
        if not with_importance:
            return Features(tokens)
        mean = torch.stack(received).mean(0)  # (N, T, V)
        return Features(tokens, mean / (frames * mean.shape[2]))

    def check_frames(self, frames: int) -> None:
        """See `Backbone.check_frames`."""
        check_longest(frames, self.max_frames, "DSTformer")

    @classmethod
    def published_sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """See `Backbone.published_sizes`."""
        mlp = "blocks_st.0.mlp_s.fc1.weight"
        dim = axis_size(weights, mlp, 1)
        return {
            "dim": dim,
            "rep_dim": axis_size(weights, "pre_logits.fc.weight", 0),
            "depth": count_blocks(weights, "blocks_st"),
            "joints": axis_size(weights, "pos_embed", -2),
            "mlp_ratio": axis_size(weights, mlp, 0) / max(1, dim),
        }
