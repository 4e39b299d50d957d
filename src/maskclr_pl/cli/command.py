"""What the commands share: Hydra at the door, errors in one line, run folders, plain output."""

import functools
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TextIO

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from maskclr_pl.cli.errors import WRONG, log, one_line
from maskclr_pl.cli.help import help_text
from maskclr_pl.cli.jobs import job_folder, run_job
from maskclr_pl.cli.sweeps import prepared
from maskclr_pl.cli.values import check_groups, check_values
from maskclr_pl.command_line import override
from maskclr_pl.config import config_dir
from maskclr_pl.reading import check_no_device
from maskclr_pl.types import InputError

Main = Callable[[DictConfig], Any]


def verb(name: str) -> Callable[[Main], Callable[[], None]]:
    """Decorator for `main(cfg)` of the command `python -m maskclr_pl.<name>`.

    Wrong input ends with one line on stderr and exit code 2; a bug ends with its traceback.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @functools.wraps(main)
        def command() -> None:
            # Hydra then raises instead of printing its own report and leaving
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")
            signal.signal(signal.SIGTERM, _terminated)
            _set_up_output()
            if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
                log.info("%s", help_text(name))
                return
            run = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=name)
            with _errors_in_one_line(name), prepared(name):
                check_groups(sys.argv[1:], name)
                # inside of Hydra as well, which else adds lines of its own
                run(functools.wraps(main)(lambda cfg: _guarded(main, cfg, name)))()

        return command

    return decorate


def _guarded(main: Main, cfg: DictConfig, name: str) -> Any:
    if not log.handlers:  # a launcher's job, in a process of its own
        _set_up_output()
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
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
    except WRONG as error:
        if os.environ.get("MASKCLR_TRACEBACK"):
            traceback.print_exc()
        sys.stderr.write(f"error: {one_line(error, name)}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)


def _terminated(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


class _Lines(logging.StreamHandler[TextIO]):
    """Lines on stdout; when its reader has gone (`| head`), the command goes on in silence."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            super().handleError(record)


def _set_up_output() -> None:
    """Plain lines on stdout for the package; silence for the adverts of the libraries."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = _Lines(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO)
    log.handlers = [handler]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning(_fabric|\.).*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def refuse_links(folder: Path) -> None:
    """Refuse to write into a folder through links that whoever made it has left there.

    Raises:
        InputError: If a file in the folder, or among its figures, is a symbolic link or a pipe.
    """
    for path in (*folder.glob("*"), *folder.glob("figures/*")):
        if path.is_symlink() and not path.is_dir():
            raise InputError(
                f"{path}: a symbolic link to {path.readlink()}, which would be written to; replace "
                "it by a copy, or remove it"
            )
        check_no_device(path)


def log_to(path: Path) -> None:
    """Also write the command's lines to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_links(path.parent)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.handlers = [log.handlers[0], handler]


def plain(cfg: Any) -> Any:
    """Plain dicts, lists and values of a configuration, interpolations resolved."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def run_folder(output_dir: str | None, kind: str) -> Path:
    """The folder of this run: `output_dir`, or a new one under runs/. Nothing is made yet."""
    hydra_config = HydraConfig.get()
    if output_dir is not None:
        return Path(output_dir)
    if hydra_config.mode == RunMode.MULTIRUN:
        return job_folder()
    return Path("runs") / kind / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


def claim(folder: Path) -> None:
    """Make a run folder, and its config.yaml as the sign that it is taken.

    Raises:
        InputError: If the folder holds a run already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made ({error.strerror}); type another output_dir=..."
        ) from None
    try:
        os.close(os.open(folder / "config.yaml", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        raise InputError(
            f"{folder} holds a run already; pass {override('resume', folder)} to continue it, or "
            "leave out output_dir to start another"
        ) from None
