"""What every method that names the class of a clip shares: validation, test, predictions."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from maskclr_pl.backbones import Backbone
from maskclr_pl.finite import with_wrong_answers
from maskclr_pl.methods.base import Method
from maskclr_pl.methods.protocols.features import gather_columns
from maskclr_pl.types import Batch, Prediction


class Classifier(Method, ABC):
    """Measures; how it learns is a subclass's.

    Args:
        backbone: See `Method`; so are the keyword arguments not listed here.
        num_classes: K.
    """

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
        """Of the last test: index (n,), label (n,), logits (n, K), on the CPU."""
        self._tested: list[tuple[Tensor, ...]] = []

    @abstractmethod
    def classify(
        self, tokens: Float[Tensor, "N S V D"], clip_index: Int[Tensor, " N"], clips: int
    ) -> Prediction:
        """What the method says of clips, given the tokens of their persons.

        Args:
            tokens: What the backbone makes of the persons.
            clip_index: The clip that each person belongs to, in [0, clips).
            clips: B.
        """

    def predict_clips(self, clip: Float[Tensor, "B M T V C"], batch: Batch) -> Prediction:
        """What the method says of clips as the data module delivers them (maybe corrupted)."""
        x, clip_index = self.pack(self.preprocess(clip), batch)
        return self.classify(self.encode(x).tokens, clip_index, clip.shape[0])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy and loss of the standard pathway."""
        self.validate(self.predict_clips(batch["clip"], batch).logits.float(), batch["label"])

    def validate(self, logits: Float[Tensor, "B K"], label: Int[Tensor, " B"]) -> None:
        """Count and log what was said of validation clips; without an answer one is wrong."""
        loss = nn.functional.cross_entropy(logits, label)
        self.log("val/loss", loss, on_epoch=True, batch_size=len(label), sync_dist=True)
        self.val_accuracy.update(with_wrong_answers(logits, label), label)

    def on_validation_epoch_end(self) -> None:
        """Log accuracies in percent."""
        self._log_percent(self.val_accuracy)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy of the standard pathway; the logits are kept."""
        logits = self.predict_clips(batch["clip"], batch).logits.float()
        self.test_accuracy.update(with_wrong_answers(logits, batch["label"]), batch["label"])
        self._tested.append((batch["index"], batch["label"], logits))

    def on_test_epoch_end(self) -> None:
        """Log accuracies in percent and put the predictions of all ranks in order."""
        self._log_percent(self.test_accuracy)
        columns = gather_columns(self._tested)
        self._tested.clear()
        order = columns[0].argsort()
        self.predictions = {
            name: column[order]
            for name, column in zip(("index", "label", "logits"), columns, strict=True)
        }

    def _log_percent(self, accuracy: MetricCollection) -> None:
        values = {name: 100 * value for name, value in accuracy.compute().items()}
        self.log_dict(values, prog_bar=True)
        accuracy.reset()
