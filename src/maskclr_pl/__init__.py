"""MaskCLR and the systems it is compared with, for skeleton action recognition."""

__version__ = "0.1.0"
