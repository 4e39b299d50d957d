"""Supervised action recognition and MaskCLR.

Abdelfattah, Hassan and Alahi, "MaskCLR: Attention-Guided Contrastive Learning for Robust Action
Representation Learning", CVPR 2024.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.backbones.layers import frozen_batch_stats
from maskclr_pl.losses import WeightedSum
from maskclr_pl.masking import Masking, visible_tokens
from maskclr_pl.methods.base import rank_invariant
from maskclr_pl.methods.classifier import Classifier
from maskclr_pl.methods.stages import Stage
from maskclr_pl.types import Batch, InputError, Prediction


class Recognizer(Classifier):
    """Two pathways with shared weights: the whole clip, and the clip with masked tokens.

    `callbacks.MaskingCallback` sets and clears `masking`; while it is None, training is supervised.
    Validation and test use the standard pathway only.

    Args:
        backbone: See `Method`, likewise keyword arguments not listed here.
        head: Tokens to logits and embedding.
        loss: Weighted sum of loss terms over the two pathways.
        num_classes: K.
        bn_stats: Pathways that update the running statistics of BatchNorms: `standard`, the one
            that is tested, or `both` as in the released code.
        drop_hidden: Do not compute masked tokens (backbones with `drops_masked_tokens`): faster,
            but no token marks the masked positions. The head reads the mean of the visible tokens
            in their place.

    Raises:
        ValueError: If `bn_stats` is unknown, or the backbone cannot drop tokens.
    """

    masking: Masking | None = None

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        loss: WeightedSum,
        num_classes: int,
        bn_stats: Literal["standard", "both"] = "standard",
        drop_hidden: bool = False,
        **shared: Any,
    ):
        super().__init__(backbone, num_classes, **shared)
        if bn_stats not in ("standard", "both"):
            raise ValueError(f"bn_stats must be standard or both, got {bn_stats!r}")
        if drop_hidden and not backbone.drops_masked_tokens:
            raise ValueError(
                f"drop_hidden=true, but {type(backbone).__name__} computes all tokens; pass "
                "backbone=transformer, or drop_hidden=false"
            )
        self.head, self.loss, self.bn_stats = head, loss, bn_stats
        self.drop_hidden = drop_hidden

    @classmethod
    def row_name(cls, config: Mapping[str, Any]) -> str | None:
        """See `Method.row_name`: named after the masking strategy if masking began."""
        masking = config.get("masking") or {}
        strategy = (masking.get("strategy") or {}).get("_target_", "").rsplit(".", 1)[-1]
        if not strategy:
            return None
        epochs = (config.get("trainer") or {}).get("max_epochs")
        if isinstance(epochs, int) and epochs >= 0:  # otherwise max_steps limits the training
            stage = Stage("masking", "masking.start_epoch", float(masking.get("start_epoch") or 0))
            stage.resolve(epochs)
            if stage.first >= epochs:
                return None
        terms = (config.get("loss") or {}).get("terms") or {}
        if strategy == "AttentionGuidedMasking" and {"sample", "class"} <= set(terms):
            return "MaskCLR"
        return f"{strategy}, loss {'+'.join(terms)}"

    def check_masking(self, strategy: Masking | None, start_epoch: float, frames: int) -> None:
        """See `Method.check_masking`."""
        if self.loss.uses_masked and strategy is None:
            raise InputError(
                "the loss contrasts two pathways, but masking=none leaves one; pass loss=ce for "
                "the supervised baseline, or masking=attention"
            )

    def pathway(
        self,
        x: Float[Tensor, "N T V C"],
        clip_index: Int[Tensor, " N"],
        batch_size: int,
        mask: Bool[Tensor, "N S V"] | None = None,
        with_importance: bool = False,
    ) -> Prediction:
        """Run backbone and head: the standard pathway, or with `mask` the masked one."""
        update_stats = mask is None or self.bn_stats == "both"
        with nullcontext() if update_stats else frozen_batch_stats(self):
            if mask is not None and self.drop_hidden:
                prediction: Prediction = self.head(self._visible(x, mask), clip_index, batch_size)
                return prediction
            features = self.encode(x, mask, with_importance)
            prediction = self.head(features.tokens, clip_index, batch_size)
        return prediction._replace(importance=features.importance)

    def _visible(
        self, x: Float[Tensor, "N T V C"], mask: Bool[Tensor, "N S V"]
    ) -> Float[Tensor, "N S V D"]:
        """Encode the visible tokens; put their mean in place of the masked ones."""
        num_masked = self.masking.num_masked(*mask.shape[1:]) if self.masking else None
        if num_masked is None:
            raise InputError(
                "drop_hidden=true needs a masking that hides equally many tokens of every clip; "
                "pass masking=attention, top or random, or method.drop_hidden=false"
            )
        keep = visible_tokens(mask, num_masked)  # (N, K)
        visible = self.backbone.encode_visible(x, keep)  # (N, K, D)
        tokens = visible.mean(1, keepdim=True).expand(-1, mask[0].numel(), -1)  # (N, S * V, D)
        index = keep.unsqueeze(-1).expand_as(visible)
        return tokens.scatter(1, index, visible).unflatten(1, mask.shape[1:])

    @rank_invariant
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Standard pathway, mask, masked pathway, losses over both."""
        batch_size = len(batch["label"])
        x, clip_index = self.pack(self.augment(batch["clip"]), batch)
        guided = self.masking is not None and self.masking.uses_importance
        standard = self.pathway(x, clip_index, batch_size, with_importance=guided)
        mask = masked = None
        if self.masking is not None:
            mask = self.masking(x, standard.importance, self.backbone.stride)
            masked = self.pathway(x, clip_index, batch_size, mask=mask)
        losses = self.loss(standard, masked, batch["label"])
        self.log_step(losses, batch_size)
        return {"loss": losses["loss"], "mask": mask}

    def classify(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Prediction:
        """See `Classifier.classify`."""
        prediction: Prediction = self.head(tokens, clip_index, batch_size)
        return prediction
