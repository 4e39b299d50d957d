"""Cross-entropy."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.types import Prediction


class CrossEntropy(nn.Module):
    """Cross-entropy on the logits of both pathways (their mean), as in the paper's figure.

    Args:
        pathways: `both`, or `standard` for the default of the released code. Without a
            masked pathway the two are the same.
        label_smoothing: In [0, 1).
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
        """Mean over clips (and pathways)."""
        views = [standard] if masked is None or self.pathways == "standard" else [standard, masked]
        losses = [
            F.cross_entropy(view.logits.float(), label, label_smoothing=self.label_smoothing)
            for view in views
        ]
        return sum(losses[1:], losses[0]) / len(losses)
