"""Configuration: locate, compose, complete and check it."""

from maskclr_pl.config.paths import compose, config_dir

__all__ = ["compose", "config_dir"]
