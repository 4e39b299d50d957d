"""MaskCLR and the methods it is compared with, for skeleton action recognition."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("maskclr_pl")
except PackageNotFoundError:  # a source tree on PYTHONPATH, not installed
    __version__ = "0+unknown"
