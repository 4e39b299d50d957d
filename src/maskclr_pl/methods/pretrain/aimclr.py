"""AimCLR: contrast with strongly augmented views, whose target is what the normal view sees.

Guo et al., "Contrastive Learning from Extremely Augmented Skeleton Sequences for Self-Supervised
Action Recognition", AAAI 2022.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.backbones.layers import running_stats
from maskclr_pl.distributed import mean_count
from maskclr_pl.heads import Projector
from maskclr_pl.methods.base import Method, per_clip
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

    1. InfoNCE of the normal query against its key and the queue; from `mining_epoch` on with the
       queue's nearest neighbours of all queries as further positives (NNM).
    2. The extreme query, and the same after its salient features were dropped (`energy_drop`), are
       to see the queue as the normal query does (D3M: soft cross-entropy, target detached).

    The running statistics of BatchNorms follow the normal view, which is what is used later; the
    released code mixes in the extreme one. Keys and queries are normalised over the same clips, as
    published (no shuffling of BatchNorm batches). The released code draws new weights for query and
    key apart after copying them; here they start equal.

    Args:
        backbone: See `Method`; so are the keyword arguments not listed here. `augment` makes the
            normal views.
        extreme: Transform that makes the extreme view.
        embed_dim: E (published: 128).
        queue_size: K, less than the number of training clips (published: 32768).
        temperature: Of all logits (published: 0.07).
        momentum: Of the key network (published: 0.999).
        mining_epoch: Epoch from which neighbours are mined; below 1 a share of the training
            (published: 150 of 300).
        topk: Neighbours per query (published: 1).
        drop_threshold: Salience from which on features are dropped (published: 0.7); none are
            above 1.

    Raises:
        ValueError: If a value is out of range.
    """

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
        """Whether neighbors are mined: a function of the epoch, so nothing has to be saved."""

    def check_clips(self, clips: int) -> str | None:
        """See `Method.check_clips`."""
        return self.queue.check_clips(clips)

    def on_train_start(self) -> None:
        """Make the key equal to a query whose weights came from elsewhere."""
        super().on_train_start()
        if self.global_step == 0:
            self.key.restart(self.backbone, self.projector)

    def on_train_epoch_start(self) -> None:
        """Enter the second stage."""
        [stage] = self.stages
        stage.resolve(self.trainer.max_epochs or 1)
        self.mining = self.current_epoch >= stage.first

    @per_clip
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Three queries, a key, the losses; the queue is read before it is written."""
        clips = len(batch["label"])
        normal, clip_index = self.pack(self.augment(batch["clip"]), batch)
        # each view has its own crop in time, and so may show other persons
        extreme, extreme_index = self.pack(self.extreme(batch["clip"]), batch)
        query = self.projector(self.encode(normal).tokens, clip_index, clips)
        with running_stats(self.backbone, False):
            tokens = self.encode(extreme).tokens
        kept, dropped = energy_drop(tokens, self.drop_threshold)
        strong = (
            self.projector(tokens, extreme_index, clips),
            self.projector(kept, extreme_index, clips),
        )

        positive, positive_index = self.pack(self.augment(batch["clip"]), batch)
        self.key.follow(self.backbone, self.projector, self.global_step)
        key = self.key(positive, positive_index, clips)
        topk = self.topk if self.mining else None
        losses = aimclr_loss(query, *strong, key, self.queue.read(), self.temperature, topk)
        self.queue.enqueue(key)

        self.log_step({**losses, "dropped": dropped}, clips)
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
    """{"loss", "loss_contrast" (InfoNCE or NNM), "loss_d3m"} of unit vectors.

    Args:
        query: Of the normal view.
        extreme: Of the extreme view.
        dropped: Of the extreme view after `energy_drop`.
        key: Of another normal view.
        negatives: The queue.
        temperature: > 0.
        topk: Mine so many neighbours per query; None: InfoNCE.
    """
    found = [similarities(one, key, negatives) for one in (query, extreme, dropped)]
    logits, *strong = [similarity / temperature for similarity in found]
    target = key_target(logits) if topk is None else mined_target(found, topk)
    contrast = soft_cross_entropy(logits, target)
    seen = distribution_target(logits)
    d3m = torch.stack([soft_cross_entropy(one, seen) for one in strong]).mean()
    return {"loss": contrast + d3m, "loss_contrast": contrast, "loss_d3m": d3m}


def energy_drop(
    tokens: Float[Tensor, "N S V D"], threshold: float, epsilon: float = 1e-4
) -> tuple[Float[Tensor, "N S V D"], Float[Tensor, ""]]:
    """Set what is salient to zero: whole joints first, then single values (EADM).

    Salience is SimAM's inverse energy within each channel of a sequence: with d the squared
    distance to the channel's mean over the n + 1 steps and joints, sigmoid(d / (4 (sum d / n +
    epsilon)) + 1/2). A joint goes if its mean salience reaches the threshold, a value if its own
    does; what is kept is scaled up by the share that is kept. No randomness and no gradient through
    the choice. A sequence of which nothing would remain stays whole.

    Each sequence is by itself. The released code scales by the share of the whole batch, so that a
    feature depends on the others in its batch; it has no answer to a batch without remains.

    Args:
        tokens: Of the person sequences.
        threshold: Published: 0.7. Salience is at least 0.62 and at most 1.
        epsilon: See above.

    Returns:
        kept: The tokens after dropping.
        share: Of the values that were dropped, for the log.
    """
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        x = tokens.float()
        distance = (x - x.mean((1, 2), keepdim=True)).square()
        count = max(1, x.shape[1] * x.shape[2] - 1)
        variance = distance.sum((1, 2), keepdim=True) / count
        salience = (distance / (4 * (variance + epsilon)) + 0.5).sigmoid()
        joints = _rescaled(salience.mean((1, 3), keepdim=True) < threshold)
        scale = joints * _rescaled(salience < threshold)
        # both can be partial and leave nothing together
        some = (scale > 0).any(3, keepdim=True).any(2, keepdim=True).any(1, keepdim=True)
        scale = torch.where(some, scale, 1.0)
        values = torch.full((), scale.numel(), device=scale.device)
        share = (scale == 0).float().sum() / mean_count(values)
    return tokens * scale.to(tokens.dtype), share


def _rescaled(keep: Tensor) -> Tensor:
    """Per sequence, 1 / share for what is kept and 0 for the rest; 0 where nothing is."""
    kept = keep.float()
    return kept / kept.mean((1, 2, 3), keepdim=True).clamp(min=1 / max(1, kept[:1].numel()))
