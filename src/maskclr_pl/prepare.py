"""`python -m maskclr_pl.prepare`: files become a store, whatever form they are in.

Example: `python -m maskclr_pl.prepare source=pyskl input=ntu60_hrnet.pkl output=ntu60.h5
skeleton=coco17`. With `check=true` nothing is written but a report and pictures.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.progress import track

from maskclr_pl.cli import command, log
from maskclr_pl.command_line import override, shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.data import Store
from maskclr_pl.data.contents import paired_splits
from maskclr_pl.data.coverage import store_notes
from maskclr_pl.data.store.writer import Table
from maskclr_pl.inspection.image_fit import image_size_notes
from maskclr_pl.inspection.report import report_folder, show_left_out, write_refusal, write_report
from maskclr_pl.skeletons.layouts import layout_notes, read_layout
from maskclr_pl.sources import Source
from maskclr_pl.sources.convert import convert, detect_source_format
from maskclr_pl.sources.names import resolve_class_names
from maskclr_pl.sources.ntu import protocols as ntu
from maskclr_pl.sources.options import check_number
from maskclr_pl.sources.splitting import Splitter
from maskclr_pl.sources.units import CoordinateFormat, check_unit
from maskclr_pl.types import InputError


@command("prepare")
def main(cfg: DictConfig) -> None:
    """Convert files, or look into them."""
    if cfg.check and str(cfg.input).lower().endswith((".h5", ".hdf5")):
        write_report(Store(cfg.input), report_folder(cfg.input, cfg.output), str(cfg.input))
        return
    values = to_container(cfg)  # says which of input and skeleton is missing
    if values["on_error"] not in ("stop", "skip"):
        raise InputError(f"on_error={values['on_error']}: expected stop or skip")
    for key in ("check", "overwrite"):
        if not isinstance(values[key], bool):  # `no` is a text, which would count as true
            raise InputError(f"{key}={values[key]}: expected true or false")
    if values["check"]:
        _check(cfg, values)
        return
    if values["output"] in (None, ""):
        raise InputError("output is missing; type output=...")
    output = Path(str(values["output"]))
    if os.path.isdir(output):
        raise InputError(f"{output} is a folder; type the name of a file, output={output}/data.h5")
    if os.path.exists(output) and not cfg.overwrite:
        raise InputError(f"{output} exists already; type overwrite=true to replace it")
    _describe(_convert(cfg, values, output, values["on_error"]))


def _convert(
    cfg: DictConfig,
    values: dict[str, Any],
    output: Path,
    on_error: Any,
    refusals: list[str] | None = None,
) -> Store:
    known, notes = (None, []) if values["skeleton"] is None else read_layout(values["skeleton"])
    check_number("first_label", values["first_label"], 0)
    division = Splitter(values["split"], values["test_share"], values["split_seed"])
    log.info("reading    %s", values["input"])
    source: Source = hydra.utils.instantiate(cfg.source, _convert_="all")
    skeleton = known or source.skeleton
    if skeleton is None:
        raise InputError("skeleton is missing; type skeleton=...")
    names = source.class_names
    if names is None:
        names = resolve_class_names(values["class_names"], values["skeleton"])
    elif values["class_names"] is not None:
        raise InputError(
            f"{values['input']} names its classes itself; leave out class_names="
            f"{values['class_names']}"
        )
    else:
        names = names[values["first_label"] :]
    total = len(source)
    form = _form(source, values, refusals)
    splits = _splits(source, division, asked="division" in values["source"])
    notes += [*layout_notes(skeleton), *source.notes, *form.notes()]
    for note in notes:
        log.info("note: %s", note)
    try:
        store = convert(
            source,
            output,
            skeleton=skeleton,
            splits=splits,
            class_names=names,
            first_label=values["first_label"],
            on_error=on_error,
            workers=_workers(values["workers"]),
            settings=str(values["source"]),
            form=form,
            progress=lambda items, done: _progress(items, done, total),
        )
    except KeyboardInterrupt:
        log.info("continue   the same command goes on from where it was stopped")
        raise
    for note in (*image_size_notes(store), *_benchmark(store)):
        log.info("note: %s", note)
    return store


def _form(source: Source, values: dict[str, Any], refusals: list[str] | None) -> CoordinateFormat:
    """What the numbers mean; with `refusals`, that it is not known is noted there instead."""
    check_unit(values["units"])
    try:
        return detect_source_format(source, values["input"], values["units"])
    except InputError as error:
        if refusals is None:
            raise
        refusals.append(str(error))
        return CoordinateFormat(any_size=True)


def _workers(given: Any) -> int:
    """Processes that read; by default as many as this one may use cores (Slurm gives few)."""
    if given is None and hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    if given is None:
        return os.cpu_count() or 1
    if not isinstance(given, int) or given < 0:
        raise InputError(f"workers={given}: expected a whole number from 0")
    return given


def _splits(
    source: Source, division: Splitter, asked: bool
) -> Mapping[str, Sequence[str]] | Callable[[Table], Mapping[str, Sequence[str]]]:
    """The splits of the files, those that follow from NTU names, or a function that draws some.

    Args:
        source: What is read.
        division: How to divide it.
        asked: Whether the source has divided its recordings by `division` itself.
    """
    names = [source.name(i) for i in range(len(source))]
    benchmark = ntu.protocol_splits(names)
    if not asked and (division.by is not None or not (benchmark or source.splits)):
        if benchmark or source.splits:
            log.info("note: split=%s replaces the splits of the files", division.by)
        return partial(_divided, division)
    for line in ntu.compare_splits(source.splits, names):
        log.info("note: %s", line)
    if not asked:
        division.check_unused()
    return {**benchmark, **source.splits}


def _divided(division: Splitter, table: Table) -> Mapping[str, Sequence[str]]:
    splits, notes = division.divide(table)
    for note in notes:
        log.info("note: %s", note)
    return splits


def _benchmark(store: Store) -> list[str]:
    """Whether the counts are those of the NTU benchmarks."""
    names = [store.name(i) for i in range(len(store))]
    if not ntu.protocol_splits(names):
        return []
    return ntu.compare_counts(
        {split: len(rows) for split, rows in store.splits.items()}, len(store), names
    )


def _check(cfg: DictConfig, values: dict[str, Any]) -> None:
    """Report what is in the files, and what is wrong with it."""
    given = values["input"]
    first = given[0] if isinstance(given, list) and given else given
    folder = report_folder(str(first), values["output"])
    refusals: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix=".check_", dir=".") as scratch:
            store = _convert(cfg, values, Path(scratch) / "store.h5", "skip", refusals)
            write_report(store, folder, str(given), refusals)
            unusable = store.skipped()
    except InputError as error:
        write_refusal(folder, str(given), [*refusals, str(error)])
        raise
    except OSError as error:
        raise InputError(
            f"a check needs room for a store in this folder ({error.strerror}); go to another one"
        ) from None
    if refusals:
        raise InputError(refusals[0])
    if unusable and values["on_error"] == "stop":
        raise InputError(
            f"{len(unusable)} clips of {given} cannot be used, they are named in "
            f"{folder / 'report.txt'}; correct them, or type on_error=skip to leave them out"
        )
    log.info("next       the same command without check=true writes the store")


def _progress(items: Iterable[Any], done: int, total: int) -> Iterator[Any]:
    if done:
        log.info("going on   %d of %d clips were read before the interruption", done, total)
    if sys.stdout.isatty():
        yield from track(items, total=total, completed=done, description="clips")
        return
    step = max(1, -(-total // 10))
    for count, item in enumerate(items, done + 1):
        yield item
        if count % step == 0 and total >= 5000:
            log.info("read       %d of %d clips", count, total)


def _describe(store: Store) -> None:
    frames = store.frames
    log.info(
        "store      %s   %d clips   %d classes   %d joints (%s)   %s   %d to %d frames",
        *(store.path, len(store), len(store.class_names), len(store.skeleton)),
        *(store.skeleton.name, store.coordinates, frames.min(), frames.max()),
    )
    for split, rows in store.splits.items():
        log.info("split      %-20s %d clips", split, len(rows))
    show_left_out(
        [f"{name}: {reason}" for name, reason in store.skipped()],
        f"pass check=true {override('input', store.path)} to see all",
    )
    for note in store_notes(store):
        log.info("note: %s", note)
    pairs = paired_splits([name for name, rows in store.splits.items() if len(rows)])
    if not pairs:
        log.info(
            "note: no training split with a test split; to train, pass data.train_split= and "
            "data.test_split= of those above, or prepare again with split=class"
        )
    elif len(store.class_names) > 1:
        splits = dict(zip(("data__train_split", "data__test_split"), pairs[0], strict=True))
        following = shell_command("train", "data=custom", data__path=store.path, **splits)
        log.info("next       %s", following)
    log.info("%s", store.path)


if __name__ == "__main__":
    main()
