"""Cross-entropy."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.types import Prediction


class CrossEntropy(nn.Module):
    """Cross-entropy, averaged over clips and pathways as in MaskCLR's figure.

    Args:
        pathways: `both`, or `standard` as the released code by default. The two are equal without a
            masked pathway.
        label_smoothing: In [0, 1).

    Raises:
        ValueError: If `pathways` is unknown.

    Example:
        >>> from maskclr_pl.types import Prediction
        >>> standard = Prediction(logits=torch.zeros(4, 5), embedding=torch.zeros(4, 8))
        >>> CrossEntropy()(standard, None, torch.arange(4))  # log 5
        tensor(1.6094)
    """

    uses_masked = False

    def __init__(
        self, pathways: Literal["both", "standard"] = "both", label_smoothing: float = 0.0
    ):
        super().__init__()
        if pathways not in ("both", "standard"):
            raise ValueError(f"pathways must be both or standard, got {pathways!r}")
        self.pathways, self.label_smoothing = pathways, label_smoothing

    def forward(
        self, standard: Prediction, masked: Prediction | None, label: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """See `LossTerm`."""
        pathways = [standard]
        if masked is not None and self.pathways == "both":
            pathways.append(masked)
        losses = [
            F.cross_entropy(pathway.logits.float(), label, label_smoothing=self.label_smoothing)
            for pathway in pathways
        ]
        return sum(losses[1:], losses[0]) / len(losses)
