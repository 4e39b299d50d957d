"""Layers that the backbones share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
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
    heads = 1 if query.shape[-2] > 256 else query.shape[-3]  # long maps one after the other
    with torch.autocast(query.device.type, enabled=False):
        sums = query.new_zeros((*query.shape[:-3], query.shape[-2]), dtype=torch.float32)
        for q, k in zip(query.split(heads, -3), key.split(heads, -3), strict=True):
            scores = q.float() @ k.float().transpose(-2, -1) * query.shape[-1] ** -0.5
            sums += scores.softmax(-1).sum((-3, -2))
        return sums / query.shape[-3]


def apply_mask_token(
    x: Float[Tensor, "*grid D"],
    mask: Bool[Tensor, "..."] | None,
    token: Float[Tensor, "..."],
    position: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "*grid D"]:
    """Embeddings with the hidden ones replaced by a learned token; positions are added after.

    Args:
        x: Embeddings.
        mask: True where hidden; broadcasts against `x`.
        token: Likewise.
        position: Likewise.
    """
    if mask is None:
        # a gradient (of zero) for the token in every step: DDP needs one for each parameter
        nothing = 0.0 * token
        return x + (nothing if position is None else position + nothing)
    x = torch.where(mask, token.to(x.dtype), x)
    return x if position is None else x + position


class MLP(nn.Module):
    """Linear, GELU (exact), Linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Token by token."""
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Skip a residual branch for some samples in training (stochastic depth, Huang et al. 2016).

    Args:
        rate: Probability of skipping, in [0, 1).
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """The branch, scaled up where it is kept."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)


class BatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose running statistics can be told not to follow a pass.

    With `update_stats` False, training passes are normalised by their own batch as ever, but leave
    no trace in what evaluation uses (`running_stats` sets it for all layers of a model).
    """

    update_stats = True

    def forward(self, input: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Normalise over all axes but the channels."""
        if input.shape[0] == 0:  # a batch without persons has no statistics
            return input * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        if not self.training or self.update_stats:
            return super().forward(input)
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=True,
            momentum=0.0,  # no step towards this batch
            eps=self.eps,
        )


@contextmanager
def running_stats(model: nn.Module, update: bool) -> Iterator[None]:
    """Whether the running statistics of the model's BatchNorms follow the passes inside."""
    layers = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    for layer in layers:
        layer.update_stats = update
    try:
        yield
    finally:
        for layer in layers:
            layer.update_stats = True
