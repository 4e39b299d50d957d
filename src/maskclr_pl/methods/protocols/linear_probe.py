"""Linear evaluation: how well a linear layer on frozen features tells the classes apart.

The protocol of MoCo-v3 and MAMP (Mao et al., ICCV 2023, section 4.3): features are the mean over
persons, steps and joints of the tokens, standardised by a BatchNorm without parameters. AimCLR's
(Guo et al., AAAI 2022) has no BatchNorm. As AimCLR's and unlike MAMP's, ours does not augment the
training clips, so that their features are computed only once.
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
    """A linear layer on the features of a frozen backbone.

    The backbone is in eval mode and gets no gradient: training leaves it, with the buffers of its
    BatchNorms, bit by bit as it was. Features of the training and validation clips are computed at
    the start of a run (or of its continuation); the clips are not read again.

    Args:
        backbone: See `Method`; so are the keyword arguments not listed here.
        num_classes: K.
        normalise: A BatchNorm without parameters before the linear layer.
        init_std: Standard deviation of the linear layer's weights at the start (MAMP: 0.01;
            AimCLR: 0.02).
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        normalise: bool = True,
        init_std: float = 0.01,
        **shared: Any,
    ):
        super().__init__(backbone, num_classes, **shared)
        backbone.requires_grad_(False).eval()
        linear = nn.Linear(backbone.dim, num_classes)
        nn.init.trunc_normal_(linear.weight, std=init_std)
        nn.init.zeros_(linear.bias)
        norm = nn.BatchNorm1d(backbone.dim, eps=1e-6, affine=False) if normalise else nn.Identity()
        self.head = nn.Sequential(norm, linear)
        self._features: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> "LinearProbe":
        """Training mode for the head alone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def setup(self, stage: str) -> None:
        """Before the loaders start: they need to bring no poses."""
        if stage == "fit":
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            data.train, data.val = data.train.without_poses(), data.val.without_poses()

    def on_fit_start(self) -> None:
        """After a checkpoint was loaded, if there is one: the features of all clips."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        for name, part in (("train", data.train), ("val", data.val)):
            if len(part):
                self._features[name], _ = embed_all(self, part, self.embed)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Cross-entropy on the features of the clips."""
        logits = self.head(self._features["train"][batch["index"]])
        loss = F.cross_entropy(logits.float(), batch["label"])
        self.log_step({"loss": loss, "loss_ce": loss}, len(logits))
        return {"loss": loss}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy and loss on the features of the clips."""
        self.validate(self.head(self._features["val"][batch["index"]]).float(), batch["label"])

    def classify(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], clips: int
    ) -> Prediction:
        """What the layer says of clips whose features are not known yet."""
        features = clip_features(tokens, clip_index, clips)
        return Prediction(self.head(features), features)
