"""Configuration: where it lies, how it is completed, and what it may ask for."""

from maskclr_pl.config.paths import config_dir

__all__ = ["config_dir"]
