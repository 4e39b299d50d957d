"""Files and folders that sources read."""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from maskclr_pl.errors import InputError
from maskclr_pl.reading import check_no_device


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file.

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
    """SHA-256 of the names and sizes of files: a folder of a hundred gigabytes is not read twice.

    Raises:
        InputError: If a file is gone or none, or a link leads nowhere.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            broken = path.is_symlink()
            reason = "a symbolic link that leads nowhere" if broken else error.strerror
            raise InputError(f"{path}: cannot be read ({reason})") from None
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise InputError(f"{path}: not a file")
        digest.update(os.fsencode(path.name) + f"\0{found.st_size}\n".encode())
    return digest.hexdigest()


def files_under(root: str | Path, suffix: str) -> list[Path]:
    """All files with that suffix in a folder and the folders in it, sorted; or the file itself.

    Links to files are followed, links to folders are not (they may form loops), except the root.

    Raises:
        InputError: If there is no such file or folder, or nothing in it.
    """
    root = Path(root)
    if os.path.isfile(root):  # unlike Path.is_file, False for whatever cannot be a name
        return [root]
    if not os.path.isdir(root):
        raise InputError(f"{root}: no such file or folder")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() == suffix and (path.is_symlink() or path.is_file())
    )
    if not found:
        raise InputError(f"{root}: no {suffix} files in this folder or the folders in it")
    return found
