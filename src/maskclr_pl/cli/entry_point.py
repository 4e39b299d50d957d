"""Entry point of every command: Hydra, one-line errors, plain log lines."""

import functools
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import hydra
from omegaconf import DictConfig

from maskclr_pl.cli.errors import error_line, is_user_error, log
from maskclr_pl.cli.help import help_text
from maskclr_pl.cli.jobs import is_multirun, run_job
from maskclr_pl.cli.sweeps import sweep_arguments
from maskclr_pl.cli.values import check_groups, check_values
from maskclr_pl.config.paths import config_dir
from maskclr_pl.signals import Terminated, handle_signals, ignore_signals

Main = Callable[[DictConfig], Any]


def command(name: str) -> Callable[[Main], Callable[[], None]]:
    """Decorate `main(cfg)` of the command `python -m maskclr_pl.<name>`.

    User errors end with one line on stderr and exit code 2, bugs with a traceback.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @functools.wraps(main)
        def run_command() -> None:
            # makes Hydra raise instead of printing its own report and exiting
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")
            handle_signals()
            _set_up_output()
            if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
                log.info("%s", help_text(name))
                return
            run = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=name)
            with _errors_in_one_line(name), sweep_arguments(name):
                check_groups(sys.argv[1:], name)
                # errors are caught inside of Hydra, which would add lines to them
                run(functools.wraps(main)(lambda cfg: _guarded(main, cfg, name)))()

        return run_command

    return decorate


def _guarded(main: Main, cfg: DictConfig, name: str) -> Any:
    if not log.handlers:  # a launcher's job, in a process of its own
        _set_up_output()
    if is_multirun():
        return run_job(lambda cfg: _checked(main, cfg), cfg, name)
    with _errors_in_one_line(name):
        return _checked(main, cfg)


def _checked(main: Main, cfg: DictConfig) -> Any:
    check_values(cfg)
    return main(cfg)


@contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_user_error(error):
            raise
        if os.environ.get("MASKCLR_TRACEBACK"):
            traceback.print_exc()
        sys.stderr.write(f"error: {error_line(error, name)}\n")
        sys.exit(2)
    except KeyboardInterrupt as stop:
        ignore_signals()  # a second signal must not disturb the end
        if os.environ.get("LOCAL_RANK", "0") != "0":  # the first process reports it
            sys.exit(0)
        sys.stderr.write("stopped\n")
        sys.exit(143 if isinstance(stop, Terminated) else 130)


class _StdoutHandler(logging.StreamHandler[TextIO]):
    """Log to stdout, and continue silently when its reader has gone (`| head`)."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            super().handleError(record)


def _set_up_output() -> None:
    """Print log lines of the package as they are, and silence messages of the libraries."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may contain any bytes
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = _StdoutHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO)
    log.handlers = [handler]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    silence_lightning()


def silence_lightning() -> None:
    """Hide messages of Lightning; its import resets the levels, so call this after it as well."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning(_fabric|\.).*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


class _LogFile(logging.FileHandler):
    """Log to a file, and ignore a full disk, which more important files report."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Also write log lines to a file."""
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
