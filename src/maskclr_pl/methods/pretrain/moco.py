"""Momentum contrast (MoCo) with soft targets.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020. Every
loss of AimCLR and CrosSCLR is a cross-entropy over the similarities of a query to its key and the
queue; they differ in the target. Similarities are cosines of unit vectors: slot 0 is the key of the
same clip, slot 1 + i is entry i of the queue. Keys, queue and targets have no gradient.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.distributed import gather
from maskclr_pl.losses.contrastive import in_float32
from maskclr_pl.types import InputError


class EMAEncoder(nn.Module):
    """Key network: an exponential moving average of the query network's parameters.

    It starts as a copy. As published, only parameters are averaged; buffers (BatchNorm statistics)
    are updated by its own forward passes in training mode.

    Args:
        backbone: Backbone of the query network.
        projector: Projector of the query network.
        momentum: m in key = m * key + (1 - m) * query, in [0, 1].

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
        self._updated_at: int | None = None

    def copy_from(self, backbone: nn.Module, projector: nn.Module) -> None:
        """Copy parameters and buffers of the query network."""
        self.backbone.load_state_dict(backbone.state_dict())
        self.projector.load_state_dict(projector.state_dict())

    def update_once(self, backbone: nn.Module, projector: nn.Module, step: int) -> None:
        """Update once per optimizer step, however many batches are accumulated.

        Args:
            backbone: Backbone of the query network.
            projector: Projector of the query network.
            step: Number of optimizer steps so far.
        """
        if step != self._updated_at:
            self.update(backbone, projector)
            self._updated_at = step

    @torch.no_grad()
    def update(self, backbone: nn.Module, projector: nn.Module) -> None:
        """Advance the moving average by one step."""
        averages: list[Tensor] = list(self.parameters())
        latest: list[Tensor] = [*backbone.parameters(), *projector.parameters()]
        torch._foreach_lerp_(averages, latest, 1 - self.momentum)

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "N T V C"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Float[Tensor, "B E"]:
        """Compute the keys, unit vectors, of the clips that the sequences belong to."""
        return self.projector(self.backbone(x).tokens, clip_index, batch_size)


class FeatureQueue(nn.Module):
    """First-in, first-out queue of the last K keys, part of the checkpoint.

    As published, it starts with random unit vectors. All ranks hold the same queue.

    Args:
        size: K.
        shape: Shape of an entry: (E,) for one unit vector, (R, E) for the R streams of a clip.

    Raises:
        ValueError: If the size is not positive.
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
        """Return a copy: the queue is written before the backward pass needs these entries."""
        return self.keys.clone()

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, " B *entry"]) -> None:
        """Replace the oldest entries by the keys of all ranks; of more than K, the last K.

        `age` counts the calls since an entry was written.
        """
        keys = gather(keys.detach().to(self.keys.dtype))
        skipped = max(0, len(keys) - len(self))
        slot = torch.arange(skipped, len(keys), device=keys.device).add_(self.pointer)
        slot.remainder_(len(self))
        self.keys.index_copy_(0, slot, keys[skipped:])
        self.age.add_(1).index_fill_(0, slot, 0)
        self.pointer.add_(len(keys)).remainder_(len(self))

    def check_clips(self, clips: int) -> None:
        """Raise InputError if the queue would hold older keys of a clip as its negatives."""
        if clips <= len(self):
            raise InputError(
                f"method.queue_size={len(self)}, but there are {clips} training clips: the queue "
                "would hold older keys of every clip as its negatives; pass "
                f"method.queue_size={max(1, clips * 4 // 5)} or less"
            )


@in_float32
def similarities(
    query: Float[Tensor, "B E"], key: Float[Tensor, "B E"], negatives: Float[Tensor, "K E"]
) -> Float[Tensor, "B L"]:
    """Cosines of unit queries to their keys (slot 0) and to the queue; L = 1 + K."""
    query, key, negatives = query.float(), key.float(), negatives.float()
    return torch.cat(((query * key).sum(-1, keepdim=True), query @ negatives.T), dim=1)


def soft_cross_entropy(
    logits: Float[Tensor, "B L"], target: Float[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """-sum over slots of target * log softmax(logits), averaged over the clips.

    With a uniform target over mined slots the average is outside the logarithm, as in the released
    codes; the published formulas sum inside it.
    """
    return F.cross_entropy(logits.float(), target.detach().float())


def key_target(similarity: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """InfoNCE target: the key of the same clip."""
    target = torch.zeros_like(similarity)
    target[:, 0] = 1
    return target


def distribution_target(logits: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """D3M target (AimCLR): the distribution of another query of the same clip, detached."""
    return logits.detach().softmax(-1)


def mined_target(
    similarity: Sequence[Float[Tensor, "B L"]], topk: int, context: bool = False
) -> Float[Tensor, "B L2"]:
    """Uniform target over the key and the queue entries nearest to any of several queries.

    Args:
        similarity: Similarities of each query.
        topk: Nearest entries per query, at most K.
        context: Repeat the entries for a second block of slots (CrosSCLR): L2 = L + K.
    """
    positive = key_target(similarity[0].detach())
    for values in similarity:
        nearest = values.detach()[:, 1:].topk(topk, dim=1).indices
        positive.scatter_(1, nearest + 1, 1.0)
    if context:
        positive = torch.cat((positive, positive[:, 1:]), dim=1)
    return positive / positive.sum(1, keepdim=True)


def check_contrast(temperature: float, topk: int, queue_size: int) -> None:
    """Raise ValueError if a setting shared by AimCLR and CrosSCLR is out of range."""
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if not 1 <= topk <= queue_size:
        raise ValueError(f"topk must be in [1, queue_size={queue_size}], got {topk}")
