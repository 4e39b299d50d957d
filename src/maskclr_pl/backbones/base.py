"""The interface of a backbone."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskclr_pl.backbones.layers import frozen_batch_stats, has_batch_norm
from maskclr_pl.types import Features, InputError


class Backbone(nn.Module, ABC):
    """Encoder of person sequences, independent of clips, classes and losses.

    A subclass sets `dim` and `stride`, implements `forward` and documents its definition of
    importance. The class attributes below describe it to the rest of the package; a new backbone
    needs no change anywhere else.
    """

    dim: int
    """D, width of the tokens."""
    stride: int
    """Frames per token step; clips have a multiple of it."""
    embedding_names: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the parameters before the first block (layer 0 of layer-wise decay)."""
    block_names: ClassVar[tuple[str, ...]] = ()
    """Module lists whose i-th entries form layer i + 1."""
    drops_masked_tokens: ClassVar[bool] = False
    """Implements `encode_visible`."""
    published_key: ClassVar[str | None] = None
    """Start of a parameter name found only in published checkpoints of this architecture."""
    pretraining: ClassVar[str | None] = None
    """Method that the published weights come from, for tables."""
    checkpointing: bool = False
    """Recompute blocks in the backward pass (Chen et al. 2016): less memory, a third slower."""
    loaded: object | None = None
    """Report on the published weights that the backbone started from."""

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "N T V C"],
        *,
        mask: Bool[Tensor, "N S V"] | None = None,
        with_importance: bool = False,
    ) -> Features:
        """Encode person sequences as tokens (N, S, V, D).

        Args:
            x: Person sequences; N may be 0.
            mask: True where the embedding of a token is replaced by a learned mask token, before
                positional embeddings are added, as in MaskCLR's figure.
            with_importance: Also return importance (N, T, V). The tokens are bit-identical with
                and without it.
        """

    def encode_visible(
        self, x: Float[Tensor, "N T V C"], keep: Int[Tensor, "N K"]
    ) -> Float[Tensor, "N K D"]:
        """Encode the tokens `keep` (indices into S * V) as if the others did not exist."""
        raise NotImplementedError(f"{type(self).__name__} computes all tokens")

    def __call__(self, x: Tensor, **options: Any) -> Features:
        """Run `forward`; a compiled backbone is not traced again for each number of sequences."""
        if self._compiled_call_impl is not None:
            for tensor in (x, options.get("mask")):
                if tensor is not None:
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        features: Features = super().__call__(x, **options)
        return features

    def check_frames(self, frames: int) -> None:
        """Raise InputError if clips of this length cannot be encoded."""

    def layer_index(self, name: str) -> int | None:
        """Layer of a parameter: 0 embeddings, i + 1 block i, None after the last block."""
        if not self.block_names:
            raise NotImplementedError(
                f"{type(self).__name__} does not define block_names; pass optim.layer_decay=1"
            )
        if block := re.match(rf"(?:{'|'.join(self.block_names)})\.(\d+)\.", name):
            return int(block.group(1)) + 1
        return 0 if name.startswith(self.embedding_names) else None

    @classmethod
    def published_sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Constructor arguments inferred from the shapes of published weights, for error messages.

        A size that cannot be inferred is 0 or left out.
        """
        return {}

    def run(self, block: nn.Module, x: Tensor, *options: Any) -> Any:
        """Run a block, recomputing it in the backward pass if `checkpointing` is set."""
        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return block(x, *options)
        if not has_batch_norm(block):
            return checkpoint(block, x, *options, use_reentrant=False)
        # the recomputation must not update the running statistics a second time
        contexts = nullcontext(), frozen_batch_stats(block)
        return checkpoint(block, x, *options, use_reentrant=False, context_fn=lambda: contexts)


def check_multiple(frames: int, step: int, longest: int | None = None) -> None:
    """Raise InputError if clips cannot be cut into steps of `step` frames.

    Args:
        frames: Length of the clips.
        step: Frames per step.
        longest: Longest clip to suggest.
    """
    if frames % step == 0:
        return
    below = frames // step * step
    near = [n for n in (below, below + step) if n > 0 and (longest is None or n <= longest)]
    raise InputError(
        f"clips of {frames} frames cannot be cut into steps of {step}; pass "
        f"clip.frames={' or clip.frames='.join(map(str, near))}"
    )


def check_longest(frames: int, max_frames: int, backbone: str, stride: int = 1) -> None:
    """Raise InputError if a clip is longer than the temporal embeddings of a backbone."""
    if frames > max_frames:
        raise InputError(
            f"clips of {frames} frames, but this {backbone} has embeddings for {max_frames}; pass "
            f"clip.frames={max_frames} or fewer, or "
            f"backbone.max_frames={-(-frames // stride) * stride}"
        )


def axis_size(weights: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Length of one axis of a named tensor; 0 if there is none."""
    shape = weights[name].shape if name in weights else ()
    return shape[axis] if -len(shape) <= axis < len(shape) else 0


def count_blocks(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks in a module list `prefix`."""
    return len({name.split(".")[1] for name in weights if name.startswith(f"{prefix}.")})
