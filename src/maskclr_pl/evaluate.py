"""`python -m maskclr_pl.evaluate ckpt_path=RUN`: accuracy on clean and perturbed test clips."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, ListConfig

from maskclr_pl.analysis.model_figures import DEFAULT, available, check_figure_names, draw
from maskclr_pl.checkpoint.load import checkpoint_path, load_run
from maskclr_pl.checkpoint.restore import (
    iterate_batches,
    restore_data,
    run_folder_of,
    select_device,
)
from maskclr_pl.cli import command, log, refuse_links
from maskclr_pl.command_line import shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.data import Store
from maskclr_pl.figures.class_scores import class_score_dots
from maskclr_pl.figures.curves import robustness_curves
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.reporting.accuracy import format_accuracy
from maskclr_pl.robustness.adversarial import Adversarial
from maskclr_pl.robustness.corruptions import UNITS, Corruption, Poses
from maskclr_pl.robustness.runner import measure_robustness, summarize
from maskclr_pl.robustness.second_sensor import matched, second_passes
from maskclr_pl.robustness.tables import (
    NOISY,
    class_rows,
    class_scores,
    summary_rows,
    write_robustness,
)
from maskclr_pl.tracking.loggers import log_later_results, run_loggers
from maskclr_pl.types import InputError


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate one checkpoint; writes tables of its robustness, and figures."""
    path = checkpoint_path(cfg.ckpt_path, cfg.which)
    method, info = load_run(path, cfg.trusted)
    if not isinstance(method, Classifier):
        raise InputError(
            f"{path}: {type(method).__name__} learns without labels and has no classes; use "
            f"{shell_command('train', 'method=linear_probe', init_from=cfg.ckpt_path)}"
        )
    folder = Path(cfg.output_dir) if cfg.output_dir else run_folder_of(path)
    refuse_links(folder)
    data, device = restore_data(info, to_container(cfg.data)), select_device(cfg.device)
    method.to(device)
    poses = Poses(data.store.skeleton, 2 if data.store.coordinates == "pixels" else 3)
    corruptions = _fitting([hydra.utils.instantiate(c) for c in cfg.corruption], poses)
    adversarial = Adversarial(_numbers("adversarial", cfg.adversarial))
    pictures = _pictures(_several(cfg.figures), method)
    second_store = Store(cfg.second_store) if cfg.second_store else None
    loggers, began = run_loggers(run_folder_of(path), cfg.trusted) if cfg.log else [], time.time()
    log.info(
        "evaluating %s on %d clips of %s: %d passes over them, on %s",
        *(path, len(data.test), data.store.path),
        1 + cfg.draws * sum(len(c.levels) for c in corruptions) + len(adversarial.levels),
        device.type,
    )
    start = time.monotonic()
    load = partial(iterate_batches, method, data, device=device)
    found = measure_robustness(
        lambda clip, batch: method.predict_clips(clip, batch).logits,
        *(load(data.test), data.test.names, corruptions, poses),
        *(cfg.draws, cfg.seed, adversarial),
    )
    if found.unanswered:
        log.info(
            "note: the scores of %d clips are not numbers: they count as wrong; prepare "
            "check=true tells whether their coordinates are finite",
            found.unanswered,
        )
    second = None
    if second_store is not None:
        second = second_passes(method, second_store, data.test, found, load)
        log.info("%s %s", second_store.path, matched(method, second_store, second, data.test))
    rows, kept = write_robustness(folder, found, data.store.class_names, second)
    if kept:
        log.info("kept       the earlier table as %s", kept)
    _show(rows, time.monotonic() - start, len(data.store.class_names))
    figures = _draw(folder, rows, class_rows(found, data.store.class_names))
    figures += draw(method, data, device, folder, pictures) if pictures else []
    log.info("table      %s", folder / "robustness.csv")
    shown = [figure.stem for figure in figures if figure.suffix in (".png", ".gif")]
    if shown:
        log.info("figures    %s: %s", folder / "figures", ", ".join(shown))
    log_later_results(loggers, folder, began)
    log.info("next       %s", shell_command("report", runs=[str(folder), "ANOTHER_RUN"]))


def _fitting(corruptions: Sequence[Corruption], poses: Poses) -> list[Corruption]:
    """Those that mean something for the data; says which ones do not."""
    names = [corruption.name for corruption in corruptions]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"corruption: {twice[0]} is there twice; put its levels in one list")
    reasons = [corruption.skip_reason(poses) for corruption in corruptions]
    for name, reason in zip(names, reasons, strict=True):
        if reason:
            log.info("left out   %s: %s", name, reason)
    return [c for c, reason in zip(corruptions, reasons, strict=True) if not reason]


def _several(value: Any) -> list[Any]:
    """What may be typed as a list, as one value, or as null."""
    return list(value) if isinstance(value, ListConfig) else [] if value is None else [value]


def _numbers(key: str, value: Any) -> list[float]:
    try:
        return [float(one) for one in _several(value)]
    except (TypeError, ValueError):
        raise InputError(f"{key}={value}: expected numbers, such as {key}=[0.001,0.005]") from None


def _pictures(asked: list[str], method: Method) -> list[str]:
    """Names of the pictures of the model that are asked for."""
    every = available(method)
    sets = {"none": [], "all": every, "default": [name for name in DEFAULT if name in every]}
    names = sets.get(asked[0], asked) if len(asked) == 1 else asked
    check_figure_names(names, method)
    return names


def _show(rows: Sequence[Mapping[str, Any]], seconds: float, classes: int) -> None:
    """Clean accuracy, and a line for each corruption."""
    clean = format_accuracy(rows[0]["top1"], rows[0]["top5"], classes)
    log.info("clean      %s   (%.0f s)", clean, seconds)
    table = summary_rows(rows)
    if not table:
        return
    log.info("%-22s %14s %7s %10s %7s", "", "mean ± spread", "area", "retention", "worst")
    for row in table:
        spread = "" if math.isnan(row["spread"]) else f" ± {row['spread']:.1f}"
        log.info(
            *("%-22s %6.1f%-8s %7.1f %8.1f %% %7.1f", row["corruption"], row["mean"], spread),
            *(row[name] for name in ("auc", "retention", "worst")),
        )
    log.info(
        "top-1 in percent: mean over levels above 0, spread over draws, area from 0 to the end"
    )


def _draw(
    folder: Path, rows: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """The figures: all corruptions, and the classes under noise."""
    levels = summarize(rows)
    files = []
    if len(levels) > 1:
        files.append(folder / "figures" / "robustness.png")
        robustness_curves({folder.name: levels}, UNITS, files[-1])
    noise, sigma = NOISY
    if noise in levels:
        measured = sorted(level for level in levels[noise] if level)
        sigma = sigma if sigma in measured else measured[0]
        scores = {
            "clean": class_scores(classes, "clean", 0.0),
            f"noise, sigma {sigma:g}": class_scores(classes, noise, sigma),
        }
        files.append(folder / "figures" / "noisy_classes.png")
        class_score_dots(scores, files[-1], f"{folder.name}: classes under spatiotemporal noise")
    return files


if __name__ == "__main__":
    main()
