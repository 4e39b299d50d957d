"""AimCLR: contrastive learning with extremely augmented views, distilled from the normal view.

Guo et al., "Contrastive Learning from Extremely Augmented Skeleton Sequences for Self-Supervised
Action Recognition", AAAI 2022.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.backbones.layers import frozen_batch_stats
from maskclr_pl.distributed import mean_count
from maskclr_pl.heads import Projector
from maskclr_pl.methods.base import Method, rank_invariant
from maskclr_pl.methods.pretrain.moco import (
    EMAEncoder,
    FeatureQueue,
    check_contrast,
    distribution_target,
    key_target,
    mined_target,
    similarities,
    soft_cross_entropy,
)
from maskclr_pl.methods.stages import Stage
from maskclr_pl.types import Batch


class AimCLR(Method):
    """One stream, three views of a clip: normal query, extreme query, normal key.

    1. InfoNCE of the normal query against its key and the queue. From `mining_epoch` on, the
       nearest neighbors of all queries in the queue are further positives (NNM).
    2. The extreme query, with and without its salient features (`energy_drop`), is trained to have
       the same similarities to the queue as the normal query (D3M: soft cross-entropy, target
       detached).

    BatchNorm statistics follow the normal view, the one used later; the released code mixes in the
    extreme view. Keys and queries are normalized over the same clips, as published (no shuffling of
    BatchNorm batches). The released code reinitializes query and key separately after copying; here
    they start equal.

    Args:
        backbone: See `Method`, likewise keyword arguments not listed here. `augment` makes the
            normal views.
        extreme: Transform that makes the extreme view.
        embed_dim: E (published: 128).
        queue_size: K, less than the number of training clips (published: 32768).
        temperature: Temperature of all logits (published: 0.07).
        momentum: Momentum of the key network (published: 0.999).
        mining_epoch: First epoch with neighbor mining; below 1 a share of the training (published:
            150 of 300).
        topk: Neighbors per query (published: 1).
        drop_threshold: Salience above which features are dropped (published: 0.7); more than 1
            drops none.

    Raises:
        ValueError: If a value is out of range.
    """

    views = ("extreme",)

    def __init__(
        self,
        backbone: Backbone,
        extreme: nn.Module,
        embed_dim: int = 128,
        queue_size: int = 32768,
        temperature: float = 0.07,
        momentum: float = 0.999,
        mining_epoch: float = 0.5,
        topk: int = 1,
        drop_threshold: float = 0.7,
        **shared: Any,
    ):
        super().__init__(backbone, **shared)
        check_contrast(temperature, topk, queue_size)
        self.extreme = extreme
        self.projector = Projector(backbone.dim, backbone.dim, embed_dim)
        self.key = EMAEncoder(backbone, self.projector, momentum)
        self.queue = FeatureQueue(queue_size, (embed_dim,))
        self.temperature, self.topk = temperature, topk
        self.drop_threshold = drop_threshold
        self.stages = (Stage("mining", "method.mining_epoch", mining_epoch),)
        self.mining = False
        """Neighbors are mined; follows from the epoch, so it is not saved."""

    def check_clips(self, clips: int) -> None:
        """See `Method.check_clips`."""
        self.queue.check_clips(clips)

    def on_train_start(self) -> None:
        """Copy the query network, whose weights may come from another run."""
        super().on_train_start()
        if self.global_step == 0:
            self.key.copy_from(self.backbone, self.projector)

    def on_train_epoch_start(self) -> None:
        """Start mining in the second stage."""
        [stage] = self.stages
        stage.resolve(self.trainer.max_epochs or 1)
        self.mining = self.current_epoch >= stage.first

    @rank_invariant
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Three queries, a key, the losses; the queue is read before it is written."""
        batch_size = len(batch["label"])
        normal, clip_index = self.pack(self.augment(batch["clip"]), batch)
        # each view has its own temporal crop and may show other persons
        extreme, extreme_index = self.pack(self.extreme(batch["clip"]), batch)
        query = self.projector(self.encode(normal).tokens, clip_index, batch_size)
        with frozen_batch_stats(self.backbone):
            tokens = self.encode(extreme).tokens
        dropped_tokens, dropped_share = energy_drop(tokens, self.drop_threshold)
        extreme_query = self.projector(tokens, extreme_index, batch_size)
        dropped_query = self.projector(dropped_tokens, extreme_index, batch_size)

        positive, positive_index = self.pack(self.augment(batch["clip"]), batch)
        self.key.update_once(self.backbone, self.projector, self.global_step)
        key = self.key(positive, positive_index, batch_size)
        losses = aimclr_loss(
            query,
            extreme_query,
            dropped_query,
            key,
            self.queue.read(),
            self.temperature,
            self.topk if self.mining else None,
        )
        self.queue.enqueue(key)

        self.log_step({**losses, "dropped": dropped_share}, batch_size)
        return {"loss": losses["loss"], "mask": None, "embedding": query.detach()}


