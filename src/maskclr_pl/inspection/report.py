"""Report on the contents and problems of files (`prepare check=true`)."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from maskclr_pl.data import Store
from maskclr_pl.data.coverage import is_empty
from maskclr_pl.errors import InputError
from maskclr_pl.figures.recordings import draw_overview
from maskclr_pl.files import write_atomically
from maskclr_pl.inspection.summary import find_problems, inspect_store, summary_lines

log = logging.getLogger("maskclr_pl")

_LOGGED = 10  # clips that were left out


def report_folder(path: str, output: str | None) -> Path:
    """Return the folder of the report: beside the store that is checked or would be written."""
    if output is None and path.lower().endswith((".h5", ".hdf5")):
        output = path
    name = Path(output or Path(path).resolve().name or "data")  # input=. has the folder's name
    return Path(f"{name.with_suffix('')}_check")


def write_refusal(folder: Path, name: str, refusals: Sequence[str]) -> None:
    """Report on files that could not be read at all."""
    with suppress(InputError):  # the command shows the refusal in any case
        _write(folder, [f"input      {name}", "", *_refused(refusals)])
        log.info("report     %s", folder / "report.txt")


def write_report(store: Store, folder: Path, name: str, refusals: Sequence[str] = ()) -> None:
    """Write and log a report on a store, with figures.

    Args:
        store: The store.
        folder: Folder of the report.
        name: Name of the files that the store was made from.
        refusals: Reasons why `prepare` would refuse them.

    Raises:
        InputError: If the folder cannot be written.
    """
    contents = replace(inspect_store(store), path=name)
    if refusals:  # they cover the remarks, which are about a store made for this report only
        contents = replace(contents, remarks=())
    problems = [*_refused(refusals), *find_problems(contents)]
    left_out = [f"{clip}: left out, {reason}" for clip, reason in store.skipped()]
    empty = [f"{store.name(int(i))}: no person" for i in np.flatnonzero(is_empty(store))]
    for line in (*summary_lines(contents), *problems):
        log.info("%s", line)
    show_left_out(left_out, f"the others are in {folder / 'report.txt'}")
    text = [*summary_lines(contents, full=True), "", *(problems or ["no problems found"])]
    try:
        _write(folder, [*text, *left_out, *empty])
        figures = draw_overview(store, contents, folder)
    except InputError as error:
        raise InputError(f"{error}; pass output=NAME to write to NAME_check") from None
    log.info("report     %s", folder / "report.txt")
    log.info("figures    %s", ", ".join(str(path) for path in figures))


def show_left_out(clips: Sequence[str], more: str) -> None:
    """Log the first clips that were left out; `more` says where the others are listed."""
    for line in clips[:_LOGGED]:
        log.info("left out   %s", line)
    if len(clips) > _LOGGED:
        log.info("left out   and %d more; %s", len(clips) - _LOGGED, more)


def _refused(reasons: Sequence[str]) -> list[str]:
    return [f"refused: {reason}" for reason in reasons]


def _write(folder: Path, text: Sequence[str]) -> None:
    data = ("\n".join(text) + "\n").encode("utf-8", "backslashreplace")
    write_atomically(folder / "report.txt", data)
