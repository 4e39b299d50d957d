"""One-shot recognition: new classes from a single clip of each.

MotionBERT's protocol on NTU RGB+D 120 (Zhu et al., ICCV 2023, section 4.4): an embedding is trained
on the clips of 100 auxiliary classes with the supervised contrastive loss; a clip of one of 20 new
classes gets the class of the exemplar that is nearest by cosine. Unlike in the released code, the
model is in eval mode at test time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.distributed import gather
from maskclr_pl.losses.contrastive import supervised_contrastive_loss
from maskclr_pl.methods.base import per_clip
from maskclr_pl.methods.classifier import Classifier
from maskclr_pl.methods.protocols.features import FeatureBank, embed_all
from maskclr_pl.types import Batch, Prediction

_NO_EXEMPLAR = -2.0
"""The score of a class without an exemplar: below any cosine."""


def nearest_exemplar(
    query: Float[Tensor, "B E"],
    exemplars: Float[Tensor, "n E"],
    label: Int[Tensor, " n"],
    num_classes: int,
) -> Float[Tensor, "B K"]:
    """Cosine to the nearest exemplar of each class; -2 for a class without one.

    Args:
        query: Embeddings of the clips.
        exemplars: Embeddings of the exemplars.
        label: Their classes.
        num_classes: K.
    """
    cosine = F.normalize(query.float(), dim=-1) @ F.normalize(exemplars.float(), dim=-1).T
    scores = cosine.new_full((query.shape[0], num_classes), _NO_EXEMPLAR)
    return scores.scatter_reduce(1, label.expand_as(cosine), cosine, "amax")


class OneShot(Classifier):
    """Supervised contrast on auxiliary classes, nearest exemplar on new ones.

    Needs the data module's `exemplar_split`. Nothing is validated: there are no clips of the new
    classes to choose a checkpoint by. The embeddings of the exemplars become part of the
    checkpoint.

    Args:
        backbone: See `Method`; so are the keyword arguments not listed here.
        head: Tokens to embedding (`heads.EmbeddingHead`).
        num_classes: K, of auxiliary and new classes together.
        temperature: Of the contrast (published: 0.1).
        base_temperature: The loss is scaled by temperature / base_temperature (published: 0.07).

    Raises:
        ValueError: If a temperature is not positive.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        num_classes: int,
        temperature: float = 0.1,
        base_temperature: float = 0.07,
        **shared: Any,
    ):
        super().__init__(backbone, num_classes, **shared)
        if not (temperature > 0 and base_temperature > 0):
            raise ValueError(
                f"temperatures must be positive, got {temperature} and {base_temperature}"
            )
        self.head, self.num_classes = head, num_classes
        self.temperature, self.base_temperature = temperature, base_temperature
        self.bank = FeatureBank()

    @per_clip
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Clips of a class together, those of other classes apart."""
        rows = self.place(self.augment(batch["clip"]), batch)
        loss = supervised_contrastive_loss(
            *(gather(rows), gather(batch["label"])), *(self.temperature, self.base_temperature)
        )
        self.log_step({"loss": loss}, len(rows))
        return {"loss": loss, "embedding": rows.detach()}

    def place(self, clip: Float[Tensor, "B M T V C"], batch: Batch) -> Float[Tensor, "B E"]:
        """Embeddings of clips after their transforms."""
        x, clip_index = self.pack(clip, batch)
        embedding: Tensor = self.head(self.encode(x).tokens, clip_index, len(clip))
        return embedding

    def on_train_epoch_end(self) -> None:
        """Before a checkpoint is written: where the exemplars are now."""
        with eval_mode(self):
            part = self.trainer.datamodule.exemplars  # type: ignore[attr-defined]
            rows = embed_all(self, part, lambda b: self.place(self.preprocess(b["clip"]), b))
            self.bank.fill(*rows)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: validation clips are of the auxiliary classes."""

    def on_validation_epoch_end(self) -> None:
        """Nothing was counted."""

    def classify(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], clips: int
    ) -> Prediction:
        """How near clips are to the exemplars of each class."""
        rows: Tensor = self.head(tokens, clip_index, clips)
        with torch.autocast(rows.device.type, enabled=False):
            logits = nearest_exemplar(rows, self.bank.features, self.bank.label, self.num_classes)
        return Prediction(logits, rows)


@contextmanager
def eval_mode(method: nn.Module) -> Iterator[None]:
    """Eval mode for a while."""
    training = method.training
    method.eval()
    try:
        yield
    finally:
        method.train(training)