def aimclr_loss(
    query: Float[Tensor, "B E"],
    extreme: Float[Tensor, "B E"],
    dropped: Float[Tensor, "B E"],
    key: Float[Tensor, "B E"],
    negatives: Float[Tensor, "K E"],
    temperature: float,
    topk: int | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Compute {"loss", "loss_contrast" (InfoNCE or NNM), "loss_d3m"} from unit vectors.

    Args:
        query: Normal view.
        extreme: Extreme view.
        dropped: Extreme view after `energy_drop`.
        key: Another normal view.
        negatives: The queue.
        temperature: > 0.
        topk: Neighbors mined per query; None: InfoNCE.
    """
    similarity = [similarities(q, key, negatives) for q in (query, extreme, dropped)]
    logits, *extreme_logits = [values / temperature for values in similarity]
    target = key_target(logits) if topk is None else mined_target(similarity, topk)
    contrast = soft_cross_entropy(logits, target)
    distribution = distribution_target(logits)
    d3m = torch.stack([soft_cross_entropy(x, distribution) for x in extreme_logits]).mean()
    return {"loss": contrast + d3m, "loss_contrast": contrast, "loss_d3m": d3m}


def energy_drop(
    tokens: Float[Tensor, "N S V D"], threshold: float, epsilon: float = 1e-4
) -> tuple[Float[Tensor, "N S V D"], Float[Tensor, ""]]:
    """Set salient features to zero: first whole joints, then single values (EADM).

    Salience is SimAM's inverse energy within each channel of a sequence: with d the squared
    distance to the channel's mean over the n + 1 steps and joints, sigmoid(d / (4 (sum d / n +
    epsilon)) + 1/2). Joints are dropped by their mean salience, values by their own; the rest is
    scaled up by 1 / (share kept). The selection is deterministic and not differentiated. A sequence
    in which everything would be dropped is left unchanged.

    Sequences are independent. The released code scales by the share of the whole batch, so that
    features depend on the rest of the batch, and fails if a batch has nothing left.

    Args:
        tokens: Tokens of the person sequences.
        threshold: Published: 0.7. Salience is between 0.62 and 1.
        epsilon: See above.

    Returns:
        tokens: Tokens after dropping.
        share: Share of dropped values over all ranks.
    """
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        x = tokens.float()
        distance = (x - x.mean((1, 2), keepdim=True)).square()
        count = max(1, x.shape[1] * x.shape[2] - 1)
        variance = distance.sum((1, 2), keepdim=True) / count  # (N, 1, 1, D)
        salience = (distance / (4 * (variance + epsilon)) + 0.5).sigmoid()
        joints = _inverse_share(salience.mean((1, 3), keepdim=True) < threshold)  # (N, 1, V, 1)
        scale = joints * _inverse_share(salience < threshold)
        # the two selections together can drop everything
        nonempty = (scale > 0).any(3, keepdim=True).any(2, keepdim=True).any(1, keepdim=True)
        scale = torch.where(nonempty, scale, 1.0)
        values = torch.full((), scale.numel(), device=scale.device)
        share = (scale == 0).float().sum() / mean_count(values)
    return tokens * scale.to(tokens.dtype), share


def _inverse_share(keep: Tensor) -> Tensor:
    """Return 1 / (share of true values in the sequence) where `keep` is true, 0 elsewhere."""
    weight = keep.float()
    return weight / weight.mean((1, 2, 3), keepdim=True).clamp(min=1 / max(1, weight[:1].numel()))
