"""`python -m maskclr_pl.evaluate ckpt_path=RUN`: accuracy on clean and corrupted test clips."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, ListConfig

from maskclr_pl.analysis.model_figures import (
    DEFAULT,
    available,
    check_figure_names,
    draw_model_figures,
)
from maskclr_pl.checkpoint.load import checkpoint_path, load_classifier
from maskclr_pl.checkpoint.restore import (
    iterate_batches,
    restore_data,
    select_device,
)
from maskclr_pl.cli import command, log, refuse_links
from maskclr_pl.command_line import shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.data import Store
from maskclr_pl.figures.class_scores import class_score_dots
from maskclr_pl.figures.curves import robustness_curves
from maskclr_pl.methods import Method
from maskclr_pl.reporting.accuracy import format_accuracy
from maskclr_pl.robustness.adversarial import Adversarial
from maskclr_pl.robustness.corruptions import UNITS, Corruption, Poses
from maskclr_pl.robustness.runner import measure_robustness, summarize
from maskclr_pl.robustness.second_sensor import describe_second_store, evaluate_second_store
from maskclr_pl.robustness.tables import (
    POSTER_NOISE,
    class_accuracy_rows,
    class_scores,
    summary_rows,
    write_robustness,
)
from maskclr_pl.runs.read import run_folder_of
from maskclr_pl.tracking.loggers import log_later_results, run_loggers
from maskclr_pl.types import InputError
from maskclr_pl.visibility import DIMENSIONS


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate a checkpoint on clean and corrupted test clips."""
    run(cfg)


def run(cfg: DictConfig) -> list[dict[str, Any]]:
    """Evaluate a checkpoint; write tables and figures.

    Args:
        cfg: See conf/evaluate.yaml.

    Returns:
        The rows of robustness.csv: corruption, level, draw, top1, top5 (percent).

    Raises:
        InputError: If a setting is wrong or the method is not a classifier.
    """
    path = checkpoint_path(cfg.ckpt_path, cfg.which)
    method, info = load_classifier(path, cfg.trusted)
    folder = Path(cfg.output_dir) if cfg.output_dir else run_folder_of(path)
    refuse_links(folder)
    data, device = restore_data(info, to_container(cfg.data)), select_device(cfg.device)
    method.to(device)
    poses = Poses(data.store.skeleton, DIMENSIONS[data.store.coordinates])
    configured = [hydra.utils.instantiate(node) for node in cfg.corruption.values()]
    corruptions = _applicable(configured, poses)
    adversarial = Adversarial(_as_numbers("adversarial", cfg.adversarial))
    figure_names = _figure_names(_as_list(cfg.figures), method)
    second_store = Store(cfg.second_store) if cfg.second_store else None
    loggers = run_loggers(run_folder_of(path), cfg.trusted) if cfg.log else []

    start, start_time = time.monotonic(), time.time()
    count = 1 + cfg.draws * sum(len(c.levels) for c in corruptions) + len(adversarial.levels)
    clips = f"{len(data.test)} clips of {data.store.path}"
    log.info("evaluating %s on %s: %d passes, on %s", path, clips, count, device.type)
    load = partial(iterate_batches, method, data, device=device)
    passes = measure_robustness(
        lambda clip, batch: method.predict_clips(clip, batch).logits,
        load(data.test),
        data.test.names,
        corruptions,
        poses,
        cfg.draws,
        cfg.seed,
        adversarial,
    )
    second = None
    if second_store is not None:
        second = evaluate_second_store(method, second_store, data.test, passes, load)
        description = describe_second_store(method, second_store, second, data.test)
        log.info("%s %s", second_store.path, description)

    rows, backup = write_robustness(folder, passes, data.store.class_names, second)
    if backup:
        log.info("kept       the earlier table as %s", backup)
    _log_summary(rows, passes.not_finite, time.monotonic() - start, len(data.store.class_names))
    figures = _draw_robustness(folder, rows, class_accuracy_rows(passes, data.store.class_names))
    if figure_names:
        figures += draw_model_figures(method, data, device, folder, figure_names)
    _log_files(folder, figures)
    log_later_results(loggers, folder, start_time)
    log.info("next       %s", shell_command("report", runs=[str(folder), "ANOTHER_RUN"]))
    return rows


