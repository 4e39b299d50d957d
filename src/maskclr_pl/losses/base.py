"""The contract of a loss term, and their weighted sum."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from maskclr_pl.types import Prediction


@runtime_checkable
class LossTerm(Protocol):
    """One term of the loss; an nn.Module."""

    uses_masked: bool
    """True for a term that has no value without the masked pathway."""

    def __call__(
        self, standard: Prediction, masked: Prediction | None, label: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """A finite scalar in float32."""


class WeightedSum(nn.Module):
    """sum of weight * term. Terms that need the masked pathway are left out while there is none.

    Args:
        terms: Name -> term.
        weights: Name -> weight; by default 1.

    Raises:
        ValueError: If a weight has no term.
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
        """Whether a term has no value without the masked pathway."""
        return any(term.uses_masked for term in self.terms.values())

    def forward(
        self, standard: Prediction, masked: Prediction | None, label: Int[Tensor, " B"]
    ) -> dict[str, Float[Tensor, ""]]:
        """{"loss": total, "loss_<name>": unweighted term, ...}."""
        values = {
            name: term(standard, masked, label)
            for name, term in self.terms.items()
            if masked is not None or not term.uses_masked
        }
        zero = 0.0 * standard.logits.float().sum()  # a total even if every term is left out
        total = sum((self.weights[name] * value for name, value in values.items()), zero)
        return {"loss": total, **{f"loss_{name}": value for name, value in values.items()}}
