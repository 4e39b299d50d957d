"""`python -m maskclr_pl.prepare`: convert pose files of any supported format to a store.

Example: `python -m maskclr_pl.prepare source=pyskl input=ntu60_hrnet.pkl output=ntu60.h5
skeleton=coco17`. With `check=true` only a report and figures are written.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import hydra
from omegaconf import DictConfig
from rich.progress import track

from maskclr_pl.cli import command, log
from maskclr_pl.command_line import override, shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.data import Store
from maskclr_pl.data.contents import paired_splits
from maskclr_pl.data.coverage import store_notes
from maskclr_pl.data.store.writer import Columns
from maskclr_pl.inspection.image_fit import image_size_notes
from maskclr_pl.inspection.report import report_folder, show_left_out, write_refusal, write_report
from maskclr_pl.skeletons.layouts import layout_notes, read_layout
from maskclr_pl.sources import Source
from maskclr_pl.sources.convert import convert, detect_source_format
from maskclr_pl.sources.names import resolve_class_names
from maskclr_pl.sources.ntu import protocols as ntu
from maskclr_pl.sources.options import check_number
from maskclr_pl.sources.splitting import Splitter
from maskclr_pl.sources.units import CoordinateFormat, parse_unit
from maskclr_pl.types import InputError

Splits = Mapping[str, Sequence[str]]


@command("prepare")
def main(cfg: DictConfig) -> None:
    """Convert pose files to a store, or report on them."""
    run(cfg)


def run(cfg: DictConfig) -> Path:
    """Convert pose files and return the store, or with `check=true` the folder of the report."""
    if cfg.check and str(cfg.input).lower().endswith((".h5", ".hdf5")):
        folder = report_folder(cfg.input, cfg.output)
        write_report(Store(cfg.input), folder, str(cfg.input))
        return folder
    values = to_container(cfg)  # raises if input or skeleton is missing
    _check_settings(values)
    if values["check"]:
        return _report(cfg, values)
    if values["output"] in (None, ""):
        raise InputError("output is missing; pass output=STORE.h5")
    output = Path(str(values["output"]))
    if os.path.isdir(output):
        raise InputError(f"{output} is a folder; pass output={output}/data.h5")
    if os.path.exists(output) and not cfg.overwrite:
        raise InputError(f"{output} exists already; pass overwrite=true to replace it")
    _describe(_convert(cfg, values, output, values["on_error"]))
    return output


def _check_settings(values: Mapping[str, Any]) -> None:
    if values["on_error"] not in ("stop", "skip"):
        raise InputError(f"on_error={values['on_error']}: expected stop or skip")
    for key in ("check", "overwrite"):
        if not isinstance(values[key], bool):  # `no` is a string, which would count as true
            raise InputError(f"{key}={values[key]}: expected true or false")


def _convert(
    cfg: DictConfig,
    values: dict[str, Any],
    output: Path,
    on_error: Literal["stop", "skip"],
    refusals: list[str] | None = None,
) -> Store:
    """Convert the input to a store.

    Args:
        cfg: Configuration.
        values: Its plain values.
        output: Store to write.
        on_error: `stop` or `skip` at clips that cannot be used.
        refusals: If given, an unknown unit is added here instead of raised.
    """
    layout, notes = (None, []) if values["skeleton"] is None else read_layout(values["skeleton"])
    check_number("first_label", values["first_label"], 0)
    splitter = Splitter(values["split"], values["test_share"], values["split_seed"])
    log.info("reading    %s", values["input"])
    source: Source = hydra.utils.instantiate(cfg.source, _convert_="all")
    skeleton = layout or source.skeleton
    if skeleton is None:
        raise InputError("skeleton is missing; pass skeleton=NAME, or a YAML file")
    class_names = _class_names(source, values)
    coordinates = _detect_format(source, values, refusals)
    splits = _choose_splits(source, splitter, divided="division" in values["source"])
    _log_notes([*notes, *layout_notes(skeleton), *source.notes, *coordinates.notes()])
    try:
        store = convert(
            source,
            output,
            skeleton=skeleton,
            splits=splits,
            class_names=class_names,
            first_label=values["first_label"],
            on_error=on_error,
            workers=_num_workers(values["workers"]),
            settings=str(values["source"]),
            form=coordinates,
            progress=partial(_progress, total=len(source)),
        )
    except KeyboardInterrupt:
        log.info("continue   repeat the command to continue where it stopped")
        raise
    _log_notes([*image_size_notes(store), *_benchmark_notes(store)])
    return store


def _log_notes(notes: Iterable[str]) -> None:
    for note in notes:
        log.info("note: %s", note)


def _class_names(source: Source, values: Mapping[str, Any]) -> Sequence[str] | None:
    if source.class_names is None:
        return resolve_class_names(values["class_names"], values["skeleton"])
    if values["class_names"] is not None:
        raise InputError(
            f"{values['input']} includes the names of its classes; leave out class_names="
            f"{values['class_names']}"
        )
    return source.class_names[values["first_label"] :]


def _detect_format(
    source: Source, values: Mapping[str, Any], refusals: list[str] | None
) -> CoordinateFormat:
    unit = parse_unit(values["units"])
    try:
        return detect_source_format(source, values["input"], unit)
    except InputError as error:
        if refusals is None:
            raise
        refusals.append(str(error))
        return CoordinateFormat(any_size=True)


def _num_workers(workers: Any) -> int:
    """Number of reading processes; by default one for each core that this process may use."""
    if workers is None and hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    if workers is None:
        return os.cpu_count() or 1
    if not isinstance(workers, int) or workers < 0:
        raise InputError(f"workers={workers}: expected a whole number from 0")
    return workers


def _choose_splits(
    source: Source, splitter: Splitter, divided: bool
) -> Splits | Callable[[Columns], Splits]:
    """The splits of the files and of NTU names, or a function that draws some.

    Args:
        source: Source of the clips.
        splitter: How to draw splits.
        divided: True if the source has applied the splitter itself.
    """
    names = [source.name(i) for i in range(len(source))]
    benchmark = ntu.protocol_splits(names)
    has_splits = bool(benchmark or source.splits)
    if not divided and (splitter.by is not None or not has_splits):
        if has_splits:
            log.info("note: split=%s replaces the splits of the files", splitter.by)
        return partial(_draw_splits, splitter)
    _log_notes(ntu.compare_splits(source.splits, names))
    if not divided:
        splitter.check_unused()
    return {**benchmark, **source.splits}


def _draw_splits(splitter: Splitter, table: Columns) -> Splits:
    splits, notes = splitter.divide(table)
    _log_notes(notes)
    return splits


def _benchmark_notes(store: Store) -> list[str]:
    """Compare the numbers of clips with those of the NTU benchmarks."""
    names = [store.name(i) for i in range(len(store))]
    if not ntu.protocol_splits(names):
        return []
    counts = {split: len(rows) for split, rows in store.splits.items()}
    return ntu.compare_counts(counts, len(store), names)


def _report(cfg: DictConfig, values: dict[str, Any]) -> Path:
    """Report on the content of the files and on clips that cannot be used."""
    paths = values["input"]
    first = paths[0] if isinstance(paths, list) and paths else paths
    folder = report_folder(str(first), values["output"])
    refusals: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix=".check_", dir=".") as scratch:
            store = _convert(cfg, values, Path(scratch) / "store.h5", "skip", refusals)
            write_report(store, folder, str(paths), refusals)
            unusable = store.skipped()
    except InputError as error:
        write_refusal(folder, str(paths), [*refusals, str(error)])
        raise
    except OSError as error:
        raise InputError(
            f"check=true needs space for a temporary store in this folder ({error.strerror}); run "
            "it in another folder"
        ) from None
    if refusals:
        raise InputError(refusals[0])
    if unusable and values["on_error"] == "stop":
        raise InputError(
            f"{len(unusable)} clips of {paths} cannot be used, see {folder / 'report.txt'}; "
            "correct them, or pass on_error=skip to leave them out"
        )
    log.info("next       the same command without check=true writes the store")
    return folder


def _progress(items: Iterable[Any], done: int, total: int) -> Iterator[Any]:
    """Show progress: a bar in a terminal, ten lines in a log."""
    if done:
        log.info("continues  %d of %d clips were read before the interruption", done, total)
    if sys.stdout.isatty():
        yield from track(items, total=total, completed=done, description="clips")
        return
    step = max(1, -(-total // 10))
    for count, item in enumerate(items, done + 1):
        yield item
        if count % step == 0 and total >= 5000:
            log.info("read       %d of %d clips", count, total)


def _describe(store: Store) -> None:
    """Log what a new store contains and how to train on it."""
    frames, skeleton = store.frames, store.skeleton
    facts = [
        f"{len(store)} clips",
        f"{len(store.class_names)} classes",
        f"{len(skeleton)} joints ({skeleton.name})",
        store.coordinates,
        f"{frames.min()} to {frames.max()} frames",
    ]
    log.info("store      %s   %s", store.path, "   ".join(facts))
    for split, rows in store.splits.items():
        log.info("split      %-20s %d clips", split, len(rows))
    show_left_out(
        [f"{name}: {reason}" for name, reason in store.skipped()],
        f"pass check=true {override('input', store.path)} to see all",
    )
    _log_notes(store_notes(store))
    pairs = paired_splits([name for name, rows in store.splits.items() if len(rows)])
    if not pairs:
        log.info(
            "note: no pair of a training and a test split; to train, pass data.train_split= and "
            "data.test_split= with splits listed above, or prepare again with split=class"
        )
    elif len(store.class_names) > 1:
        splits = dict(zip(("data__train_split", "data__test_split"), pairs[0], strict=True))
        line = shell_command("train", "data=custom", data__path=store.path, **splits)
        log.info("next       %s", line)
    log.info("%s", store.path)


if __name__ == "__main__":
    main()
