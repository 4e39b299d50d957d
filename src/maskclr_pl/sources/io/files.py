"""Files and folders that sources read."""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from maskclr_pl.reading import check_no_device
from maskclr_pl.types import InputError


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        InputError: If it cannot be read.
    """
    check_no_device(path)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def listing_hash(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of the names and sizes of files, without reading their content.

    Raises:
        InputError: If a path is missing, is not a file, or is a dangling link.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            reason = "a symbolic link that leads nowhere" if path.is_symlink() else error.strerror
            raise InputError(f"{path}: cannot be read ({reason})") from None
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
            raise InputError(f"{path}: not a file")
        digest.update(os.fsencode(path.name) + f"\0{status.st_size}\n".encode())
    return digest.hexdigest()


def files_under(root: str | Path, suffix: str) -> list[Path]:
    """Return all files with that suffix in a folder tree, sorted; or the file itself.

    Links to files are followed, links to folders are not (they may form loops), except the root.

    Raises:
        InputError: If the file or folder is missing, or contains no such file.
    """
    root = Path(root)
    if os.path.isfile(root):  # unlike Path.is_file, False for an invalid name
        return [root]
    if not os.path.isdir(root):
        raise InputError(f"{root}: no such file or folder")
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() == suffix and (path.is_symlink() or path.is_file())
    )
    if not paths:
        raise InputError(f"{root}: no {suffix} files in this folder or its subfolders")
    return paths
