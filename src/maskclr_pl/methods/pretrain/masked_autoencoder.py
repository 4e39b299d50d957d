"""Pre-training by predicting what is hidden: MAMP and SkeletonMAE, one class in two settings.

Mao et al., "Masked Motion Predictors are Strong 3D Action Representation Learners", ICCV 2023.
Wu et al., "SkeletonMAE: Spatial-Temporal Masked Autoencoders for Self-supervised Skeleton Action
Recognition", ICMEW 2023.
"""

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone, Transformer
from maskclr_pl.backbones.layers import BatchNorm2d, running_stats
from maskclr_pl.distributed import mean_count
from maskclr_pl.masking import Masking, visible_tokens
from maskclr_pl.methods.base import Method, per_clip
from maskclr_pl.methods.pretrain.decoders import TransformerDecoder
from maskclr_pl.types import Batch, InputError
from maskclr_pl.visibility import DIMENSIONS, visible_joints

Target = Literal["motion", "coordinates"]


class MaskedAutoencoder(Method):
    """Hides tokens of each person and learns to predict their coordinates or their motion.

    With a `TransformerDecoder` the backbone never sees the hidden tokens (asymmetric, as MAMP).
    With any other decoder they are replaced by the backbone's mask token: STTFormer's maps and
    convolutions are tied to the whole grid of joints and frames. The SkeletonMAE of Wu et al.
    drops them instead; its ratios and decoder are not known. The running statistics of BatchNorms
    follow whole clips alone, which is what is encoded later: every fourth step has a second pass
    for them, without gradient.

    `masking` is filled by `callbacks.MaskingCallback`. The loss is the mean squared error over the
    hidden tokens of all persons, each with the same weight. Tokens in which the joint is missing do
    not count, and so absent persons do not; the released code counts their zeros.

    Args:
        backbone: See `Method`; so are the keyword arguments not listed here.
        decoder: Makes the decoder from `dim`, `stride` and `channels`.
        target: `motion` (MAMP): x[t + 1] - x[t], 0 in the last frame as published. `coordinates`.
        normalise: Each token's target less its mean, over its standard deviation.
        coordinates: What the clips hold: `pixels` (x, y, confidence), where x and y are predicted,
            or `metres` (x, y, z).

    Raises:
        InputError: If the decoder does not go with the backbone.
        ValueError: If a choice is unknown.
    """

    masking: Masking | None = None

    def __init__(
        self,
        backbone: Backbone,
        decoder: Callable[..., nn.Module],
        target: Target = "motion",
        normalise: bool = True,
        coordinates: Literal["pixels", "metres"] = "metres",
        **shared: Any,
    ):
        super().__init__(backbone, **shared)
        if target not in ("motion", "coordinates"):
            raise ValueError(f"target must be motion or coordinates, got {target!r}")
        if coordinates not in ("pixels", "metres"):
            raise ValueError(f"coordinates must be pixels or metres, got {coordinates!r}")
        self.target, self.normalise = target, normalise
        self.channels = DIMENSIONS[coordinates]
        self._with_statistics = any(isinstance(m, BatchNorm2d) for m in backbone.modules())
        self.decoder = decoder(dim=backbone.dim, stride=backbone.stride, channels=self.channels)
        if isinstance(self.decoder, TransformerDecoder) and not isinstance(backbone, Transformer):
            raise InputError(
                "decoder=transformer goes with backbone=transformer, which drops hidden tokens; "
                f"{type(backbone).__name__} replaces them: type decoder=sttformer or decoder=linear"
            )

    @per_clip
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Hide, encode what is left, predict what was hidden."""
        if self.masking is None:
            raise ValueError("a masked autoencoder needs a masking strategy in every step")
        x, _ = self.pack(self.augment(batch["clip"]), batch)
        points, there = self.points(x)
        mask = self.masking(points, None, self.backbone.stride)
        prediction, embedding = self.predict_hidden(x, mask)
        if self._with_statistics and batch_idx % 4 == 0:
            with torch.no_grad():
                self.encode(x)
        target = self.target_of(points, there)
        counted = mask & patches(there.unsqueeze(-1), self.backbone.stride).all(-1)
        loss = masked_error(prediction, target, counted)
        self.log_step({"loss": loss}, len(batch["label"]))
        return {"loss": loss, "mask": mask, "embedding": embedding.detach()}

    def points(
        self, x: Float[Tensor, "N T V C"]
    ) -> tuple[Float[Tensor, "N T V c"], Bool[Tensor, "N T V"]]:
        """The coordinates, and which joints are there."""
        if self.channels == 2:
            return x[..., :2], x[..., 2] > 0
        return x, visible_joints(x)

    def predict_hidden(
        self, x: Float[Tensor, "N T V C"], mask: Bool[Tensor, "N S V"]
    ) -> tuple[Float[Tensor, "N S V P"], Float[Tensor, "N D"]]:
        """Values of every token, and the mean token of each person."""
        if not isinstance(self.decoder, TransformerDecoder):
            with running_stats(self.backbone, False):
                tokens = self.encode(x, mask).tokens
            return self.decoder(tokens), tokens.mean((1, 2))
        hidden = self.masking.num_masked(*mask.shape[1:]) if self.masking else None
        if hidden is None:
            raise ValueError("tokens can only be dropped if as many are hidden in every sequence")
        keep = visible_tokens(mask, hidden)
        seen = cast(Transformer, self.backbone).encode_visible(x, keep)
        return self.decoder(seen, keep), seen.mean(1)

    def target_of(
        self, points: Float[Tensor, "N T V c"], there: Bool[Tensor, "N T V"]
    ) -> Float[Tensor, "N S V P"]:
        """What is to be predicted of each token, in float32 and without gradient."""
        values = motion(points, there) if self.target == "motion" else points
        values = patches(values.float().detach(), self.backbone.stride)
        if not self.normalise:
            return values
        values = values - values.mean(-1, keepdim=True)
        # not torch.var, which warns where nobody is there
        variance = values.square().sum(-1, keepdim=True) / (values.shape[-1] - 1)
        return values / (variance + 1e-6).sqrt()


def patches(x: Tensor, stride: int) -> Tensor:
    """(N, T, V, C) to the values of each token (N, S, V, stride * C), order (frame, channel)."""
    return x.unflatten(1, (-1, stride)).transpose(2, 3).flatten(3)


def motion(
    points: Float[Tensor, "N T V c"], there: Bool[Tensor, "N T V"]
) -> Float[Tensor, "N T V c"]:
    """x[t + 1] - x[t]; 0 in the last frame, and where the joint is missing in one of the two."""
    both = (there[:, 1:] & there[:, :-1]).unsqueeze(-1)
    moved = (points[:, 1:] - points[:, :-1]) * both
    return torch.cat((moved, torch.zeros_like(points[:, :1])), dim=1)


def masked_error(
    prediction: Float[Tensor, "N S V P"],
    target: Float[Tensor, "N S V P"],
    counted: Bool[Tensor, "N S V"],
) -> Float[Tensor, ""]:
    """Mean squared error over the tokens that count, of all ranks; 0 if none does."""
    error = (prediction.float() - target).square().mean(-1)
    return (error * counted).sum() / mean_count(counted.sum())
