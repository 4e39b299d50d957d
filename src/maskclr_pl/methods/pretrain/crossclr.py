"""CrosSCLR: contrastive learning of several streams that mine positives for each other.

Li et al., "3D Human Action Representation Learning via Cross-View Consistency Pursuit", CVPR 2021.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.heads import Projector
from maskclr_pl.methods.base import Method, rank_invariant
from maskclr_pl.methods.pretrain.moco import (
    EMAEncoder,
    FeatureQueue,
    check_contrast,
    key_target,
    mined_target,
    similarities,
    soft_cross_entropy,
)
from maskclr_pl.methods.stages import Stage
from maskclr_pl.transforms import Stream
from maskclr_pl.types import Batch


class CrosSCLR(Method):
    """Two normal views of a clip, and a query and a key network per stream.

    1. InfoNCE in each stream (SkeletonCLR), summed over the streams.
    2. From `cross_epoch` on, the nearest queue entries in one stream are positives in the others
       (cross-view knowledge mining).

    `backbone` encodes the first stream, the joints; `init_from` transfers it to later runs.
    `backbones.<stream>` encode the other streams and transfer to runs with that clip.stream. All
    start as copies. Projectors are separate and all key networks are updated in both stages; in the
    released code the motion and bone projectors contain that of the joints, and two of three key
    networks are frozen in the second stage.

    Args:
        backbone: See `Method`, likewise keyword arguments not listed here. `augment` makes the
            views of the joints, from which the streams are computed.
        coordinates: Units of the clips: pixels (with a confidence) or metres.
        streams: Two or more kinds of `transforms.Stream`.
        embed_dim: E (published: 128).
        queue_size: K, less than the number of training clips (published: 32768).
        temperature: Temperature of all logits (published: 0.07).
        momentum: Momentum of the key networks (published: 0.999).
        cross_epoch: First epoch of cross-view mining; below 1 a share of the training (published:
            150 of 300).
        topk: Neighbors per clip and stream (published: 1).
        context: Also contrast the products of the two streams' similarities (published: true).

    Raises:
        ValueError: If a value is out of range, or the optimizer has backbone-specific rates.
    """

    makes_streams = True

    def __init__(
        self,
        backbone: Backbone,
        coordinates: Literal["pixels", "metres"],
        streams: Sequence[str] = ("joint", "joint_motion", "bone"),
        embed_dim: int = 128,
        queue_size: int = 32768,
        temperature: float = 0.07,
        momentum: float = 0.999,
        cross_epoch: float = 0.5,
        topk: int = 1,
        context: bool = True,
        **shared: Any,
    ):
        super().__init__(backbone, **shared)
        check_contrast(temperature, topk, queue_size)
        if len(set(streams)) < 2 or len(set(streams)) < len(streams):
            raise ValueError(f"streams must be two or more different ones, got {list(streams)}")
        if self.optim.backbone_lr is not None or self.optim.layer_decay != 1:
            raise ValueError(
                "the backbones of all streams learn at one rate: backbone_lr must be null and "
                "layer_decay 1"
            )
        confidence = coordinates == "pixels"
        self.streams = nn.ModuleDict(
            {kind: Stream(self.skeleton, kind, confidence) for kind in streams}
        )
        self.backbones = nn.ModuleDict({kind: copy.deepcopy(backbone) for kind in streams[1:]})
        self.projectors = nn.ModuleDict(
            {kind: Projector(backbone.dim, backbone.dim, embed_dim) for kind in streams}
        )
        self.keys = nn.ModuleDict(
            {kind: EMAEncoder(*self.network(kind), momentum) for kind in streams}
        )
        self.queue = FeatureQueue(queue_size, (len(streams), embed_dim))
        self.temperature, self.topk, self.context = temperature, topk, context
        self.stages = (Stage("cross-view mining", "method.cross_epoch", cross_epoch),)
        self.crossing = False
        """Streams mine for each other; follows from the epoch, so it is not saved."""

    def network(self, kind: str) -> tuple[nn.Module, nn.Module]:
        """Return backbone and projector of a stream."""
        others: dict[str, nn.Module] = dict(self.backbones.items())
        return others.get(kind, self.backbone), self.projectors[kind]

    def check_clips(self, clips: int) -> None:
        """See `Method.check_clips`."""
        self.queue.check_clips(clips)

    def on_train_start(self) -> None:
        """Copy the query networks, whose weights may come from another run."""
        super().on_train_start()
        if self.global_step == 0:
            for kind, key in self.keys.items():
                key.copy_from(*self.network(kind))  # type: ignore[operator]

    def on_train_epoch_start(self) -> None:
        """Start cross-view mining in the second stage."""
        [stage] = self.stages
        stage.resolve(self.trainer.max_epochs or 1)
        self.crossing = self.current_epoch >= stage.first

    @rank_invariant
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """A query and a key per stream, the losses; the queue is read before it is written."""
        batch_size = len(batch["label"])
        x, clip_index = self.pack(self.augment(batch["clip"]), batch)
        positive, positive_index = self.pack(self.augment(batch["clip"]), batch)
        queries, keys = {}, {}
        for kind, stream in self.streams.items():
            backbone, projector = network = self.network(kind)
            queries[kind] = projector(backbone(stream(x)).tokens, clip_index, batch_size)
            self.keys[kind].update_once(*network, self.global_step)  # type: ignore[operator]
            keys[kind] = self.keys[kind](stream(positive), positive_index, batch_size)

        negatives = dict(zip(self.streams, self.queue.read().unbind(1), strict=True))
        topk = self.topk if self.crossing else None
        losses = crossclr_loss(queries, keys, negatives, self.temperature, topk, self.context)
        self.queue.enqueue(torch.stack(tuple(keys.values()), dim=1))

        self.log_step(losses, batch_size)
        embedding = next(iter(queries.values())).detach()
        return {"loss": losses["loss"], "mask": None, "embedding": embedding}


def crossclr_loss(
    queries: Mapping[str, Float[Tensor, "B E"]],
    keys: Mapping[str, Float[Tensor, "B E"]],
    negatives: Mapping[str, Float[Tensor, "K E"]],
    temperature: float,
    topk: int | None = None,
    context: bool = True,
) -> dict[str, Float[Tensor, ""]]:
    """Compute {"loss", "loss_<stream>"}: the sum over the streams and its terms.

    Args:
        queries: Unit vectors by stream.
        keys: Unit vectors of other views of the same clips.
        negatives: The queues, aligned by clip.
        temperature: > 0.
        topk: Neighbors mined by each other stream (mean of `cross_view_loss`); None: InfoNCE.
        context: See `cross_view_loss`.
    """
    similarity = {
        kind: similarities(queries[kind], keys[kind], negatives[kind]) for kind in queries
    }
    losses = {}
    for kind, own in similarity.items():
        if topk is None:
            loss = soft_cross_entropy(own / temperature, key_target(own))
        else:
            others = [other for name, other in similarity.items() if name != kind]
            terms = [cross_view_loss(own, other, temperature, topk, context) for other in others]
            loss = torch.stack(terms).mean()
        losses[f"loss_{kind}"] = loss
    return {"loss": torch.stack(tuple(losses.values())).sum(), **losses}


def cross_view_loss(
    own: Float[Tensor, "B L"],
    other: Float[Tensor, "B L"],
    temperature: float,
    topk: int,
    context: bool = True,
) -> Float[Tensor, ""]:
    """Contrast in one stream with the nearest neighbors in another stream as positives.

    Args:
        own: Similarities in the stream.
        other: Similarities in the mining stream.
        temperature: > 0.
        topk: Entries mined per clip.
        context: Append the products of both streams' similarities to the queue, with the same
            positives. The gradient reaches both streams, as published.
    """
    slots = torch.cat((own, own[:, 1:] * other[:, 1:]), dim=1) if context else own
    return soft_cross_entropy(slots / temperature, mined_target([other], topk, context))
