"""The CSV file with the labels of a user's own videos."""

import csv
import difflib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskclr_pl.reading import check_no_device
from maskclr_pl.types import InputError

_COLUMNS = ("clip", "label", "split", "subject", "start", "end")


@dataclass(frozen=True)
class LabelRow:
    """A row of the file: a clip, or a segment of one.

    Args:
        line: Line number in the file.
        clip: Name of a file or folder.
        label: Class name.
        split: Name of a split, "" without such a column.
        subject: Person in the clip, "" if unknown.
        start: First frame of the segment; None for the first of the clip.
        end: Last frame of the segment + 1; None for the last of the clip + 1.
    """

    line: int
    clip: str
    label: str
    split: str = ""
    subject: str = ""
    start: int | None = None
    end: int | None = None


def open_csv(path: Path) -> Any:  # csv._reader, which has no public name
    """Open a CSV file separated by commas, semicolons or tabs, whichever its first line has most.

    Raises:
        InputError: If the file cannot be read.
    """
    check_no_device(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as CSV UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    delimiter = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    return csv.reader(io.StringIO(text), delimiter=delimiter)


def read_labels(path: str | Path) -> list[LabelRow]:
    """Read the columns clip, label and, if present, split, subject, start and end.

    The first line names the columns, in any case and order; others are ignored.

    Raises:
        InputError: If the file is malformed; the message names the line.
    """
    path = Path(path)
    reader = open_csv(path)
    columns: list[str] = []
    rows: list[LabelRow] = []
    try:
        for values in reader:
            cells = [value.strip() for value in values]
            if not any(cells):
                continue
            if columns:
                rows.append(_parse_row(path, reader.line_num, columns, cells))
            else:
                columns = _parse_header(path, cells)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    if not rows:
        raise InputError(
            f"{path}: no rows; expected a line with clip,label and a line for each clip"
        )
    return rows


def _parse_header(path: Path, cells: Sequence[str]) -> list[str]:
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
        similar = difflib.get_close_matches(column, _COLUMNS, n=1, cutoff=0.8)
        if column not in _COLUMNS and similar and similar[0] not in columns:
            raise InputError(f"{path}: unknown column {column!r}; did you mean {similar[0]!r}?")
    return columns


def _parse_row(path: Path, line: int, columns: Sequence[str], cells: Sequence[str]) -> LabelRow:
    place = f"{path}, line {line}"
    if len(cells) > len(columns):
        raise InputError(
            f"{place}: {len(cells)} cells, but {len(columns)} columns; put a name with a comma in "
            "quotes"
        )
    values = {name: cell for name, cell in zip(columns, cells, strict=False) if name in _COLUMNS}
    for column in ("clip", "label", "split"):
        if column in columns and not values.get(column):
            raise InputError(f"{place}: no {column}")
    frames: dict[str, int | None] = {"start": None, "end": None}
    for column in frames:
        cell = values.pop(column, "")
        if cell and not _is_number(cell):
            raise InputError(f"{place}: {column} is {cell[:60]!r}, expected a frame number")
        frames[column] = int(cell) if cell else None
    start, end = frames["start"], frames["end"]
    if end is not None and end <= (start or 0):
        raise InputError(
            f"{place}: end {end} is not after start {start or 0}; `end` is the number of the first "
            "frame after the clip"
        )
    return LabelRow(line, start=start, end=end, **values)


def check_overlaps(path: str | Path, rows: Sequence[LabelRow]) -> None:
    """Refuse segments that share frames: a drawn split could train and test on them.

    Raises:
        InputError: If two segments overlap and no column defines their splits.
    """
    ordered = sorted(rows, key=lambda row: (row.clip, row.start or 0))
    for row, following in itertools.pairwise(ordered):
        disjoint = row.end is not None and (following.start or 0) >= row.end
        if row.clip == following.clip and not disjoint and not row.split:
            raise InputError(
                f"{path}: lines {row.line} and {following.line} share frames of clip "
                f"{row.clip!r}, which could be trained and tested on; add a column split, or "
                "change start and end"
            )


def index_names(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the distinct names in order, and the index of each name among them.

    Whole numbers are ordered by value, anything else alphabetically.
    """
    numeric = all(map(_is_number, names))
    ordered = sorted(set(names), key=(lambda name: (int(name), name)) if numeric else None)
    index = {name: i for i, name in enumerate(ordered)}
    return ordered, [index[name] for name in names]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16
