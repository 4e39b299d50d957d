"""Report of what is in files and what is wrong with them (`prepare check=true`)."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from maskclr_pl.data import Store
from maskclr_pl.data.coverage import is_empty
from maskclr_pl.figures.recordings import draw_overview
from maskclr_pl.files import write_atomically
from maskclr_pl.inspection.summary import find_problems, inspect_store, summary_lines
from maskclr_pl.types import InputError

log = logging.getLogger("maskclr_pl")

_SHOWN = 10


def report_folder(given: str, output: str | None) -> Path:
    """The folder of the report: beside the store that is looked at or would be written."""
    if output is None and given.lower().endswith((".h5", ".hdf5")):
        output = given  # beside the store
    name = Path(output or Path(given).resolve().name or "data")  # input=. has the folder's name
    return Path(f"{name.with_suffix('')}_check")


def write_refusal(folder: Path, name: str, refusals: Sequence[str]) -> None:
    """Report on files that could not be read at all."""
    text = [f"input      {name}", "", *(f"refused: {reason}" for reason in refusals)]
    with suppress(InputError):  # the refusal itself is shown in any case
        _write(folder, text)
        log.info("report     %s", folder / "report.txt")


def write_report(store: Store, folder: Path, name: str, refusals: Sequence[str] = ()) -> None:
    """Write and log a report on a store, with figures.

    Args:
        store: What was read.
        folder: Of the report.
        name: Of the files that were read.
        refusals: Reasons why they would be refused.

    Raises:
        InputError: If the folder cannot be written.
    """
    contents = replace(inspect_store(store), path=name)
    if refusals:  # they say what is odd, and the store is only for the report
        contents = replace(contents, remarks=())
    left_out = [f"{clip}: left out, {reason}" for clip, reason in store.skipped()]
    unseen = [f"{store.name(int(i))}: no person" for i in np.flatnonzero(is_empty(store))]
    faults = [*(f"refused: {reason}" for reason in refusals), *find_problems(contents)]
    text = [*summary_lines(contents, full=True), "", *(faults or ["no problems found"])]
    for line in (*summary_lines(contents), *faults):
        log.info("%s", line)
    show_left_out(left_out, f"the others are in {folder / 'report.txt'}")
    try:
        _write(folder, [*text, *left_out, *unseen])
        figures = draw_overview(store, contents, folder)
    except InputError as error:
        raise InputError(f"{error}; output=NAME has the report in NAME_check") from None
    log.info("report     %s", folder / "report.txt")
    log.info("figures    %s", ", ".join(str(path) for path in figures))


def _write(folder: Path, text: Sequence[str]) -> None:
    data = ("\n".join(text) + "\n").encode("utf-8", "backslashreplace")
    write_atomically(folder / "report.txt", data)


def show_left_out(clips: Sequence[str], more: str) -> None:
    """Log the first clips that were left out; `more` says where the others are."""
    for line in clips[:_SHOWN]:
        log.info("left out   %s", line)
    if len(clips) > _SHOWN:
        log.info("left out   and %d more; %s", len(clips) - _SHOWN, more)
