"""Joint layouts: their joints and bones, by name or from YAML files, converted into each other."""

from maskclr_pl.skeletons.layouts import load_skeleton, read_layout
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton

__all__ = ["SKELETONS", "Skeleton", "load_skeleton", "read_layout"]
