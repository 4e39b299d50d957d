"""Weighted k-nearest-neighbor classification of frozen features.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
section 3.4: the k nearest by cosine similarity s vote with weight exp(s / temperature).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maskclr_pl.backbones import Backbone
from maskclr_pl.methods.base import clip_features
from maskclr_pl.methods.classifier import Classifier
from maskclr_pl.methods.protocols.features import FeatureBank, embed_all
from maskclr_pl.types import Prediction

_FLOOR = 1e-12


def vote(
    query: Float[Tensor, "B D"],
    bank: Float[Tensor, "n D"],
    label: Int[Tensor, " n"],
    num_classes: int,
    k: int,
    temperature: float,
) -> Float[Tensor, "B K"]:
    """Compute the log share of each class in the weighted vote.

    Args:
        query: Features to classify.
        bank: Features of known clips, at least one.
        label: Their classes.
        num_classes: K.
        k: Voting neighbors, at most all n.
        temperature: > 0; small values favor the nearest.

    Returns:
        Finite logits: a class without a vote has log 1e-12.
    """
    cosine = F.normalize(query.float(), dim=-1) @ F.normalize(bank.float(), dim=-1).T  # (B, n)
    similarity, nearest = cosine.topk(min(k, len(bank)), dim=1)
    weight = (similarity / temperature).softmax(1)
    share = weight.new_zeros(query.shape[0], num_classes).scatter_add(1, label[nearest], weight)
    return share.clamp_min(_FLOOR).log()


class KNN(Classifier):
    """Weighted nearest neighbors on the features of a frozen backbone; nothing is trained.

    The features of the training clips become part of the checkpoint.

    Args:
        backbone: See `Method`, likewise keyword arguments not listed here.
        num_classes: K.
        k: Voting neighbors (200 in SimSiam's monitor, which AimCLR's author refers to).
        temperature: Temperature of the vote (0.1 there).

    Raises:
        ValueError: If k or the temperature is not positive.
    """

    protocol = "kNN"
    trains_backbone = False

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        k: int = 200,
        temperature: float = 0.1,
        **shared: Any,
    ):
        super().__init__(backbone, num_classes, **shared)
        if k < 1 or not temperature > 0:
            raise ValueError(f"k and temperature must be positive, got {k} and {temperature}")
        self.num_classes, self.k, self.temperature = num_classes, k, temperature
        backbone.requires_grad_(False)
        self.bank = FeatureBank()

    def setup(self, stage: str) -> None:
        """Compute the features of the training clips before the first prediction."""
        if not len(self.bank):
            self.eval()
            clips = self.trainer.datamodule.train  # type: ignore[attr-defined]
            self.bank.fill(*embed_all(self, clips, self.embed))

    def classify(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Prediction:
        """See `Classifier.classify`."""
        features = clip_features(tokens, clip_index, batch_size)
        with torch.autocast(features.device.type, enabled=False):
            logits = vote(
                features,
                self.bank.features,
                self.bank.label,
                self.num_classes,
                self.k,
                self.temperature,
            )
        return Prediction(logits, features)
