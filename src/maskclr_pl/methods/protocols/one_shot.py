"""One-shot recognition: novel classes from one exemplar clip each.

MotionBERT's protocol on NTU RGB+D 120 (Zhu et al., ICCV 2023, section 4.4): an embedding is trained
on 100 auxiliary classes with the supervised contrastive loss; clips of 20 novel classes are
assigned to the exemplar with the highest cosine similarity. Unlike in the released code, the model
is in eval mode at test time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.distributed import gather
from maskclr_pl.losses.contrastive import supervised_contrastive_loss
from maskclr_pl.methods.base import rank_invariant
from maskclr_pl.methods.classifier import Classifier
from maskclr_pl.methods.protocols.features import FeatureBank, embed_all, eval_mode
from maskclr_pl.types import Batch, Prediction

_NO_EXEMPLAR = -2.0
"""Score of a class without an exemplar, below any cosine."""


def nearest_exemplar(
    query: Float[Tensor, "B E"],
    exemplars: Float[Tensor, "n E"],
    label: Int[Tensor, " n"],
    num_classes: int,
) -> Float[Tensor, "B K"]:
    """Compute the cosine to the nearest exemplar of each class; -2 for a class without one.

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
    """Supervised contrast on auxiliary classes, nearest exemplar on novel ones.

    Needs the data module's `exemplar_split`. There is no validation: no clips of the novel classes
    are available to choose a checkpoint by. The embeddings of the exemplars become part of the
    checkpoint.

    Args:
        backbone: See `Method`, likewise keyword arguments not listed here.
        head: Tokens to embedding (`heads.EmbeddingHead`).
        num_classes: K, auxiliary and novel classes together.
        temperature: Temperature of the contrast (published: 0.1).
        base_temperature: The loss is scaled by temperature / base_temperature (published: 0.07).

    Raises:
        ValueError: If a temperature is not positive.
    """

    protocol = "one-shot"
    validates = False
    needs_exemplars = True

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

    @rank_invariant
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Supervised contrast of the embeddings of all ranks."""
        embedding = self.embed_clips(self.augment(batch["clip"]), batch)
        loss = supervised_contrastive_loss(
            gather(embedding), gather(batch["label"]), self.temperature, self.base_temperature
        )
        self.log_step({"loss": loss}, len(embedding))
        return {"loss": loss, "embedding": embedding.detach()}

    def embed_clips(self, clip: Float[Tensor, "B M T V C"], batch: Batch) -> Float[Tensor, "B E"]:
        """Compute the embeddings of transformed clips."""
        x, clip_index = self.pack(clip, batch)
        embedding: Tensor = self.head(self.encode(x).tokens, clip_index, len(clip))
        return embedding

    def on_train_epoch_end(self) -> None:
        """Embed the exemplars before a checkpoint is written."""

        def embed(batch: Batch) -> Float[Tensor, "B E"]:
            return self.embed_clips(self.preprocess(batch["clip"]), batch)

        with eval_mode(self):
            exemplars = self.trainer.datamodule.exemplars  # type: ignore[attr-defined]
            self.bank.fill(*embed_all(self, exemplars, embed))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Skip: validation clips are of the auxiliary classes."""

    def on_validation_epoch_end(self) -> None:
        """Skip: nothing was measured."""

    def classify(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Prediction:
        """See `Classifier.classify`: cosines to the exemplars."""
        embedding: Tensor = self.head(tokens, clip_index, batch_size)
        with torch.autocast(embedding.device.type, enabled=False):
            logits = nearest_exemplar(
                embedding, self.bank.features, self.bank.label, self.num_classes
            )
        return Prediction(logits, embedding)
