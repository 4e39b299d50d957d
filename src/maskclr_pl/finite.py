"""Weights that hold values which are not numbers: a training went wrong before they were saved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskclr_pl.types import InputError


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
