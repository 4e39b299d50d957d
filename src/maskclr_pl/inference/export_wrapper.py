"""A classifier as one function of a tensor, which can be exported."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.methods.base import visible_persons
from maskclr_pl.methods.classifier import Classifier


class ExportWrapper(nn.Module):
    """Clips as the data module delivers them to logits, with every person computed.

    `Method.pack` leaves absent persons out, so that the shapes depend on the data, which no
    exported graph can do. Here absent persons are computed as well and count for nothing: the
    heads' mean over M persons is that over the k present ones if their tokens are multiplied by
    M / k and the others by 0, since all that a head does before that mean is linear.

    Args:
        method: Trained classifier, in eval mode.
    """

    def __init__(self, method: Classifier):
        super().__init__()
        self.method = method

    def forward(self, clip: Float[Tensor, "B M T V 3"]) -> Float[Tensor, "B K"]:
        """Logits of clips, any number of them."""
        clips, persons = clip.shape[:2]
        clip = self.method.preprocess(clip)
        tokens = self.method.backbone(clip.flatten(0, 1).contiguous()).tokens
        if self.method.persons == "packed":
            tokens = tokens * self._weight(clip).flatten()[:, None, None, None]
        clip_index = torch.arange(clips * persons, device=clip.device) // persons
        return self.method.classify(tokens, clip_index, clips).logits

    @staticmethod
    def _weight(clip: Float[Tensor, "B M T V 3"]) -> Float[Tensor, "B M"]:
        """How much each person counts; the weights of a clip sum to M, or 0 if nobody is there."""
        present = visible_persons(clip).to(clip.dtype)
        return present * (clip.shape[1] / present.sum(1, keepdim=True).clamp_min(1))
