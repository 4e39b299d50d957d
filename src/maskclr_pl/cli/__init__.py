"""The door of every command: Hydra, one-line errors, types of settings, sweeps output."""

from maskclr_pl.cli.command import log_to, verb
from maskclr_pl.cli.errors import log, one_line
from maskclr_pl.cli.folders import (
    held,
    new_results,
    refuse_links,
    refuse_results,
    refuse_run,
    run_folder,
)
from maskclr_pl.cli.help import help_text
from maskclr_pl.cli.values import check_values

__all__ = [
    "check_values",
    "held",
    "help_text",
    "log",
    "log_to",
    "new_results",
    "one_line",
    "refuse_links",
    "refuse_results",
    "refuse_run",
    "run_folder",
    "verb",
]
