"""Layers that the backbones share."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


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
            out: The attended tokens.
            received: If asked for, the attention that each token receives: the map's mean over
                heads, summed over queries, so that it sums to L. Computed beside the fused
                kernel, in float32, without gradient.
        """
        # (batch, H, L, d): the fused kernels take four axes only
        parts = self.qkv(x).view(-1, x.shape[-2], 3, self.heads, x.shape[-1] // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(query, key, value)
        received = None
        if with_received:
            received = attention_received(query, key).view(x.shape[:-1])
        return self.proj(out.transpose(1, 2).reshape(x.shape)), received


@torch.no_grad()
def attention_received(
    query: Float[Tensor, "*batch H L d"], key: Float[Tensor, "*batch H L d"]
) -> Float[Tensor, "*batch L"]:
    """Column sums of the softmax attention map, averaged over heads."""
    with torch.autocast(query.device.type, enabled=False):
        query, key = query.float(), key.float()
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
        return weights.sum(-2).mean(-2)


class MLP(nn.Module):
    """Linear, GELU (exact), Linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Token by token."""
        return self.fc2(F.gelu(self.fc1(x)))
