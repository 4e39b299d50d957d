"""The CSV file with the labels of a user's own videos."""

import csv
import difflib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskclr_pl.reading import check_no_device
from maskclr_pl.types import InputError

_COLUMNS = ("clip", "label", "split", "subject", "start", "end")


@dataclass(frozen=True)
class Row:
    """A row: a clip, or a part of one, and what is known about it.

    Args:
        line: Line of the file.
        clip: Name of a file or folder.
        label: Class name.
        split: Name of a split, "" if there is no such column; likewise `subject`.
        subject: Who is seen.
        start: First frame of the part; None is the first of the clip.
        end: Last frame of the part + 1; None is the last of the clip + 1.
    """

    line: int
    clip: str
    label: str
    split: str = ""
    subject: str = ""
    start: int | None = None
    end: int | None = None


def read_labels(path: str | Path) -> list[Row]:
    """Read the columns clip, label and, if there are any, split, subject, start and end.

    The first line names the columns, in any case and order; others are ignored. Cells are separated
    by commas, semicolons or tabs, whichever the first line has most of.

    Raises:
        InputError: If the file is no such table; the message names the line.
    """
    path = Path(path)
    check_no_device(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as CSV UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    delimiter = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    columns: list[str] = []
    rows: list[Row] = []
    try:
        for values in reader:
            cells = [value.strip() for value in values]
            if not any(cells):
                continue
            if columns:
                rows.append(_row(path, reader.line_num, columns, cells))
            else:
                columns = _header(path, cells)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    if not rows:
        raise InputError(
            f"{path}: no rows; expected a line with clip,label and a line for each clip"
        )
    return rows


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    columns = [cell.lower() for cell in cells]
    for column in ("clip", "label"):
        if column not in columns:
            raise InputError(
                f"{path}: no column {column!r} among {', '.join(map(repr, cells))[:200]}; the "
                "first line must be clip,label, with split, subject, start, end if needed"
            )
    for column in _COLUMNS:
        if columns.count(column) > 1:
            raise InputError(f"{path}: two columns {column!r}")
    for column in columns:
        close = difflib.get_close_matches(column, _COLUMNS, n=1, cutoff=0.8)
        if column not in _COLUMNS and close and close[0] not in columns:
            raise InputError(f"{path}: column {column!r} is not known; is it {close[0]!r}?")
    return columns


def _row(path: Path, line: int, columns: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) > len(columns):
        raise InputError(
            f"{path}, line {line}: {len(cells)} cells, but {len(columns)} columns; put a name with "
            "a comma in quotes"
        )
    given = {name: cell for name, cell in zip(columns, cells, strict=False) if name in _COLUMNS}
    for column in ("clip", "label", "split"):
        if column in columns and not given.get(column):
            raise InputError(f"{path}, line {line}: no {column}")
    times: dict[str, int | None] = {}
    for column in ("start", "end"):
        cell = given.pop(column, "")
        if cell and not (cell.isascii() and cell.isdigit() and len(cell) < 16):
            raise InputError(
                f"{path}, line {line}: {column} is {cell[:60]!r}, expected the number of a frame"
            )
        times[column] = int(cell) if cell else None
    start, end = times["start"], times["end"]
    if end is not None and end <= (start or 0):
        raise InputError(
            f"{path}, line {line}: end {end} is not after start {start or 0}; `end` is the number "
            "of the first frame that no longer belongs to the clip"
        )
    return Row(line, start=start, end=end, **given)


def check_overlaps(path: str | Path, rows: Sequence[Row]) -> None:
    """Parts of one clip that share frames could come to be on both sides of a drawn split.

    Raises:
        InputError: If there are any, and no column says what split they are in.
    """
    ordered = sorted(rows, key=lambda row: (row.clip, row.start or 0))
    for one, other in itertools.pairwise(ordered):
        after = one.end is not None and (other.start or 0) >= one.end
        if one.clip == other.clip and not after and not one.split:
            raise InputError(
                f"{path}: lines {one.line} and {other.line} share frames of clip {one.clip!r}, "
                "which could be trained and tested on; add a column split, or change start and end"
            )


def numbered(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different names in order, and the place of each of the given ones in it.

    Numbers are ordered by value, anything else by the alphabet.
    """
    whole = all(name.isascii() and name.isdigit() and len(name) < 16 for name in names)
    ordered = sorted(set(names), key=(lambda name: (int(name), name)) if whole else None)
    place = {name: i for i, name in enumerate(ordered)}
    return ordered, [place[name] for name in names]
