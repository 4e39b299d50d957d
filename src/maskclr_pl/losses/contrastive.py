"""Contrast between the two pathways of a clip, and between the classes.

All are computed in float32 with log-sum-exp, over the clips of all ranks, with gradient to each.
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
    """Under autocast, the products inside a loss would be rounded to 8 bits."""

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
    """Normalised temperature-scaled cross-entropy (SimCLR): the other view of a clip among all.

    For each of the 2B rows, -log of exp(cos / temperature) of its pair over the sum of those of all
    rows but itself; the mean. 0 for B = 1; B = 0 gives 0.
    """
    count = len(a)
    if count == 0:
        return a.sum() + b.sum()
    rows = F.normalize(torch.cat((a, b)).float(), dim=-1, eps=_EPS)
    similarity = rows @ rows.T / temperature
    similarity.fill_diagonal_(-math.inf)
    pair = torch.arange(2 * count, device=a.device).roll(count)
    return F.cross_entropy(similarity, pair)


@in_float32
def class_nt_xent(
    a: Float[Tensor, "B E"],
    b: Float[Tensor, "B E"],
    label: Int[Tensor, " B"],
    temperature: float,
    normalise: bool = True,
) -> Float[Tensor, ""]:
    """NT-Xent between the class averages of the two views (the paper's class contrast).

    With c_k^p the mean of the rows of class k in view p and h = exp(cos / temperature), the mean
    over the classes k that are there and p of
    -log h(c_k^a, c_k^b) / (h(c_k^a, c_k^b) + sum over l != k, q of h(c_k^p, c_l^q)).
    One class only gives 0. The form of TCL's group contrast (Singh et al., CVPR 2021) with
    true labels; no code for it was released with MaskCLR.

    Args:
        a: Features of one view.
        b: Features of the other, row by row the same clips.
        label: Classes.
        temperature: > 0.
        normalise: Average unit vectors rather than raw features.
    """
    if len(a) == 0:
        return a.sum() + b.sum()
    # every clip stands for its class with weight 1 / (clips of the class): no class list is
    # needed, and none has to be brought to the host
    same = label.unsqueeze(0) == label.unsqueeze(1)
    share = 1 / same.sum(1, dtype=torch.float32)  # also where the default type is bfloat16
    views = torch.stack((a, b)).float()
    if normalise:
        views = F.normalize(views, dim=-1, eps=_EPS)
    means = F.normalize((same * share) @ views, dim=-1, eps=_EPS)
    positive = (means[0] * means[1]).sum(-1) / temperature
    similarity = torch.einsum("pie,qje->pijq", means, means) / temperature
    similarity = similarity + share.log().view(1, 1, -1, 1)
    similarity = similarity.masked_fill(same.view(1, *same.shape, 1), -math.inf).flatten(2)
    candidates = torch.cat((positive.expand(2, -1).unsqueeze(-1), similarity), dim=-1)
    terms = candidates.logsumexp(-1) - positive
    return (terms.mean(0) * share).sum() / share.sum()


@in_float32
def supervised_contrast(
    a: Float[Tensor, "B E"],
    b: Float[Tensor, "B E"],
    label: Int[Tensor, " B"],
    temperature: float,
    base_temperature: float | None = None,
) -> Float[Tensor, ""]:
    """`supervised_contrastive_loss` both views of the clips: a clip's other view is of its class.

    Args:
        a: Features of one view.
        b: Features of the other.
        label: Classes.
        temperature: > 0.
        base_temperature: See `supervised_contrastive_loss`.
    """
    rows, labels = torch.cat((a, b)), torch.cat((label, label))
    return supervised_contrastive_loss(rows, labels, temperature, base_temperature)


@in_float32
def supervised_contrastive_loss(
    rows: Float[Tensor, "n E"],
    label: Int[Tensor, " n"],
    temperature: float,
    base_temperature: float | None = None,
) -> Float[Tensor, ""]:
    """Supervised contrastive loss (Khosla et al. 2020, L_out) with every row as an anchor.

    The mean over anchors of -mean over the other rows of the same class of their log-probability.
    A row without another of its class is no anchor; 0 if there is no anchor. Unlike the released
    MaskCLR code, rows are not divided by their maximum, which would cancel the temperature.

    Args:
        rows: Features.
        label: Classes.
        temperature: > 0.
        base_temperature: The loss is scaled by temperature / base_temperature; by default not.
    """
    if len(rows) < 2:
        return rows.sum() * 0.0
    rows = F.normalize(rows.float(), dim=-1, eps=_EPS)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    similarity = (rows @ rows.T / temperature).masked_fill(itself, -math.inf)
    log_probability = similarity.log_softmax(-1).masked_fill(itself, 0.0)
    positive = (label.unsqueeze(0) == label.unsqueeze(1)) & ~itself
    count = positive.sum(1)
    loss = -(log_probability * positive).sum(1) / count.clamp_min(1)
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
    """NT-Xent between the pathways of each clip (the paper's sample contrast).

    Args:
        temperature: > 0.
    """

    def __init__(self, temperature: float = 0.5):
        super().__init__(temperature)

    def forward(
        self, standard: Prediction, masked: Prediction, label: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """See `nt_xent`."""
        return nt_xent(gather(standard.embedding), gather(masked.embedding), self.temperature)


class ClassContrast(_Contrast):
    """NT-Xent between the class averages of the pathways (the paper's class contrast).

    Args:
        temperature: > 0.
        normalise: Average unit vectors rather than raw features.
    """

    def __init__(self, temperature: float = 0.5, normalise: bool = True):
        super().__init__(temperature)
        self.normalise = normalise

    def forward(
        self, standard: Prediction, masked: Prediction, label: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """See `class_nt_xent`."""
        return class_nt_xent(
            gather(standard.embedding),
            gather(masked.embedding),
            gather(label),
            self.temperature,
            self.normalise,
        )


class SupervisedContrast(_Contrast):
    """Supervised contrastive loss over both pathways.

    Args:
        temperature: > 0.
    """

    def __init__(self, temperature: float = 0.1):
        super().__init__(temperature)

    def forward(
        self, standard: Prediction, masked: Prediction, label: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """See `supervised_contrast`."""
        return supervised_contrast(
            gather(standard.embedding), gather(masked.embedding), gather(label), self.temperature
        )
