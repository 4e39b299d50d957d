"""Values that are not numbers: in weights, and in what a model says of clips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskclr_pl.types import InputError


def answered(logits: Float[Tensor, "B K"]) -> Bool[Tensor, " B"]:
    """Which clips a model has an answer for: their largest logit is a number.

    Without a synchronization with the device. Minus infinity is fine for a class that is ruled out.
    """
    return logits.amax(1).isfinite()


def with_wrong_answers(
    logits: Float[Tensor, "B K"], label: Int[Tensor, " B"]
) -> Float[Tensor, "B K"]:
    """Logits in which a clip without an answer has its own class as the last one.

    The largest of values that are not numbers is the first of them: such clips would count as
    right where their class is number 0.
    """
    wrong = torch.zeros_like(logits).scatter(1, label.long().unsqueeze(1), -1.0)
    return torch.where(answered(logits).unsqueeze(1), logits, wrong)


def not_finite(state: Mapping[str, Any]) -> list[str]:
    """Names of the floating-point tensors that hold a NaN or an infinity.

    One synchronization with the device, whatever the number of tensors.
    """
    checked = {
        name: value.isfinite().all()
        for name, value in state.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel()
    }
    if not checked:
        return []
    finite = torch.stack(tuple(checked.values()))
    return [name for name, good in zip(checked, finite.tolist(), strict=True) if not good]


def refuse_not_finite(state: Mapping[str, Any], path: str | Path) -> None:
    """Refuse the weights of a file that are not finite.

    Raises:
        InputError: With the first of them.
    """
    if names := not_finite(state):
        raise InputError(
            f"{path}: {len(names)} of {len(state)} weights hold values that are not finite, the "
            f"first is {names[0]}: the training went wrong before this file was written; use an "
            "earlier checkpoint, or train again with a lower optim.lr"
        )
