"""Atomic writes, and locks that end with their process.

At the bottom layer, since stores, figures and result files are all written through it.
"""

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
except ImportError:  # Windows: concurrent commands are not detected
    fcntl = None  # type: ignore[assignment]

_LEFTOVER = re.compile(r"\..+\.(\d+)\.partial(\.\w+)?")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` once it is complete and on the disk.

    `path` always holds either the old file or the new one. Leftovers of killed commands in the
    folder are removed.

    Args:
        path: File to write; its folder is created.

    Yields:
        A hidden path in the same folder, with the same suffix.

    Raises:
        InputError: If the file cannot be written.
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
    """Yield a hidden folder inside another, for files that appear there together.

    Raises:
        InputError: If it cannot be created.
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
    """Write a file completely or not at all.

    Raises:
        InputError: If it cannot be written; an older file stays.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def append(path: Path, data: bytes) -> None:
    """Append to a file completely or not at all.

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
    """Describe a failed write in one line."""
    advice = "free some space" if error.errno in _DISK_FULL else "use a writable place"
    return InputError(f"{path}: cannot be written ({error.strerror or error}); {advice}")


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of killed processes."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _LEFTOVER.fullmatch(entry.name)
            if not match or int(match[1]) == os.getpid() or is_running(int(match[1])):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def is_running(pid: int) -> bool:
    """True if another process of this machine has this id."""
    if pid == os.getpid():
        return False
    if os.name == "nt":  # os.kill would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # owned by another user; not a process id
        return True
    return True


@contextmanager
def locked_file(path: Path, busy: str) -> Iterator[None]:
    """Create a file, hold a lock on it, and remove it at the end.

    Args:
        path: Lock file.
        busy: Error message if another process holds the lock.

    Raises:
        InputError: If another process holds the lock, or the file cannot be created.
    """
    while True:
        try:
            file = open(path, "ab")  # noqa: SIM115  # closed below
        except OSError as error:
            raise write_error(path, error) from error
        with file:
            lock_file(file, busy)
            if not _is_same_file(path, file):  # removed by the previous holder in between
                continue
            try:
                yield
            finally:
                with suppress(OSError):
                    path.unlink()
            return


def _is_same_file(path: Path, file: IO[Any]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False


def lock_file(file: IO[Any], busy: str) -> None:
    """Lock an open file until it is closed or this process ends; child processes do not inherit it.

    Raises:
        InputError: If another process holds the lock; the message is `busy`.
    """
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InputError(busy) from None
        # other errors: a file system without locks


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # unsupported by the file system
            raise
    finally:
        os.close(descriptor)
