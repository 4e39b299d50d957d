"""Published robustness curves, for comparison in figures."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from maskclr_pl.types import InputError

PublishedCurves = dict[str, dict[str, tuple[list[float], list[float]]]]
"""Corruption -> {label: (sigma, top-1 in percent)}."""

_NOISES = ("spatial_noise", "spatiotemporal_noise")


@cache
def _load_curves() -> dict[str, Any]:
    text = Path(__file__).with_name("published_noise.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def published_noise(methods: Iterable[str] = ("MaskCLR", "MotionBERT")) -> PublishedCurves:
    """Return the published curves of methods: corruption -> {label: (sigma, top-1 in percent)}.

    Args:
        methods: Names in `published_noise.yaml`, which documents source and precision.

    Raises:
        InputError: If there is no curve of a method.
    """
    data = _load_curves()
    for method in methods:
        if method not in data[_NOISES[0]]:
            known = ", ".join(data[_NOISES[0]])
            raise InputError(f"no published curve of {method!r}; expected one of {known}")
    benchmark, sigma = data["benchmark"], data["sigma"]
    return {
        noise: {
            f"{method} (published, {benchmark})": (sigma, data[noise][method]["top1"])
            for method in methods
        }
        for noise in _NOISES
    }
