"""Contrastive losses between the two pathways of a clip, and between classes.

All are computed in float32 with log-sum-exp over the clips of all ranks, and differentiable with
respect to each.
"""

import functools
import math
from collections.abc import Callable
from typing import ParamSpec

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.distributed import gather
from maskclr_pl.types import Prediction

_P = ParamSpec("_P")
# a zero vector has cosine 0 with everything; a smaller bound would give it an enormous gradient
_EPS = 1e-4


def in_float32(loss: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Disable autocast, which would round the matrix products inside a loss to 8 bits."""

    @functools.wraps(loss)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        device = next(arg for arg in args if isinstance(arg, Tensor)).device.type
        with torch.autocast(device, enabled=False):
            return loss(*args, **kwargs)

    return wrapped


@in_float32
def nt_xent(
    a: Float[Tensor, "B E"], b: Float[Tensor, "B E"], temperature: float
) -> Float[Tensor, ""]:
    """Normalized temperature-scaled cross-entropy (SimCLR, Chen et al., ICML 2020, equation 1).

    Mean over the 2B rows of -log of exp(cos / temperature) of its pair, relative to the sum over
    all other rows. 0 for B = 1 and B = 0.

    Args:
        a: Embeddings of one view.
        b: Embeddings of the other view of the same clips.
        temperature: > 0.

    Example:
        >>> x = torch.eye(3)  # equal pairs, orthogonal to all others
        >>> nt_xent(x, x, temperature=0.1)
        tensor(0.0002)
    """
    count = len(a)
    if count == 0:
        return a.sum() + b.sum()
    rows = F.normalize(torch.cat((a, b)).float(), dim=-1, eps=_EPS)
    similarity = rows @ rows.T / temperature  # (2B, 2B)
    similarity.fill_diagonal_(-math.inf)
    pair = torch.arange(2 * count, device=a.device).roll(count)
    return F.cross_entropy(similarity, pair)


@in_float32
def class_nt_xent(
    a: Float[Tensor, "B E"],
    b: Float[Tensor, "B E"],
    label: Int[Tensor, " B"],
    temperature: float,
    normalize: bool = True,
) -> Float[Tensor, ""]:
    """NT-Xent between the class means of two views (MaskCLR's class contrast).

    With c_k^p the mean of class k in view p and h = exp(cos / temperature), the mean over the
    classes k in the batch and views p of
    -log h(c_k^a, c_k^b) / (h(c_k^a, c_k^b) + sum over l != k, q of h(c_k^p, c_l^q)).
    0 for a single class. This is TCL's group contrast (Singh et al., CVPR 2021) with true labels;
    no code for it was released with MaskCLR.

    Args:
        a: Embeddings of one view.
        b: Embeddings of the other view of the same clips.
        label: Classes.
        temperature: > 0.
        normalize: Average unit vectors rather than raw embeddings.
    """
    if len(a) == 0:
        return a.sum() + b.sum()
    # each clip represents its class with weight 1 / (clips of the class), so that no list of
    # classes is needed, which would synchronize with the host
    same = label.unsqueeze(0) == label.unsqueeze(1)  # (B, B)
    share = 1 / same.sum(1, dtype=torch.float32)  # float32 even if the default type is bfloat16
    views = torch.stack((a, b)).float()  # (2, B, E)
    if normalize:
        views = F.normalize(views, dim=-1, eps=_EPS)
    means = F.normalize((same * share) @ views, dim=-1, eps=_EPS)  # (2, B, E), by clip
    positive = (means[0] * means[1]).sum(-1) / temperature  # (B,)
    similarity = torch.einsum("pie,qje->pijq", means, means) / temperature  # (2, B, B, 2)
    similarity = similarity + share.log().view(1, 1, -1, 1)
    similarity = similarity.masked_fill(same.view(1, *same.shape, 1), -math.inf).flatten(2)
    candidates = torch.cat((positive.expand(2, -1).unsqueeze(-1), similarity), dim=-1)
    terms = candidates.logsumexp(-1) - positive  # (2, B)
    return (terms.mean(0) * share).sum() / share.sum()


@in_float32
def supervised_contrast(
    a: Float[Tensor, "B E"],
    b: Float[Tensor, "B E"],
    label: Int[Tensor, " B"],
    temperature: float,
    base_temperature: float | None = None,
) -> Float[Tensor, ""]:
    """Compute `supervised_contrastive_loss` over both views of the clips."""
    rows, labels = torch.cat((a, b)), torch.cat((label, label))
    return supervised_contrastive_loss(rows, labels, temperature, base_temperature)


@in_float32
def supervised_contrastive_loss(
    embedding: Float[Tensor, "n E"],
    label: Int[Tensor, " n"],
    temperature: float,
    base_temperature: float | None = None,
) -> Float[Tensor, ""]:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, L_out).

    The mean over anchors of the negative mean log-probability of the other rows of the class. Rows
    without another row of their class are no anchors; 0 without anchors. Unlike the released
    MaskCLR code, rows are not divided by their maximum, which would cancel the temperature.

    Args:
        embedding: Embeddings.
        label: Classes.
        temperature: > 0.
        base_temperature: Scales the loss by temperature / base_temperature; by default no scaling.
    """
    if len(embedding) < 2:
        return embedding.sum() * 0.0
    rows = F.normalize(embedding.float(), dim=-1, eps=_EPS)
    diagonal = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    similarity = (rows @ rows.T / temperature).masked_fill(diagonal, -math.inf)  # (n, n)
    log_probability = similarity.log_softmax(-1).masked_fill(diagonal, 0.0)
    positive = (label.unsqueeze(0) == label.unsqueeze(1)) & ~diagonal
    count = positive.sum(1)
    loss = -(log_probability * positive).sum(1) / count.clamp_min(1)  # (n,)
    mean = loss.sum() / (count > 0).sum().clamp_min(1)
    return mean * (temperature / (base_temperature or temperature))


class _Contrast(nn.Module):
    """A contrastive term over the embeddings of the two pathways."""

    uses_masked = True

    def __init__(self, temperature: float):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature


class SampleContrast(_Contrast):
    """NT-Xent between the pathways of each clip (MaskCLR's sample contrast).

    Args:
        temperature: > 0.

    Raises:
        ValueError: If the temperature is not positive.

    Example:
        >>> from maskclr_pl.types import Prediction
        >>> standard, masked = (Prediction(torch.zeros(3, 5), torch.eye(3)) for _ in range(2))
        >>> SampleContrast(temperature=0.1)(standard, masked, torch.arange(3))
        tensor(0.0002)
    """

    def __init__(self, temperature: float = 0.5):
        super().__init__(temperature)

    def forward(
        self, standard: Prediction, masked: Prediction, label: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """See `nt_xent`."""
        return nt_xent(gather(standard.embedding), gather(masked.embedding), self.temperature)


class ClassContrast(_Contrast):
    """NT-Xent between the class means of the pathways (MaskCLR's class contrast).

    Args:
        temperature: > 0.
        normalize: Average unit vectors rather than raw embeddings.

    Raises:
        ValueError: If the temperature is not positive.

    Example:
        >>> from maskclr_pl.types import Prediction
        >>> standard, masked = (Prediction(torch.zeros(4, 5), torch.rand(4, 8)) for _ in range(2))
        >>> ClassContrast()(standard, masked, torch.tensor([2, 2, 2, 2]))  # a single class
        tensor(0.)
    """

    def __init__(self, temperature: float = 0.5, normalize: bool = True):
        super().__init__(temperature)
        self.normalize = normalize

    def forward(
        self, standard: Prediction, masked: Prediction, label: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """See `class_nt_xent`."""
        return class_nt_xent(
            gather(standard.embedding),
            gather(masked.embedding),
            gather(label),
            self.temperature,
            self.normalize,
        )


class SupervisedContrast(_Contrast):
    """Supervised contrastive loss over both pathways.

    Args:
        temperature: > 0.

    Raises:
        ValueError: If the temperature is not positive.

    Example:
        >>> from maskclr_pl.types import Prediction
        >>> standard, masked = (Prediction(torch.zeros(3, 5), torch.eye(3)) for _ in range(2))
        >>> SupervisedContrast(temperature=0.1)(standard, masked, torch.arange(3))
        tensor(0.0002)
    """

    def __init__(self, temperature: float = 0.1):
        super().__init__(temperature)

    def forward(
        self, standard: Prediction, masked: Prediction, label: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """See `supervised_contrastive_loss`."""
        return supervised_contrast(
            gather(standard.embedding), gather(masked.embedding), gather(label), self.temperature
        )
