"""Layers shared by the backbones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Attention(nn.Module):
    """Multi-head self-attention through the fused kernel.

    Args:
        dim: Width D, a multiple of `heads`.
        heads: Number of heads.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "*batch L D"], with_received: bool = False
    ) -> tuple[Float[Tensor, "*batch L D"], Float[Tensor, "*batch L"] | None]:
        """Attend among the L tokens.

        Returns:
            out: Attended tokens.
            received: With `with_received`, the attention each token receives: the map averaged
                over heads and summed over queries, so that it sums to L. Computed beside the fused
                kernel, in float32, without gradient.
        """
        # fused kernels take four axes only: (batch, H, L, d)
        qkv = self.qkv(x).view(-1, x.shape[-2], 3, self.heads, x.shape[-1] // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(query, key, value)  # (batch, H, L, d)
        received = attention_received(query, key).view(x.shape[:-1]) if with_received else None
        return self.proj(out.transpose(1, 2).reshape(x.shape)), received


@torch.no_grad()
def attention_received(
    query: Float[Tensor, "*batch H L d"], key: Float[Tensor, "*batch H L d"]
) -> Float[Tensor, "*batch L"]:
    """Column sums of the softmax attention map, averaged over heads."""
    heads = 1 if query.shape[-2] > 256 else query.shape[-3]  # limits the memory of long maps
    with torch.autocast(query.device.type, enabled=False):
        sums = query.new_zeros((*query.shape[:-3], query.shape[-2]), dtype=torch.float32)
        for q, k in zip(query.split(heads, -3), key.split(heads, -3), strict=True):
            scores = q.float() @ k.float().transpose(-2, -1) * query.shape[-1] ** -0.5
            sums += scores.softmax(-1).sum((-3, -2))  # over heads and queries
        return sums / query.shape[-3]


def apply_mask_token(
    x: Float[Tensor, "*grid D"],
    mask: Bool[Tensor, "..."] | None,
    token: Float[Tensor, "..."],
    position: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "*grid D"]:
    """Replace masked embeddings by a learned token, then add positional embeddings.

    Args:
        x: Embeddings.
        mask: True where masked; broadcasts against `x`.
        token: Mask token; broadcasts against `x`.
        position: Positional embeddings; broadcast against `x`.
    """
    if mask is None:
        # DDP needs a gradient (here zero) for every parameter in every step
        zero = 0.0 * token
        return x + (zero if position is None else position + zero)
    x = torch.where(mask, token.to(x.dtype), x)
    return x if position is None else x + position


class MLP(nn.Module):
    """Linear, GELU (exact), Linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Transform each token."""
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth: skip a residual branch for random samples (Huang et al. 2016).

    Args:
        rate: Probability of skipping, in [0, 1).
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """Drop the branch or scale it by 1 / (1 - rate)."""
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * (keep / (1 - self.rate)).to(x.dtype)


class BatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that accepts an empty batch."""

    def forward(self, input: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Normalize over all axes but the channels."""
        if input.shape[0] == 0:  # no persons, no statistics
            return input * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return super().forward(input)


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model contains BatchNorm layers."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


@contextmanager
def frozen_batch_stats(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of all BatchNorms unchanged inside the context.

    Training passes are still normalized by the statistics of their own batch.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    settings = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, settings, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count
