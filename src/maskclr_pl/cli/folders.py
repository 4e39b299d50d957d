"""Folders that commands write into: chosen, kept from other commands, refused if they are taken."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from maskclr_pl.cli.jobs import holds_run, is_multirun, job_folder
from maskclr_pl.command_line import override
from maskclr_pl.errors import InputError
from maskclr_pl.files import locked_file, write_atomically, write_error
from maskclr_pl.reading import check_no_device


def run_folder(output_dir: str | None, kind: str) -> Path:
    """The folder of this run: `output_dir`, or a new one under runs/. Nothing is made yet."""
    if output_dir is not None:
        return Path(output_dir)
    if is_multirun():
        return job_folder()
    return Path("runs") / kind / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


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


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep a folder, which is made, from other commands that would write into it.

    Raises:
        InputError: If another command has it, it cannot be made or written, or links in it lead
            elsewhere.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    refuse_links(folder)
    with locked_file(
        folder / ".lock", f"{folder}: another command is writing there; wait for its end"
    ):
        yield


@contextmanager
def results_folder(folder: Path, config: Any) -> Iterator[None]:
    """Hold a folder for results; a folder that was made for them goes when something fails.

    Args:
        folder: Which must not hold results.
        config: For config.yaml, which is written at the end: the sign that they are complete.

    Raises:
        InputError: See `locked_folder`; if the folder holds results already.
    """
    new = not folder.exists()
    with locked_folder(folder):
        refuse_results(folder)
        try:
            yield
            text = OmegaConf.to_yaml(config, resolve=True)
            write_atomically(folder / "config.yaml", text.encode())
        except BaseException:
            if new:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def refuse_results(folder: Path) -> None:
    """Raise an InputError if a folder holds results, which would be mixed with others."""
    if holds_run(folder):
        raise InputError(
            f"{folder} holds results already; pass another output_dir=, or leave it out"
        )


def refuse_run(folder: Path) -> None:
    """Raise an InputError if a folder holds a run, which another training must not overwrite."""
    if holds_run(folder):
        raise InputError(
            f"{folder} holds a run already; pass {override('resume', folder)} to continue it, or "
            "leave out output_dir to start another; a command that is repeated continues its run "
            "with resume=auto"
        )
