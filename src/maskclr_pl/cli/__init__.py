"""The door of every command: Hydra, one-line errors, types of settings, sweeps, plain output."""

from maskclr_pl.cli.command import claim, log_to, plain, refuse_links, run_folder, verb
from maskclr_pl.cli.errors import log, one_line
from maskclr_pl.cli.help import help_text
from maskclr_pl.cli.values import check_values

__all__ = [
    "check_values",
    "claim",
    "help_text",
    "log",
    "log_to",
    "one_line",
    "plain",
    "refuse_links",
    "run_folder",
    "verb",
]
