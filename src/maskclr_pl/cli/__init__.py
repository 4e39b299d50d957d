"""Command line: Hydra entry point, one-line errors, types of settings, sweeps, output folders."""

from maskclr_pl.cli.entry_point import command, log_file, silence_lightning
from maskclr_pl.cli.errors import error_line, log
from maskclr_pl.cli.folders import (
    locked_folder,
    refuse_links,
    refuse_results,
    refuse_run,
    results_folder,
    run_folder,
)
from maskclr_pl.cli.help import help_text
from maskclr_pl.cli.jobs import is_multirun
from maskclr_pl.cli.values import check_values

__all__ = [
    "check_values",
    "command",
    "error_line",
    "help_text",
    "is_multirun",
    "locked_folder",
    "log",
    "log_file",
    "refuse_links",
    "refuse_results",
    "refuse_run",
    "results_folder",
    "run_folder",
    "silence_lightning",
]
