"""Curves: training over epochs, accuracy over the strength of a corruption."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any
def training_curves(runs: Mapping[str, Path], path: Path) -> None: ...
