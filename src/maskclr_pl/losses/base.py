"""The interface of a loss term, and the weighted sum of terms."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.types import Prediction


@runtime_checkable
class LossTerm(Protocol):
    """A term of the loss; an nn.Module."""

    uses_masked: bool
    """The term needs the masked pathway."""

    def __call__(
        self, standard: Prediction, masked: Prediction | None, label: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Compute a finite scalar in float32."""


class WeightedSum(nn.Module):
    """Sum of weight * term. Without a masked pathway, terms that need it are skipped.

    Args:
        terms: Name -> term.
        weights: Name -> weight; by default 1.

    Raises:
        ValueError: If a weight has no term.

    Example:
        >>> from maskclr_pl.losses import CrossEntropy, SampleContrast
        >>> from maskclr_pl.types import Prediction
        >>> loss = WeightedSum({"ce": CrossEntropy(), "sample": SampleContrast()}, {"sample": 0.1})
        >>> standard, masked = (Prediction(torch.zeros(4, 5), torch.rand(4, 8)) for _ in range(2))
        >>> sorted(loss(standard, masked, torch.arange(4)))
        ['loss', 'loss_ce', 'loss_sample']
        >>> sorted(loss(standard, None, torch.arange(4)))
        ['loss', 'loss_ce']
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float] | None = None):
        super().__init__()
        weights = weights or {}
        unknown = set(weights) - set(terms)
        if unknown:
            raise ValueError(f"weights for {sorted(unknown)}, but the terms are {sorted(terms)}")
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: float(weights.get(name, 1.0)) for name in terms}

    @property
    def uses_masked(self) -> bool:
        """Any term needs the masked pathway."""
        return any(term.uses_masked for term in self.terms.values())

    def forward(
        self, standard: Prediction, masked: Prediction | None, label: Int[Tensor, " B"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return {"loss": total, "loss_<name>": unweighted term, ...}."""
        values = {
            name: term(standard, masked, label)
            for name, term in self.terms.items()
            if masked is not None or not term.uses_masked
        }
        zero = 0.0 * standard.logits.float().sum()  # a differentiable total without any term
        total = sum((self.weights[name] * value for name, value in values.items()), zero)
        return {"loss": total, **{f"loss_{name}": value for name, value in values.items()}}
