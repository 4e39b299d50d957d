"""Let an operation on the files of a folder fail, or be the last one before a kill.

In a test:

    with fault(folder, at=3) as seen: ...        # the third operation ends as by SIGKILL
    with fault(folder, at=3, how=full): ...      # from the third on, the disk is full

For a command in a process of its own, which is killed indeed:

    python -m tests.faults.tool FOLDER kill|full|count AT maskclr_pl.train resume=run

Operations are what changes a folder: opening a file to write, renaming, linking, removing, making a
folder. Python tells of them by its audit events, whichever library asks for them (not those that
open files in C: HDF5 and ONNX do).
"""

import errno
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

EVENTS = ("os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Killed(BaseException):
    """Stands for SIGKILL: nothing that runs afterwards can change the folder."""


def kill(event: str, path: str) -> NoReturn:
    """Stop here, in this process."""
    raise Killed(f"{event} {path}")


def full(event: str, path: str) -> None:
    """Refuse what needs room; files can still be removed."""
    if event not in ("os.remove", "os.rmdir", "os.rename"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def kill_process(event: str, path: str) -> NoReturn:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class _Watch:
    """The one audit hook of the process (they cannot be removed), and what it does now."""

    def __init__(self) -> None:
        self.folder, self.at, self.process = "", 0, 0
        self.how: Callable[[str, str], None] | None = None
        self.seen: list[str] = []
        self.installed = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.how is None or os.getpid() != self.process:
            return
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & _WRITES):
                return
        elif event in EVENTS:
            path = args[1] if event in ("os.rename", "os.link") else args[0]
        else:
            return
        if not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.path.abspath(os.fsdecode(path))
        if not name.startswith(self.folder):
            return
        self.seen.append(f"{event} {name.removeprefix(self.folder)}")
        if len(self.seen) >= self.at:
            self.how(event, name)


_watch = _Watch()


@contextmanager
def fault(folder: Path, at: int, how: Callable[[str, str], None] = kill) -> Iterator[list[str]]:
    """Let the `at`-th operation below a folder (from 1), and all later ones, end in `how`.

    Yields:
        The operations, as they come.
    """
    if not _watch.installed:
        sys.addaudithook(_watch)
        _watch.installed = True
    _watch.folder, _watch.at, _watch.process = os.path.abspath(folder), at, os.getpid()
    _watch.seen = []
    _watch.how = how
    try:
        yield _watch.seen
    finally:
        _watch.how = None


def main() -> None:
    """See the module."""
    folder, way, at, module, *args = sys.argv[1:]
    sys.argv = [module, *args]
    if way == "count":
        at = str(sys.maxsize)
    with fault(Path(folder), int(at), full if way == "full" else kill_process) as seen:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        finally:
            if way == "count":
                print(f"operations: {len(seen)}")


if __name__ == "__main__":
    main()
