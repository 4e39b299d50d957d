"""What a backbone is."""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskclr_pl.backbones.layers import BatchNorm2d, running_stats
from maskclr_pl.types import Features


class Backbone(nn.Module, ABC):
    """One person's sequence at a time; knows nothing of clips, classes or losses.

    A subclass sets `dim` (D, width of its tokens) and `stride` (frames per token step), takes
    any T that it can cut into steps, and states its definition of importance.
    """

    dim: int
    stride: int
    checkpointing: bool = False
    """Training keeps the inputs of the blocks only and computes them again in the backward pass
    (less memory, about a third more time; Chen et al. 2016)."""
    loaded: object | None = None
    """What became of the names in a published checkpoint, if it started from one."""

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "N T V C"],
        *,
        mask: Bool[Tensor, "N S V"] | None = None,
        with_importance: bool = False,
    ) -> Features:
        """Tokens (N, S, V, D) of person sequences.

        Args:
            x: Sequences; N may be 0.
            mask: True where the token's embedding is replaced by a learned mask token, before the
                positional embeddings are added (the paper's figure).
            with_importance: Also return importance (N, T, V). The tokens are bit-identical
                with and without it.
        """

    def __call__(self, x: Tensor, **options: Any) -> Features:
        """See `forward`; a compiled backbone is not traced again for each number of sequences."""
        if self._compiled_call_impl is not None:
            for tensor in (x, options.get("mask")):
                if tensor is not None:
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        features: Features = super().__call__(x, **options)
        return features

    def check_frames(self, frames: int) -> str | None:
        """Why a clip length does not fit, in one line; None if it does."""
        return None

    def run(self, block: nn.Module, x: Tensor, *options: Any) -> Any:
        """A block's output, with `checkpointing` respected."""
        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return block(x, *options)
        if not any(isinstance(module, BatchNorm2d) for module in block.modules()):
            return checkpoint(block, x, *options, use_reentrant=False)
        # the second computation must not count as a second batch
        contexts = nullcontext(), running_stats(block, update=False)
        return checkpoint(block, x, *options, use_reentrant=False, context_fn=lambda: contexts)
