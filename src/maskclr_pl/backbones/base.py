"""What a backbone is."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskclr_pl.types import Features


class Backbone(nn.Module):
    """One person's sequence at a time; knows nothing of clips, classes or losses.

    A subclass sets `dim` (D, width of its tokens) and `stride` (frames per token step), takes
    any T that it can cut into steps, and states its definition of importance.
    """

    dim: int
    stride: int
    loaded: object | None = None
    """What became of the names in a published checkpoint, if it started from one."""

    def forward(
        self,
        x: Float[Tensor, "N T V C"],
        *,
        mask: Bool[Tensor, "N S V"] | None = None,
        with_importance: bool = False,
    ) -> Features:
        """Tokens (N, S, V, D) of person sequences.

        Args:
            x: Sequences; N may be 0.
            mask: True where the token's embedding is replaced by a learned mask token, before the
                positional embeddings are added (the paper's figure).
            with_importance: Also return importance (N, T, V). The tokens are bit-identical
                with and without it.
        """
        raise NotImplementedError

    def check_frames(self, frames: int) -> str | None:
        """Why a clip length does not fit, in one line; None if it does."""
        return None
