"""The base class of methods that classify clips: validation, test, predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from maskclr_pl.backbones import Backbone
from maskclr_pl.heads import count_non_finite_as_wrong
from maskclr_pl.methods.base import Method
from maskclr_pl.methods.protocols.features import gather_columns
from maskclr_pl.types import Batch, Prediction


class Classifier(Method, ABC):
    """A method that classifies clips; subclasses implement `classify` and how it learns.

    Args:
        backbone: See `Method`, likewise keyword arguments not listed here.
        num_classes: K.
    """

    validates = True

    def __init__(self, backbone: Backbone, num_classes: int, **shared: Any):
        super().__init__(backbone, **shared)
        accuracy = MetricCollection(
            {
                f"top{k}": MulticlassAccuracy(
                    num_classes, top_k=min(k, num_classes), average="micro"
                )
                for k in (1, 5)
            }
        )
        self.val_accuracy, self.test_accuracy = accuracy.clone("val/"), accuracy.clone("test/")
        self.predictions: dict[str, Tensor] = {}
        """Last test on the CPU: index (n,), label (n,), logits (n, K)."""
        self._test_batches: list[tuple[Tensor, ...]] = []

    @classmethod
    def row_name(cls, config: Mapping[str, Any]) -> str | None:
        """See `Method.row_name`: named after the origin of the backbone."""
        return None

    @abstractmethod
    def classify(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], batch_size: int
    ) -> Prediction:
        """Predict the classes of clips from the tokens of their persons.

        Args:
            tokens: Output of the backbone.
            clip_index: Clip of each person, in [0, B); B for persons to ignore.
            batch_size: B.
        """

    def predict_clips(self, clip: Float[Tensor, "B M T V C"], batch: Batch) -> Prediction:
        """Predict the classes of clips as the data module delivers them (maybe corrupted)."""
        x, clip_index = self.pack(self.preprocess(clip), batch)
        return self.classify(self.encode(x).tokens, clip_index, clip.shape[0])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log accuracy and loss of the standard pathway."""
        logits = self.predict_clips(batch["clip"], batch).logits
        self.log_validation(logits.float(), batch["label"])

    def log_validation(self, logits: Float[Tensor, "B K"], label: Int[Tensor, " B"]) -> None:
        """Log loss and accuracy; logits that are not finite count as wrong."""
        loss = nn.functional.cross_entropy(logits, label)
        self.log("val/loss", loss, on_epoch=True, batch_size=len(label), sync_dist=True)
        self.val_accuracy.update(count_non_finite_as_wrong(logits, label), label)

    def on_validation_epoch_end(self) -> None:
        """Log accuracies in percent."""
        self._log_percent(self.val_accuracy)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure the accuracy of the standard pathway and keep the logits."""
        logits = self.predict_clips(batch["clip"], batch).logits.float()
        self.test_accuracy.update(count_non_finite_as_wrong(logits, batch["label"]), batch["label"])
        self._test_batches.append((batch["index"], batch["label"], logits))

    def on_test_epoch_end(self) -> None:
        """Log accuracies in percent; collect the predictions of all ranks, sorted by index."""
        self._log_percent(self.test_accuracy)
        columns = gather_columns(self._test_batches)
        self._test_batches.clear()
        order = columns[0].argsort()
        names = ("index", "label", "logits")
        self.predictions = {
            name: column[order] for name, column in zip(names, columns, strict=True)
        }

    def _log_percent(self, accuracy: MetricCollection) -> None:
        values = {name: 100 * value for name, value in accuracy.compute().items()}
        self.log_dict(values, prog_bar=True)
        accuracy.reset()
