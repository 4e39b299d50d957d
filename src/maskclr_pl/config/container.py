"""Configurations as plain values."""

from typing import Any

from omegaconf import OmegaConf


def to_container(cfg: Any) -> Any:
    """Plain dicts, lists and values of a configuration, interpolations resolved."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
