"""Joint layouts by name or from YAML files, and conversion between them."""

from maskclr_pl.skeletons.layouts import load_skeleton, read_layout
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton

__all__ = ["SKELETONS", "Skeleton", "load_skeleton", "read_layout"]
