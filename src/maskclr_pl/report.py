"""`python -m maskclr_pl.report runs=[A,B]`: runs side by side, as one, or in the paper's table."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from maskclr_pl import __version__
from maskclr_pl.analysis.features import read_features
from maskclr_pl.cli import command, log, results_folder, run_folder
from maskclr_pl.command_line import shell_command
from maskclr_pl.config.container import to_container
from maskclr_pl.figures.class_scores import class_score_dots
from maskclr_pl.figures.curves import robustness_curves, training_curves
from maskclr_pl.figures.features import Projection, draw_features
from maskclr_pl.files import write_atomically
from maskclr_pl.reporting.accuracy import format_accuracy
from maskclr_pl.reporting.caveats import cost_rows, no_seeds, setting_rows, warnings
from maskclr_pl.reporting.comparison import (
    class_rows,
    comparison_rows,
    pair_rows,
    pairs,
    robustness_rows,
)
from maskclr_pl.reporting.html import notes, page
from maskclr_pl.reporting.paper_table import NOTE, PaperTable
from maskclr_pl.reporting.published_noise import PublishedCurves, published_noise
from maskclr_pl.reporting.run_groups import Model, comparable, read_models
from maskclr_pl.reporting.sections import Part, Picture, sections
from maskclr_pl.reporting.tables import Rows, latex_table, markdown_table
from maskclr_pl.robustness.corruptions import UNITS
from maskclr_pl.robustness.runner import summarize
from maskclr_pl.robustness.tables import POSTER_NOISE, class_scores
from maskclr_pl.runs.describe import read_run
from maskclr_pl.runs.predictions import accuracy, ensemble, read_predictions
from maskclr_pl.runs.read import epoch_markers, find_runs, read_config, read_curves
from maskclr_pl.runs.read import read_robustness as run_rows
from maskclr_pl.runs.results import (
    read_table,
    write_metrics,
    write_predictions,
    write_table,
)
from maskclr_pl.tracking.loggers import save_dashboard
from maskclr_pl.types import InputError

_SCORES = (
    "Top-1 on the test split in percent: clean, and the mean over the levels of each corruption. "
    "± is the standard deviation over runs of the same name."
)


@command("report")
def main(cfg: DictConfig) -> None:
    """Compare runs, sum what they say, or fill in the paper's table."""
    kinds = {"comparison": _compare, "ensemble": _ensemble, "table": _paper}
    kinds["dashboard"] = _dashboard
    if isinstance(cfg.runs, str):
        raise InputError(f"runs={cfg.runs}: expected a list; type runs=[{cfg.runs}]")
    if not cfg.runs:
        raise InputError("runs is empty; pass runs=[RUN,ANOTHER_RUN]")
    if cfg.kind not in kinds:
        raise InputError(f"kind={cfg.kind}: expected {', '.join(kinds)}")
    kinds[cfg.kind](cfg, [Path(run) for run in to_container(cfg.runs)])


def _dashboard(cfg: DictConfig, runs: list[Path]) -> None:
    """Charts for the W&B project of a run."""
    log.info("dashboard  %s", save_dashboard(runs[0]))


def _ensemble(cfg: DictConfig, runs: list[Path]) -> None:
    """The weighted sum of the logits of runs, as a run folder."""
    weights = _weights(cfg, len(runs))
    for run in runs:
        if (run / "config.yaml").is_file() and "ensemble" in read_config(run):
            raise InputError(f"{run}: an ensemble itself; type the runs that it sums")
    total = ensemble([read_predictions(run) for run in runs], weights)
    metrics = accuracy(total)
    folder = run_folder(cfg.output_dir, "report")
    parts = {"ensemble": {"runs": [str(run.resolve()) for run in runs], "weights": weights}}
    with results_folder(folder, parts):
        write_metrics(folder, metrics)
        write_predictions(folder, total.name, total.label, total.logits)
    for run, weight in zip(runs, weights, strict=True):
        log.info(
            "%-6g x %s   test top1 %.2f", weight, run, accuracy(read_predictions(run))["test/top1"]
        )
    classes = total.logits.shape[1]
    text = format_accuracy(metrics["test/top1"], metrics["test/top5"], classes)
    log.info("together   test %s", text)
    log.info("%s", folder)


