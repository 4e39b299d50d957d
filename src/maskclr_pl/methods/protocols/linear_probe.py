"""Linear evaluation of frozen features.

The protocol of MoCo-v3 and MAMP (Mao et al., ICCV 2023, section 4.3): features are the mean over
persons, steps and joints of the tokens, standardized by a BatchNorm without parameters. AimCLR's
protocol (Guo et al., AAAI 2022) has no BatchNorm. As in AimCLR and unlike MAMP, training clips are
not augmented, so their features are computed once.
"""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.methods.base import clip_features
from maskclr_pl.methods.classifier import Classifier
from maskclr_pl.methods.protocols.features import embed_all
from maskclr_pl.types import Batch, Prediction


class LinearProbe(Classifier):
    """Linear layer on the features of a frozen backbone.

    The backbone stays in eval mode without gradient: training changes no bit of it, BatchNorm
    buffers included. Features of training and validation clips are computed when a run starts or
    resumes; the clips are not read again.

    Args:
        backbone: See `Method`, likewise keyword arguments not listed here.
        num_classes: K.
        normalize: Insert a BatchNorm without parameters before the linear layer.
        init_std: Standard deviation of the initial weights of the linear layer (MAMP: 0.01;
            AimCLR: 0.02).
    """

    protocol = "linear"
    trains_backbone = False

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        normalize: bool = True,
        init_std: float = 0.01,
        **shared: Any,
    ):
        super().__init__(backbone, num_classes, **shared)
        backbone.requires_grad_(False).eval()
        linear = nn.Linear(backbone.dim, num_classes)
        nn.init.trunc_normal_(linear.weight, std=init_std)
        nn.init.zeros_(linear.bias)
        norm = nn.BatchNorm1d(backbone.dim, eps=1e-6, affine=False) if normalize else nn.Identity()
        self.head = nn.Sequential(norm, linear)
        self._features: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> "LinearProbe":
        """Set the mode of the head; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def setup(self, stage: str) -> None:
        """Tell the data module before its loaders start that poses are not needed."""
        if stage == "fit":
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            data.train, data.val = data.train.labels_only(), data.val.labels_only()

    def on_fit_start(self) -> None:
        """Compute the features of all clips, after a checkpoint was loaded."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        for split, clips in (("train", data.train), ("val", data.val)):
            if len(clips):
                self._features[split], _ = embed_all(self, clips, self.embed)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Cross-entropy on precomputed features."""
        logits = self.head(self._features["train"][batch["index"]])
        loss = F.cross_entropy(logits.float(), batch["label"])
        self.log_step({"loss": loss, "loss_ce": loss}, len(logits))
        return {"loss": loss}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log accuracy and loss on precomputed features."""
        logits = self.head(self._features["val"][batch["index"]])
        self.log_validation(logits.float(), batch["label"])

    def classify(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Prediction:
        """See `Classifier.classify`."""
        features = clip_features(tokens, clip_index, batch_size)
        return Prediction(self.head(features), features)