def _applicable(corruptions: Sequence[Corruption], poses: Poses) -> list[Corruption]:
    """Return the corruptions that apply to the data; the others are skipped with a note."""
    names = [corruption.name for corruption in corruptions]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"corruption: {duplicates[0]} is configured twice; list all of its levels in one entry"
        )
    applicable = []
    for corruption in corruptions:
        if reason := corruption.skip_reason(poses):
            log.info("skipped    %s: %s", corruption.name, reason)
        else:
            applicable.append(corruption)
    return applicable


def _as_list(value: Any) -> list[Any]:
    """Return a list for a setting that may be a list, one value or null."""
    return list(value) if isinstance(value, ListConfig) else [] if value is None else [value]


def _as_numbers(key: str, value: Any) -> list[float]:
    try:
        return [float(item) for item in _as_list(value)]
    except (TypeError, ValueError):
        raise InputError(f"{key}={value}: expected numbers, such as {key}=[0.001,0.005]") from None


def _figure_names(names: list[str], method: Method) -> list[str]:
    """Resolve none, all and default to names of figures."""
    every = available(method)
    groups = {"none": [], "all": every, "default": [name for name in DEFAULT if name in every]}
    names = groups.get(names[0], names) if len(names) == 1 else names
    check_figure_names(names, method)
    return names


def _log_summary(
    rows: Sequence[Mapping[str, Any]], not_finite: int, seconds: float, classes: int
) -> None:
    """Log clean accuracy, and one line per corruption."""
    if not_finite:
        log.info(
            "note: %d clips have scores that are not finite and count as wrong; use prepare "
            "check=true to check their coordinates",
            not_finite,
        )
    clean = format_accuracy(rows[0]["top1"], rows[0]["top5"], classes)
    log.info("clean      %s   (%.0f s)", clean, seconds)
    table = summary_rows(rows)
    if not table:
        return
    log.info("%-22s %14s %7s %10s %7s", "", "mean ± std", "area", "retention", "worst")
    for row in table:
        std = "" if math.isnan(row["spread"]) else f" ± {row['spread']:.1f}"
        log.info(
            "%-22s %6.1f%-8s %7.1f %8.1f %% %7.1f",
            row["corruption"],
            row["mean"],
            std,
            row["auc"],
            row["retention"],
            row["worst"],
        )
    log.info("top-1 in percent: mean over levels above 0, std over draws, area under the curve")


def _log_files(folder: Path, figures: Sequence[Path]) -> None:
    log.info("table      %s", folder / "robustness.csv")
    if names := [figure.stem for figure in figures if figure.suffix in (".png", ".gif")]:
        log.info("figures    %s: %s", folder / "figures", ", ".join(names))


def _draw_robustness(
    folder: Path, rows: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Draw accuracy over levels of all corruptions, and accuracy per class under noise."""
    summary, files = summarize(rows), []
    if len(summary) > 1:
        files.append(folder / "figures" / "robustness.png")
        robustness_curves({folder.name: summary}, UNITS, files[-1])
    noise, sigma = POSTER_NOISE
    if noise in summary:
        sigmas = sorted(level for level in summary[noise] if level)
        sigma = sigma if sigma in sigmas else sigmas[0]
        scores = {
            "clean": class_scores(classes, "clean", 0.0),
            f"noise, sigma {sigma:g}": class_scores(classes, noise, sigma),
        }
        files.append(folder / "figures" / "noisy_classes.png")
        title = f"{folder.name}: classes under spatiotemporal noise"
        class_score_dots(scores, files[-1], title)
    return files


if __name__ == "__main__":
    main()
