"""Masked autoencoders: MAMP and SkeletonMAE, one class with two settings.

Mao et al., "Masked Motion Predictors are Strong 3D Action Representation Learners", ICCV 2023.
Wu et al., "SkeletonMAE: Spatial-Temporal Masked Autoencoders for Self-supervised Skeleton Action
Recognition", ICMEW 2023.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.backbones.layers import frozen_batch_stats, has_batch_norm
from maskclr_pl.distributed import mean_count
from maskclr_pl.masking import Masking, visible_tokens
from maskclr_pl.methods.base import Method, rank_invariant
from maskclr_pl.types import Batch, InputError
from maskclr_pl.visibility import DIMENSIONS, visible_joints

Target = Literal["motion", "coordinates"]


class MaskedAutoencoder(Method):
    """Mask tokens of each person and predict their coordinates or motion.

    With a decoder of visible tokens (`TransformerDecoder`) the backbone never encodes the masked
    ones (asymmetric, as MAMP). With other decoders they are replaced by the backbone's mask token:
    STTFormer's maps and convolutions need the whole grid of joints and frames. The SkeletonMAE of
    Wu et al. drops them instead; its ratios and decoder are not known. BatchNorm statistics follow
    unmasked clips, which are encoded later: every fourth step has an extra pass without gradient.

    `callbacks.MaskingCallback` sets `masking`. The loss is the mean squared error over the masked
    tokens of all persons, with equal weights. Tokens with a missing joint, and so absent persons,
    do not count; the released code counts their zeros.

    Args:
        backbone: See `Method`, likewise keyword arguments not listed here.
        decoder: Builds the decoder from `dim`, `stride` and `channels`.
        target: `motion` (MAMP): x[t + 1] - x[t], 0 in the last frame as published. `coordinates`.
        normalize: Standardize the target of each token.
        coordinates: Units of the clips: `pixels` (x, y, confidence), of which x and y are
            predicted, or `metres` (x, y, z).

    Raises:
        InputError: If decoder and backbone do not match.
        ValueError: If a choice is unknown.
    """

    masking: Masking | None = None

    def __init__(
        self,
        backbone: Backbone,
        decoder: Callable[..., nn.Module],
        target: Target = "motion",
        normalize: bool = True,
        coordinates: Literal["pixels", "metres"] = "metres",
        **shared: Any,
    ):
        super().__init__(backbone, **shared)
        if target not in ("motion", "coordinates"):
            raise ValueError(f"target must be motion or coordinates, got {target!r}")
        if coordinates not in ("pixels", "metres"):
            raise ValueError(f"coordinates must be pixels or metres, got {coordinates!r}")
        self.target, self.normalize = target, normalize
        self.channels = DIMENSIONS[coordinates]
        self._has_batch_norm = has_batch_norm(backbone)
        self.decoder = decoder(dim=backbone.dim, stride=backbone.stride, channels=self.channels)
        self._drops_masked = getattr(self.decoder, "takes_visible_tokens", False)
        if self._drops_masked and not backbone.drops_masked_tokens:
            raise InputError(
                "decoder=transformer needs a backbone that drops masked tokens, but "
                f"{type(backbone).__name__} replaces them; pass decoder=sttformer, decoder=linear "
                "or backbone=transformer"
            )

    @classmethod
    def row_name(cls, config: Mapping[str, Any]) -> str | None:
        """See `Method.row_name`."""
        target = (config.get("method") or {}).get("target")
        return "MAMP" if target == "motion" else "SkeletonMAE"

    def check_masking(self, strategy: Masking | None, start_epoch: float, frames: int) -> None:
        """See `Method.check_masking`."""
        if strategy is None or strategy.uses_importance or start_epoch:
            raise InputError(
                "masked autoencoders need a mask from epoch 0 that does not depend on attention; "
                "pass masking=motion, masking=frames_joints, or masking=random "
                "masking.start_epoch=0"
            )
        steps, joints = frames // self.backbone.stride, len(self.skeleton)
        num_masked = strategy.num_masked(steps, joints)
        if num_masked is not None and not 0 < num_masked < steps * joints:
            raise InputError(
                f"masking.strategy masks {num_masked} of {steps * joints} tokens; a masked "
                "autoencoder needs masked and visible tokens: pass another masking.strategy.ratio"
            )

    @rank_invariant
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Mask, encode the visible tokens, predict the masked ones."""
        if self.masking is None:
            raise ValueError("masked autoencoders need a masking strategy in every step")
        x, _ = self.pack(self.augment(batch["clip"]), batch)
        points, visible = self.points(x)
        mask = self.masking(points, None, self.backbone.stride)
        prediction, embedding = self.predict_hidden(x, mask)
        if self._has_batch_norm and batch_idx % 4 == 0:
            with torch.no_grad():
                self.encode(x)  # updates the running statistics
        target = self.target_of(points, visible)
        counted = mask & patches(visible.unsqueeze(-1), self.backbone.stride).all(-1)
        loss = masked_error(prediction, target, counted)
        self.log_step({"loss": loss}, len(batch["label"]))
        return {"loss": loss, "mask": mask, "embedding": embedding.detach()}

    def points(
        self, x: Float[Tensor, "N T V C"]
    ) -> tuple[Float[Tensor, "N T V c"], Bool[Tensor, "N T V"]]:
        """Split clips into coordinates and joint visibility."""
        if self.channels == 2:
            return x[..., :2], x[..., 2] > 0
        return x, visible_joints(x)

    def predict_hidden(
        self, x: Float[Tensor, "N T V C"], mask: Bool[Tensor, "N S V"]
    ) -> tuple[Float[Tensor, "N S V P"], Float[Tensor, "N D"]]:
        """Predict the values of every token; also return the mean token of each person."""
        if not self._drops_masked:
            with frozen_batch_stats(self.backbone):
                tokens = self.encode(x, mask).tokens
            return self.decoder(tokens), tokens.mean((1, 2))
        num_masked = self.masking.num_masked(*mask.shape[1:]) if self.masking else None
        if num_masked is None:
            raise ValueError("dropping tokens needs equally many masked ones in every sequence")
        keep = visible_tokens(mask, num_masked)
        tokens = self.backbone.encode_visible(x, keep)
        return self.decoder(tokens, keep), tokens.mean(1)

    def target_of(
        self, points: Float[Tensor, "N T V c"], visible: Bool[Tensor, "N T V"]
    ) -> Float[Tensor, "N S V P"]:
        """Compute the target of each token, in float32 and without gradient."""
        values = motion(points, visible) if self.target == "motion" else points
        values = patches(values.float().detach(), self.backbone.stride)
        if not self.normalize:
            return values
        values = values - values.mean(-1, keepdim=True)
        # torch.var warns about empty input
        variance = values.square().sum(-1, keepdim=True) / (values.shape[-1] - 1)
        return values / (variance + 1e-6).sqrt()


def patches(x: Tensor, stride: int) -> Tensor:
    """Reshape (N, T, V, C) to tokens (N, S, V, stride * C), in the order (frame, channel)."""
    return x.unflatten(1, (-1, stride)).transpose(2, 3).flatten(3)


def motion(
    points: Float[Tensor, "N T V c"], visible: Bool[Tensor, "N T V"]
) -> Float[Tensor, "N T V c"]:
    """Compute x[t + 1] - x[t]; 0 in the last frame and where the joint is missing."""
    both = (visible[:, 1:] & visible[:, :-1]).unsqueeze(-1)
    difference = (points[:, 1:] - points[:, :-1]) * both
    return torch.cat((difference, torch.zeros_like(points[:, :1])), dim=1)


def masked_error(
    prediction: Float[Tensor, "N S V P"],
    target: Float[Tensor, "N S V P"],
    counted: Bool[Tensor, "N S V"],
) -> Float[Tensor, ""]:
    """Mean squared error over the counted tokens of all ranks; 0 if there are none."""
    error = (prediction.float() - target).square().mean(-1)
    return (error * counted).sum() / mean_count(counted.sum())
