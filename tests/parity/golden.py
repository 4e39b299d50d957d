"""Access to the golden arrays."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

_DEFAULT = Path(__file__).parents[3] / "shared" / "golden"


class Golden:
    """One golden file: `config`, and the arrays by key.

    Skips the test module if the folder is absent; a file that is missing from the folder is an
    error.
    """

    def __init__(self, name: str):
        folder = Path(os.environ.get("MASKCLR_GOLDEN") or _DEFAULT)
        if not folder.is_dir():
            pytest.skip(f"no golden arrays in {folder}", allow_module_level=True)
        with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.config: dict[str, Any] = json.loads(str(self.arrays.pop("config")))

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose key starts with `prefix`, by the rest of the key."""
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}


def assert_close(
    actual: Tensor | np.ndarray, expected: np.ndarray, atol: float, rtol: float = 0.0
) -> None:
    """Same shape (no broadcasting) and values."""
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else actual
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)
