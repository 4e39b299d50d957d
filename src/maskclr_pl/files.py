"""Files that are there in full or not at all, and locks that end with their process."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from maskclr_pl.errors import InputError

try:
    import fcntl
except ImportError:  # on Windows two commands that write the same files are not noticed
    fcntl = None  # type: ignore[assignment]

_LEFTOVER = re.compile(r"\..+\.(\d+)\.partial(\.\w+)?")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of another when all of it is on the disk.

    Whatever happens, `path` is the old file or the new one. What killed commands left half-written
    in the folder is removed.

    Args:
        path: The file to write; its folder is made.

    Yields:
        A hidden path beside it, with the same suffix.

    Raises:
        InputError: If it cannot be written.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder inside of another, for files that are to appear there together.

    Raises:
        InputError: If it cannot be made.
    """
    stage = folder / f".stage.{os.getpid()}.partial"
    try:
        stage.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there in full or not at all.

    Raises:
        InputError: If it cannot be written; an older file stays.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def append(path: Path, data: bytes) -> None:
    """Append to a file, all of it or nothing.

    Raises:
        InputError: If it cannot be written.
    """
    try:
        with open(path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> InputError:
    """The error of a file that could not be written, as a line."""
    advice = "free some space" if error.errno in _FULL else "use a place that can be written"
    return InputError(f"{path}: cannot be written ({error.strerror or error}); {advice}")


def remove_leftovers(folder: Path) -> None:
    """Remove what `atomic_path` left in a folder when its process was killed."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = _LEFTOVER.fullmatch(entry.name)
            if not found or int(found[1]) == os.getpid() or is_running(int(found[1])):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def is_running(process: int) -> bool:
    """Whether another process of this machine has this number."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # where such a question would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user; of no process at all
        return True
    return True


@contextmanager
def locked_file(path: Path, busy: str) -> Iterator[None]:
    """Keep a file locked, which is made for that and goes at the end.

    Args:
        path: The file.
        busy: What to say if another process has it.

    Raises:
        InputError: If another process has it, or it cannot be made.
    """
    while True:
        try:
            file = open(path, "ab")  # noqa: SIM115  # closed below
        except OSError as error:
            raise write_error(path, error) from error
        with file:
            lock_file(file, busy)
            if not _is_file(path, file):  # its last owner removed it in between
                continue
            try:
                yield
            finally:
                with suppress(OSError):
                    path.unlink()
            return


def _is_file(path: Path, file: IO[Any]) -> bool:
    """Whether a path leads to an open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False


def lock_file(file: IO[Any], busy: str) -> None:
    """Lock an open file until it is closed or this process ends, however it ends.

    The lock is of this process alone: workers that outlive it do not keep it.

    Raises:
        InputError: If another process has it; the message is `busy`.
    """
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InputError(busy) from None
        # a file system without locks


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot
            raise
    finally:
        os.close(descriptor)
