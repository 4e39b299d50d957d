"""Output folders of commands: choose, lock, and refuse those that hold results already."""

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
    """Return the folder of this run: `output_dir`, or a new one under runs/; it is not created."""
    if output_dir is not None:
        return Path(output_dir)
    if is_multirun():
        return job_folder()
    return Path("runs") / kind / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


def refuse_links(folder: Path) -> None:
    """Raise an InputError if the folder or its figures contain symbolic links or pipes.

    Writing through a link that somebody else left there could overwrite any file.
    """
    for path in (*folder.glob("*"), *folder.glob("figures/*")):
        if path.is_symlink() and not path.is_dir():
            raise InputError(
                f"{path}: a symbolic link to {path.readlink()}, which would be overwritten; "
                "replace it by a copy, or remove it"
            )
        check_no_device(path)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Create a folder and lock it against other commands.

    Raises:
        InputError: If another command writes there, the folder cannot be written, or it contains
            links.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    refuse_links(folder)
    with locked_file(
        folder / ".lock", f"{folder}: another command is writing there; wait until it ends"
    ):
        yield


@contextmanager
def results_folder(folder: Path, config: Any) -> Iterator[None]:
    """Lock a folder for results; a new folder is removed if the command fails.

    Args:
        folder: Must not hold results.
        config: Content of config.yaml, written last to mark complete results.

    Raises:
        InputError: If the folder holds results already; see also `locked_folder`.
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
    """Raise an InputError if a folder holds results, which must not be mixed with others."""
    if holds_run(folder):
        raise InputError(
            f"{folder} holds results already; pass another output_dir=, or leave it out"
        )


def refuse_run(folder: Path) -> None:
    """Raise an InputError if a folder holds a run, which must not be overwritten."""
    if holds_run(folder):
        raise InputError(
            f"{folder} holds a run already; pass {override('resume', folder)} to continue it, "
            "resume=auto in commands that are repeated, or another output_dir="
        )