def _weights(cfg: DictConfig, runs: int) -> list[float]:
    """What each run counts for; 1 if nothing is said."""
    if cfg.weights is None:
        return [1.0] * runs
    given = to_container(cfg.weights) if isinstance(cfg.weights, ListConfig) else None
    try:
        weights = [float(weight) for weight in given or ()]
    except (TypeError, ValueError):
        weights = []
    if not any(weights) or not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise InputError(
            f"weights={cfg.weights}: expected numbers, none negative and not all 0, such as "
            "weights=[0.6,0.6,0.4]"
        )
    return weights


def _paper(cfg: DictConfig, runs: list[Path]) -> None:
    """The paper's table with our runs in it."""
    known, problems = [], []
    below = (found for given in runs for found in find_runs(given))
    for run in dict.fromkeys(found.resolve() for found in below):
        try:
            known.append(read_run(run))
        except InputError as error:  # one of many runs may be of another kind
            problems.append(str(error))
    table = PaperTable(known)
    folder = run_folder(cfg.output_dir, "report")
    text = table.text()
    tex = latex_table(table.lines(), "Published figures and runs of this package.", NOTE)
    with results_folder(folder, {"table": {"runs": [str(run.resolve()) for run in runs]}}):
        write_table(folder / "table.csv", table.records())
        write_atomically(folder / "table.md", text.encode())
        write_atomically(folder / "table.tex", tex.encode())
    log.info("%s", text)
    for problem in problems:
        log.info("left out   %s", problem)
    log.info("table      %s", folder / "table.md")


def _compare(cfg: DictConfig, runs: list[Path]) -> None:
    """Runs side by side: one page, tables, figures."""
    labels = (to_container(cfg.labels) if cfg.labels else None) or _names(runs)
    models = read_models(labels, runs)
    for model in models:
        for reason in no_seeds(model) if len(model.runs) > 1 else ():
            log.info("warning: %s: %s; give them labels of their own", model.label, reason)
    published = published_noise(to_container(cfg.published)) if cfg.published else None
    parts = [Part(members, pairs(members)) for members in comparable(models)]
    tables = _tables(models, parts)
    folder = run_folder(cfg.output_dir, "report")
    asked = {"comparison": {"runs": [str(run.resolve()) for run in runs], "labels": labels}}
    with results_folder(folder, asked):
        for name, (rows, caption) in tables.items():
            _write_forms(folder / name, rows, caption)
        drawn = []
        for i, part in enumerate(parts):
            end = f"_{i + 1}" if i else ""
            pictures = {title: draw(part, folder, end) for title, draw in _DRAWN.items()}
            pictures["Robustness"] = _robustness(part, folder, end, published)
            drawn.append(replace(part, pictures=pictures))
        _write_page(folder / "report.html", models, drawn)
    log.info("%s", (folder / "comparison.md").read_text())
    log.info("tables     %s (.csv, .md, .tex)", ", ".join(str(folder / name) for name in tables))
    log.info("page       %s", folder / "report.html")
    if not any(model.corruptions for model in models):
        log.info("next       %s", shell_command("evaluate", ckpt_path=runs[0]))


