"""The published robustness curves, for comparison in figures."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from maskclr_pl.types import InputError

PublishedCurves = dict[str, dict[str, tuple[list[float], list[float]]]]
"""Corruption -> {label: (sigma, top-1 in percent)}."""


@cache
def _file() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(
        Path(__file__).with_name("published_noise.yaml").read_text()
    )
    return values


def published_noise(
    methods: Iterable[str] = ("MaskCLR", "MotionBERT"),
) -> PublishedCurves:
    """Curves of methods: corruption -> {label: (sigma, top-1 in percent)}.

    The label is the method, followed by "(published, NTU60-XSub)".

    Args:
        methods: As in `published_noise.yaml`, where their source and precision are.

    Raises:
        InputError: If the curve of one is not known.
    """
    noises = ("spatial_noise", "spatiotemporal_noise")
    known = _file()[noises[0]]
    for method in methods:
        if method not in known:
            raise InputError(f"no published curve of {method!r}; known: {', '.join(known)}")
    file = _file()
    return {
        noise: {
            f"{method} (published, {file['benchmark']})": (
                file["sigma"],
                file[noise][method]["top1"],
            )
            for method in methods
        }
        for noise in noises
    }
