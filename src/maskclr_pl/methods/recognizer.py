"""Action recognition from labels: supervised training and MaskCLR.

Abdelfattah, Hassan and Alahi, "MaskCLR: Attention-Guided Contrastive Learning for Robust Action
Representation Learning", CVPR 2024.
"""

from typing import Any, Literal, cast

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone, Transformer
from maskclr_pl.backbones.layers import running_stats
from maskclr_pl.losses import WeightedSum
from maskclr_pl.masking import Masking, visible_tokens
from maskclr_pl.methods.base import per_clip
from maskclr_pl.methods.classifier import Classifier
from maskclr_pl.types import Batch, InputError, Prediction


class Recognizer(Classifier):
    """Two pathways through the same weights: the clip in full, and with tokens hidden.

    `masking` is filled and emptied by `callbacks.MaskingCallback`; while it is None this is the
    supervised baseline. Validation and test use the standard pathway only.

    Args:
        backbone: See `Method`; so are the keyword arguments not listed here.
        head: Tokens to logits and embedding.
        loss: Weighted sum of loss terms over the two pathways.
        num_classes: K.
        bn_stats: Pathways that the running statistics of a BatchNorm follow: `standard`
            (what is tested), or `both` as in the released code.
        drop_hidden: Do not compute the hidden tokens of the masked pathway (Transformer only):
            faster, but no token tells the model where something is hidden. The head reads the mean
            of the visible tokens in their places.

    Raises:
        ValueError: If `bn_stats` is neither, or the backbone has to compute hidden tokens.
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
        if drop_hidden and not isinstance(backbone, Transformer):
            raise ValueError(
                "drop_hidden=true needs backbone=transformer: a "
                f"{type(backbone).__name__} computes all tokens"
            )
        self.head, self.loss, self.bn_stats = head, loss, bn_stats
        self.drop_hidden = drop_hidden

    def pathway(
        self,
        x: Float[Tensor, "N T V C"],
        clip_index: Int[Tensor, " N"],
        clips: int,
        mask: Bool[Tensor, "N S V"] | None = None,
        with_importance: bool = False,
    ) -> Prediction:
        """One pathway: backbone, then head."""
        update = mask is None or self.bn_stats == "both"
        if mask is not None and self.drop_hidden:
            return self.head(self._visible(x, mask), clip_index, clips, update_stats=update)
        with running_stats(self.backbone, update):
            features = self.encode(x, mask, with_importance)
        prediction = self.head(features.tokens, clip_index, clips, update_stats=update)
        return prediction._replace(importance=features.importance)

    def _visible(
        self, x: Float[Tensor, "N T V C"], mask: Bool[Tensor, "N S V"]
    ) -> Float[Tensor, "N S V D"]:
        """Tokens of what is visible, and their mean in the place of what is not."""
        hidden = self.masking.num_masked(*mask.shape[1:]) if self.masking else None
        if hidden is None:
            raise InputError(
                "drop_hidden=true needs a masking that hides as many tokens of every clip; type "
                "masking=attention, top or random, or method.drop_hidden=false"
            )
        backbone = cast(Transformer, self.backbone)
        keep = visible_tokens(mask, hidden)
        visible = backbone.encode_visible(x, keep)
        tokens = visible.mean(1, keepdim=True).expand(-1, mask[0].numel(), -1)
        places = keep.unsqueeze(-1).expand_as(visible)
        return tokens.scatter(1, places, visible).unflatten(1, mask.shape[1:])

    @per_clip
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Standard pathway, masked pathway, losses over both."""
        clips = len(batch["label"])
        x, clip_index = self.pack(self.augment(batch["clip"]), batch)
        guided = self.masking is not None and self.masking.uses_importance
        standard = self.pathway(x, clip_index, clips, with_importance=guided)
        mask = masked = None
        if self.masking is not None:
            mask = self.masking(x, standard.importance, self.backbone.stride)
            masked = self.pathway(x, clip_index, clips, mask=mask)
        losses = self.loss(standard, masked, batch["label"])
        self.log_step(losses, clips)
        return {"loss": losses["loss"], "mask": mask}

    def classify(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], clips: int
    ) -> Prediction:
        """What the head makes of the standard pathway."""
        prediction: Prediction = self.head(tokens, clip_index, clips)
        return prediction
