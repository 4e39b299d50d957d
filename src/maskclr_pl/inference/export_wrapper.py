"""A classifier as one function of a tensor, in a form that can be exported."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.methods.base import visible_persons
from maskclr_pl.methods.classifier import Classifier


class ExportWrapper(nn.Module):
    """Map clips as the data module delivers them to logits, with every person computed.

    `Method.pack` leaves absent persons out, so its shapes depend on the data, which an exported
    graph does not allow. Here absent persons are computed as well but have no weight: the heads
    average over persons, and everything before that average is linear, so multiplying the tokens of
    the k present persons by M / k and those of the others by 0 gives the same mean.

    Args:
        method: Trained classifier, in eval mode.
    """

    def __init__(self, method: Classifier):
        super().__init__()
        self.method = method

    def forward(self, clip: Float[Tensor, "B M T V 3"]) -> Float[Tensor, "B K"]:
        """Logits of clips, for any batch size."""
        batch_size, persons = clip.shape[:2]
        clip = self.method.preprocess(clip)
        tokens = self.method.backbone(clip.flatten(0, 1).contiguous()).tokens  # (B * M, S, V, D)
        if self.method.persons == "packed":
            tokens = tokens * self._weight(clip).flatten()[:, None, None, None]
        clip_index = torch.arange(batch_size * persons, device=clip.device) // persons
        return self.method.classify(tokens, clip_index, batch_size).logits

    @staticmethod
    def _weight(clip: Float[Tensor, "B M T V 3"]) -> Float[Tensor, "B M"]:
        """Weight of each person; weights of a clip sum to M, or to 0 if it is empty."""
        present = visible_persons(clip).to(clip.dtype)
        return present * (clip.shape[1] / present.sum(1, keepdim=True).clamp_min(1))
