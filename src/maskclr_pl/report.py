"""`python -m maskclr_pl.report runs=[A,B]`: compare runs, or build an ensemble or a table."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from maskclr_pl import __version__
from maskclr_pl.cli import command, log, results_folder, run_folder
from maskclr_pl.command_line import shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.files import write_atomically
from maskclr_pl.reporting.accuracy import format_accuracy
from maskclr_pl.reporting.caveats import caveats, cost_rows, seed_problems, setting_rows
from maskclr_pl.reporting.comparison import (
    class_comparison_rows,
    compare_pairs,
    comparison_rows,
    corruption_rows,
    difference_rows,
)
from maskclr_pl.reporting.figures import draw_group
from maskclr_pl.reporting.html import render_page
from maskclr_pl.reporting.paper_table import NOTE, PaperTable
from maskclr_pl.reporting.published_noise import published_noise
from maskclr_pl.reporting.run_groups import Model, group_comparable, read_models
from maskclr_pl.reporting.sections import ComparisonGroup, report_sections
from maskclr_pl.reporting.tables import Rows, latex_table, markdown_table
from maskclr_pl.runs.describe import read_run
from maskclr_pl.runs.predictions import accuracy, ensemble, read_predictions
from maskclr_pl.runs.read import find_runs, read_config
from maskclr_pl.runs.results import write_metrics, write_predictions, write_table
from maskclr_pl.tracking.loggers import save_dashboard
from maskclr_pl.types import InputError

_SCORES = (
    "Top-1 on the test split in percent: clean, and the mean over the levels of each corruption. "
    "± is the standard deviation over runs with the same label."
)


@command("report")
def main(cfg: DictConfig) -> None:
    """Compare runs, sum their logits, or fill in the table of the paper."""
    run(cfg)


def run(cfg: DictConfig) -> None:
    """Write a comparison, an ensemble, the table of the paper or a dashboard.

    Args:
        cfg: See conf/report.yaml.

    Raises:
        InputError: If a setting is wrong or a folder is not a finished run.
    """
    kinds = {
        "comparison": _write_comparison,
        "ensemble": _write_ensemble,
        "table": _write_paper_table,
        "dashboard": _save_dashboard,
    }
    if isinstance(cfg.runs, str):
        raise InputError(f"runs={cfg.runs}: expected a list; pass runs=[{cfg.runs}]")
    if not cfg.runs:
        raise InputError("runs is empty; pass runs=[RUN,ANOTHER_RUN]")
    if cfg.kind not in kinds:
        raise InputError(f"kind={cfg.kind}: expected {', '.join(kinds)}")
    kinds[cfg.kind](cfg, [Path(folder) for folder in to_container(cfg.runs)])


def _save_dashboard(cfg: DictConfig, runs: list[Path]) -> None:
    """Save charts for the W&B project of a run."""
    log.info("dashboard  %s", save_dashboard(runs[0]))


def _write_ensemble(cfg: DictConfig, runs: list[Path]) -> None:
    """Write the weighted sum of the logits of runs as a run folder."""
    weights = _ensemble_weights(cfg, len(runs))
    for folder in runs:
        if (folder / "config.yaml").is_file() and "ensemble" in read_config(folder):
            raise InputError(f"{folder} is an ensemble; pass the runs that it sums")
    predictions = [read_predictions(folder) for folder in runs]
    total = ensemble(predictions, weights)
    metrics = accuracy(total)
    output = run_folder(cfg.output_dir, "report")
    config = {"ensemble": {"runs": _absolute(runs), "weights": weights}}
    with results_folder(output, config):
        write_metrics(output, metrics)
        write_predictions(output, total.name, total.label, total.logits)
    for folder, weight, single in zip(runs, weights, predictions, strict=True):
        log.info("%-6g x %s   test top1 %.2f", weight, folder, accuracy(single)["test/top1"])
    classes = total.logits.shape[1]
    text = format_accuracy(metrics["test/top1"], metrics["test/top5"], classes)
    log.info("together   test %s", text)
    log.info("%s", output)


def _ensemble_weights(cfg: DictConfig, number: int) -> list[float]:
    """Return the weight of each run; 1 by default."""
    if cfg.weights is None:
        return [1.0] * number
    values = to_container(cfg.weights) if isinstance(cfg.weights, ListConfig) else ()
    try:
        weights = [float(weight) for weight in values]
    except (TypeError, ValueError):
        weights = []
    if not any(weights) or not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise InputError(
            f"weights={cfg.weights}: expected numbers >= 0 that are not all 0, such as "
            "weights=[0.6,0.6,0.4]"
        )
    return weights


def _write_paper_table(cfg: DictConfig, folders: list[Path]) -> None:
    """Write the table of the paper with our runs."""
    runs, problems = [], []
    paths = (path.resolve() for folder in folders for path in find_runs(folder))
    for path in dict.fromkeys(paths):
        try:
            runs.append(read_run(path))
        except InputError as error:  # other runs are still useful
            problems.append(str(error))
    table = PaperTable(runs)
    output = run_folder(cfg.output_dir, "report")
    markdown = table.markdown()
    tex = latex_table(table.display_rows(), "Published accuracies and runs of this package.", NOTE)
    with results_folder(output, {"table": {"runs": _absolute(folders)}}):
        write_table(output / "table.csv", table.csv_rows())
        write_atomically(output / "table.md", markdown.encode())
        write_atomically(output / "table.tex", tex.encode())
    log.info("%s", markdown)
    for problem in problems:
        log.info("skipped    %s", problem)
    log.info("table      %s", output / "table.md")


def _write_comparison(cfg: DictConfig, runs: list[Path]) -> None:
    """Write one page, tables and figures that compare runs."""
    labels = (to_container(cfg.labels) if cfg.labels else None) or _default_labels(runs)
    models = read_models(labels, runs)
    for model in models:
        for problem in seed_problems(model) if len(model.runs) > 1 else ():
            log.info("warning: %s: %s; use different labels", model.label, problem)
    published = published_noise(to_container(cfg.published)) if cfg.published else None
    groups = [
        ComparisonGroup(members, compare_pairs(members)) for members in group_comparable(models)
    ]
    tables = _tables(models, groups)
    output = run_folder(cfg.output_dir, "report")
    config = {"comparison": {"runs": _absolute(runs), "labels": labels}}
    with results_folder(output, config):
        for name, (rows, caption) in tables.items():
            _write_table_files(output / name, rows, caption)
        groups = [
            replace(group, figures=draw_group(group, output, _suffix(i), published))
            for i, group in enumerate(groups)
        ]
        _write_page(output / "report.html", models, groups)
    log.info("%s", (output / "comparison.md").read_text())
    log.info("tables     %s (.csv, .md, .tex)", ", ".join(str(output / name) for name in tables))
    log.info("page       %s", output / "report.html")
    if not any(model.corruptions for model in models):
        log.info("next       %s", shell_command("evaluate", ckpt_path=runs[0]))


def _absolute(folders: Sequence[Path]) -> list[str]:
    return [str(folder.resolve()) for folder in folders]


def _default_labels(runs: Sequence[Path]) -> list[str]:
    """Return folder names, prefixed with the parent folder if two are the same."""
    names = [run.resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [f"{run.resolve().parent.name}/{run.resolve().name}" for run in runs]


def _suffix(group_index: int) -> str:
    """Return the suffix of the files of a comparison group."""
    return f"_{group_index + 1}" if group_index else ""


def _tables(
    models: Sequence[Model], groups: Sequence[ComparisonGroup]
) -> dict[str, tuple[Rows, str]]:
    """Return rows and caption of each table that has rows, by file name."""
    scores = [row for group in groups for row in comparison_rows(group.models, group.differences)]
    differences = difference_rows(pair for group in groups for pair in group.differences)
    tables = {
        "comparison": (scores, _SCORES),
        "differences": (
            differences,
            "Differences of top-1 in percentage points, with 95 % intervals of a paired bootstrap "
            "over the test clips.",
        ),
        "cost": (cost_rows(models), "Cost of training and inference."),
        "settings": (setting_rows(models), "Settings that differ."),
    }
    for i, group in enumerate(groups):
        rows = corruption_rows(group.models, group.differences)
        tables[f"corruptions{_suffix(i)}"] = rows, "Top-1 in percent under corruptions."
        classes = class_comparison_rows(group.models)
        tables[f"classes{_suffix(i)}"] = classes, "Top-1 in percent by class."
    return {name: (_fill_missing(rows), text) for name, (rows, text) in tables.items() if rows}


def _fill_missing(rows: Rows) -> Rows:
    """Give all rows the same keys."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key, "") for key in keys} for row in rows]


def _write_table_files(path: Path, rows: Rows, caption: str) -> None:
    """Write a table as CSV, Markdown and LaTeX."""
    write_table(path.with_suffix(".csv"), rows)
    write_atomically(path.with_suffix(".md"), f"{markdown_table(rows)}\n\n{caption}\n".encode())
    write_atomically(path.with_suffix(".tex"), latex_table(rows, caption).encode())


def _write_page(path: Path, models: Sequence[Model], groups: Sequence[ComparisonGroup]) -> None:
    count = sum(len(model.runs) for model in models)
    subtitle = (
        f"{count} run{'s' * (count > 1)}, {len(models)} model{'s' * (len(models) > 1)}. Tested on: "
        f"{' | '.join(group.title for group in groups)}. Written {datetime.now():%Y-%m-%d} by "
        f"maskclr_pl {__version__}."
    )
    notes = caveats(models, [group.models for group in groups])
    title = ", ".join(model.label for model in models)
    text = render_page(title, subtitle, notes, report_sections(groups))
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    main()
