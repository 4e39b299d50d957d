"""Contrast with a queue of keys from a slowly moving copy (MoCo), for soft targets.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020. Every
loss of AimCLR and CrosSCLR is one cross-entropy over the logits of a query against its key and the
queue; they differ in the target. Similarities are cosines of unit vectors, slot 0 is the key of the
clip itself and slot 1 + i is entry i of the queue. Keys, queue and targets have no gradient.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.distributed import gather
from maskclr_pl.losses.contrastive import in_float32


class EMAEncoder(nn.Module):
    """The key network: an exponential moving average of the parameters of the query's.

    A copy at first, so that key equals query at step 0. Parameters alone are averaged; buffers
    (the running statistics of a BatchNorm) follow the key network's own passes, in training mode,
    as published. Nothing in it is trained.

    Args:
        backbone: Of the query.
        projector: Of the query.
        momentum: m in key = m key + (1 - m) query, in [0, 1].

    Raises:
        ValueError: If the momentum is out of range.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module, momentum: float):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        self.momentum = momentum
        self.backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.projector = copy.deepcopy(projector).requires_grad_(False)
        self._followed: int | None = None

    def restart(self, backbone: nn.Module, projector: nn.Module) -> None:
        """Copy parameters and buffers again, which may have come from another run since."""
        self.backbone.load_state_dict(backbone.state_dict())
        self.projector.load_state_dict(projector.state_dict())

    def follow(self, backbone: nn.Module, projector: nn.Module, step: int) -> None:
        """Move once for each step of the optimizer.

        Batches whose gradients are accumulated see one query network, and one key network.

        Args:
            backbone: Of the query.
            projector: Of the query.
            step: Steps that the optimizer has taken.
        """
        if step != self._followed:
            self.update(backbone, projector)
            self._followed = step

    @torch.no_grad()
    def update(self, backbone: nn.Module, projector: nn.Module) -> None:
        """One step of the moving average."""
        averages: list[Tensor] = list(self.parameters())
        latest: list[Tensor] = [*backbone.parameters(), *projector.parameters()]
        torch._foreach_lerp_(averages, latest, 1 - self.momentum)

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "N T V C"], clip_index: Int[Tensor, " N"], clips: int
    ) -> Float[Tensor, "B E"]:
        """Keys, unit vectors, of the clips whose person sequences these are."""
        return self.projector(self.backbone(x).tokens, clip_index, clips)


class FeatureQueue(nn.Module):
    """The last K keys, first in, first out; part of the checkpoint.

    It starts with random unit vectors, as published. All ranks hold the same queue.

    Args:
        size: K.
        shape: Of an entry: (E,) for one unit vector, (R, E) for the R streams of a clip, which so
            stand at the same place.

    Raises:
        ValueError: If the size is no positive number.
    """

    def __init__(self, size: int, shape: Sequence[int]):
        super().__init__()
        if size < 1:
            raise ValueError(f"queue_size must be at least 1, got {size}")
        self.keys: Tensor
        self.pointer: Tensor
        self.age: Tensor
        self.register_buffer("keys", F.normalize(torch.randn(size, *shape), dim=-1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("age", torch.zeros(size, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.keys)

    def read(self) -> Float[Tensor, " K *entry"]:
        """The entries as they are now.

        A copy: the queue is written before the backward pass, which still needs what was read.
        """
        return self.keys.clone()

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, " B *entry"]) -> None:
        """Overwrite the oldest entries by the keys of all ranks; `age` counts the calls since.

        Any number fits: the place to write goes round, and of more than K keys the last K stay.
        """
        keys = gather(keys.detach().to(self.keys.dtype))
        skipped = max(0, len(keys) - len(self))
        slot = torch.arange(skipped, len(keys), device=keys.device).add_(self.pointer)
        slot.remainder_(len(self))
        self.keys.index_copy_(0, slot, keys[skipped:])
        self.age.add_(1).index_fill_(0, slot, 0)
        self.pointer.add_(len(keys)).remainder_(len(self))

    def check_clips(self, clips: int) -> str | None:
        """Why a number of training clips does not fit, in one line; None if it does."""
        if clips > len(self):
            return None
        return (
            f"method.queue_size={len(self)}, but there are {clips} training clips: the queue "
            "would hold older keys of every clip as its negatives; type "
            f"method.queue_size={max(1, clips * 4 // 5)} or less"
        )


@in_float32
def similarities(
    query: Float[Tensor, "B E"], key: Float[Tensor, "B E"], negatives: Float[Tensor, "K E"]
) -> Float[Tensor, "B L"]:
    """Cosines of unit queries with their keys (slot 0) and with the queue; L = 1 + K."""
    query, key, negatives = query.float(), key.float(), negatives.float()
    return torch.cat(((query * key).sum(-1, keepdim=True), query @ negatives.T), dim=1)


def soft_cross_entropy(
    logits: Float[Tensor, "B L"], target: Float[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """-sum over the slots of target * log softmax(logits), the mean over the clips.

    Against a uniform target over mined slots, the average over them stands outside the logarithm,
    as in the released codes; the published formulas sum inside of it.
    """
    return F.cross_entropy(logits.float(), target.detach().float())


def key_target(similarity: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """InfoNCE: all on the key of the clip itself."""
    target = torch.zeros_like(similarity)
    target[:, 0] = 1
    return target


def distribution_target(logits: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """D3M (AimCLR): where another query of the same clip looks, without gradient."""
    return logits.detach().softmax(-1)


def mined_target(
    found_by: Sequence[Float[Tensor, "B L"]], topk: int, context: bool = False
) -> Float[Tensor, "B L2"]:
    """Uniform over the key and the entries of the queue nearest to any of several queries.

    Args:
        found_by: Similarities of the queries, whose `topk` nearest entries count.
        topk: Entries per query, no more than the queue has.
        context: Repeat the entries for a second block of slots (CrosSCLR): L2 = L + K.
    """
    positive = key_target(found_by[0].detach())
    for similarity in found_by:
        nearest = similarity.detach()[:, 1:].topk(topk, dim=1).indices
        positive.scatter_(1, nearest + 1, 1.0)
    if context:
        positive = torch.cat((positive, positive[:, 1:]), dim=1)
    return positive / positive.sum(1, keepdim=True)


def check_contrast(temperature: float, topk: int, queue_size: int) -> None:
    """Raise a ValueError if a setting that AimCLR and CrosSCLR share is out of range."""
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if not 1 <= topk <= queue_size:
        raise ValueError(f"topk must be in [1, queue_size={queue_size}], got {topk}")