def _names(runs: list[Path]) -> list[str]:
    """Names of the folders, with the folder above where two have the same name."""
    names = [run.resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [f"{run.resolve().parent.name}/{run.resolve().name}" for run in runs]


def _tables(models: Sequence[Model], parts: Sequence[Part]) -> dict[str, tuple[Rows, str]]:
    """Name -> rows and caption of each table that has rows."""
    found = {
        "comparison": ([r for p in parts for r in comparison_rows(p.models, p.tested)], _SCORES),
        "differences": (
            pair_rows(pair for part in parts for pair in part.tested),
            "Differences of top-1 in percentage points, with 95 % intervals of a paired bootstrap "
            "over the test clips.",
        ),
        "cost": (cost_rows(models), "Cost of training and of a prediction."),
        "settings": (setting_rows(models), "Settings that differ."),
    }
    for i, part in enumerate(parts):
        end = f"_{i + 1}" if i else ""
        rows = robustness_rows(part.models, part.tested)
        found[f"corruptions{end}"] = rows, "Top-1 in percent under corruptions."
        found[f"classes{end}"] = class_rows(part.models), "Top-1 in percent by class."
    return {name: (_rectangular(rows), text) for name, (rows, text) in found.items() if rows}


def _rectangular(rows: Rows) -> Rows:
    """The same keys in every row."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key, "") for key in keys} for row in rows]


def _write_forms(path: Path, rows: Rows, caption: str) -> None:
    """A table as CSV, Markdown and LaTeX."""
    write_table(path.with_suffix(".csv"), rows)
    write_atomically(path.with_suffix(".md"), f"{markdown_table(rows)}\n\n{caption}\n".encode())
    write_atomically(path.with_suffix(".tex"), latex_table(rows, caption).encode())


def _training(part: Part, folder: Path, end: str) -> list[Picture]:
    """Loss and accuracy over epochs."""
    first = {model.label: read_curves(model.runs[0]) for model in part.models}
    if not any(values for run in first.values() for _, values in run.values()):
        return []
    path = folder / f"training_curves{end}.png"
    marks = {model.label: epoch_markers(model.runs[0]) for model in part.models}
    training_curves(first, path, marks=marks)
    alt = f"Training loss and validation accuracy over epochs: {', '.join(first)}"
    return [Picture(path, alt, f"{alt} (the first seed of each).")]


def _robustness(
    part: Part, folder: Path, end: str, published: PublishedCurves | None
) -> list[Picture]:
    """Accuracy over the level of each corruption."""
    rows = {m.label: [row for run in m.runs for row in run_rows(run)] for m in part.models}
    summaries = {label: summarize(found) for label, found in rows.items()}
    if not any(len(summary) > 1 for summary in summaries.values()):
        return []
    path = folder / f"robustness{end}.png"
    robustness_curves(summaries, UNITS, path, published=published)
    alt = f"Top-1 over the level of each corruption: {', '.join(summaries)}"
    caption = f"{alt}. Bars: standard deviation over seeds and draws."
    if published:
        caption += (
            " Dashed: read off the published figure of MaskCLR, on NTU60-XSub, not on these data."
        )
    return [Picture(path, alt, caption)]


def _noisy_classes(part: Part, folder: Path, end: str) -> list[Picture]:
    """Classes under noise, two models side by side: those of the first seed that measured it."""
    tables = {
        model.label: read_table(run / "robustness_classes.csv")
        for model in part.models
        for run in model.runs[:1]
        if (run / "robustness_classes.csv").is_file()
    }
    scores = {label: class_scores(rows, *POSTER_NOISE) for label, rows in tables.items()}
    both = dict([(label, found) for label, found in scores.items() if found][:2])
    if len(both) < 2:
        return []
    path, (noise, sigma) = folder / f"noisy_classes{end}.png", POSTER_NOISE
    title = f"Classes under {noise.replace('_', ' ')}, sigma {sigma:g}"
    class_score_dots(both, path, title)
    alt = f"{title}: {' and '.join(both)}"
    return [Picture(path, alt, f"{alt} (the first seed of each).")]


def _features(part: Part, folder: Path, end: str) -> list[Picture]:
    """Where the test clips of up to two models lie, if their features were written by embed."""
    files = {model.label: model.runs[0] / "features.h5" for model in part.models}
    found = {label: read_features(file) for label, file in files.items() if file.is_file()}
    found = dict(list(found.items())[:2])
    if not found:
        return []
    names = next(iter(found.values())).attributes["class_names"]
    rows = {label: (one.features, one.label) for label, one in found.items()}
    pictures = []
    kinds: dict[Projection, str] = {"tsne": "t-SNE", "pca": "Principal components"}
    for kind, name in kinds.items():
        path = folder / f"{kind}{end}.png"
        draw_features(rows, names, path, kind)
        alt = f"{name} of the features of {' and '.join(found)}"
        pictures.append(Picture(path, alt, f"{alt} (the first seed of each)."))
    return pictures


_DRAWN = {"Training": _training, "Classes": _noisy_classes, "Features": _features}
"""Section of the page -> what draws its figures, of models that were tested on the same clips."""


def _write_page(path: Path, models: Sequence[Model], parts: Sequence[Part]) -> None:
    labels = ", ".join(model.label for model in models)
    count = sum(len(model.runs) for model in models)
    subtitle = (
        f"{count} run{'s' * (count > 1)}, {len(models)} model{'s' * (len(models) > 1)}. Tested on: "
        f"{' | '.join(part.title for part in parts)}. Written {datetime.now():%Y-%m-%d} by "
        f"maskclr_pl {__version__}."
    )
    beware = notes("Before you read the numbers", warnings(models, [p.models for p in parts]))
    text = page(labels, subtitle, beware, sections(parts))
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    main()
