"""`python -m maskclr_pl.report runs=[A,B]`: runs side by side, as one, or in the paper's table."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from maskclr_pl.cli import claim, log, plain, run_folder, verb
from maskclr_pl.evaluation.corruptions import UNITS
from maskclr_pl.evaluation.ensemble import accuracy, ensemble, read_predictions
from maskclr_pl.evaluation.identity import identify
from maskclr_pl.evaluation.results import (
    write_atomically,
    write_predictions,
    write_run_metrics,
    write_table,
)
from maskclr_pl.evaluation.robustness import mean_over_levels, summarise
from maskclr_pl.evaluation.runs import curves, robustness_rows, run_metrics, runs_below
from maskclr_pl.evaluation.tables import Table, aligned
from maskclr_pl.figures.curves import robustness_curves, training_curves
from maskclr_pl.types import InputError


@verb("report")
def main(cfg: DictConfig) -> None:
    """Compare runs, sum what they say, or fill in the paper's table."""
    kinds = {"comparison": _compare, "ensemble": _ensemble, "table": _paper}
    if isinstance(cfg.runs, str):
        raise InputError(f"runs={cfg.runs}: expected a list; type runs=[{cfg.runs}]")
    if cfg.kind not in kinds:
        raise InputError(f"kind={cfg.kind}: expected {', '.join(kinds)}")
    kinds[cfg.kind](cfg, [Path(run) for run in plain(cfg.runs)])


def _ensemble(cfg: DictConfig, runs: list[Path]) -> None:
    """The weighted sum of the logits of runs, as a run folder."""
    weights = [float(w) for w in plain(cfg.weights)] if cfg.weights else [1.0] * len(runs)
    total = ensemble([read_predictions(run) for run in runs], weights)
    metrics = accuracy(total)
    folder = run_folder(cfg.output_dir, "report")
    claim(folder)
    parts = {"ensemble": {"runs": [str(run.resolve()) for run in runs], "weights": weights}}
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(parts).encode())
    write_run_metrics(folder, metrics)
    write_predictions(folder, total.name, total.label, total.logits)
    for run, weight in zip(runs, weights, strict=True):
        log.info(
            "%-6g x %s   test top1 %.2f", weight, run, accuracy(read_predictions(run))["test/top1"]
        )
    log.info("together   test top1 %.2f   top5 %.2f", *metrics.values())
    log.info("%s", folder)


def _paper(cfg: DictConfig, runs: list[Path]) -> None:
    """The paper's table with our runs in it."""
    known, problems = [], []
    for run in (found for given in runs for found in runs_below(given)):
        try:
            known.append(identify(run))
        except InputError as error:  # one of many runs may be of another kind
            problems.append(str(error))
    table = Table(known)
    folder = run_folder(cfg.output_dir, "report")
    claim(folder)
    write_table(folder / "table.csv", table.records())
    text = table.text()
    write_atomically(folder / "table.md", text.encode())
    log.info("%s", text)
    for problem in problems:
        log.info("left out   %s", problem)
    log.info("table      %s", folder / "table.md")


def _compare(cfg: DictConfig, runs: list[Path]) -> None:
    """Runs side by side, with figures."""
    labels = (plain(cfg.labels) if cfg.labels else None) or [run.name for run in runs]
    if len(labels) != len(runs):
        raise InputError(f"{len(runs)} runs but {len(labels)} labels; give one label per run")
    groups: dict[str, list[Path]] = defaultdict(list)
    for label, run in zip(labels, runs, strict=True):
        groups[str(label)].append(run)
    cells = {label: [_scores(run) for run in members] for label, members in groups.items()}
    folder = run_folder(cfg.output_dir, "report")
    claim(folder)
    rows = _table(cells)
    write_table(folder / "comparison.csv", rows)
    text = _markdown(rows)
    write_atomically(folder / "comparison.md", text.encode())
    first = {label: members[0] for label, members in groups.items()}
    training_curves(
        {label: curves(run) for label, run in first.items()}, folder / "training_curves.png"
    )
    summaries = {
        label: summarise([row for run in members for row in robustness_rows(run)])
        for label, members in groups.items()
    }
    robustness_curves(summaries, UNITS, folder / "robustness.png")
    log.info("%s", text)
    log.info("figures    %s", folder)
    if any(summaries.values()):
        log.info("next       open %s", folder / "robustness.png")
    else:
        log.info("next       python -m maskclr_pl.evaluate ckpt_path=%s", runs[0])


def _top1(run: Path) -> float:
    value = run_metrics(run).get("test/top1")
    if value is None:
        raise InputError(f"{run}: metrics.json has no test/top1; type resume={run} to finish it")
    return float(value)


def _scores(run: Path) -> dict[str, float]:
    """Clean top-1, and mean top-1 over the levels of each corruption."""
    scores = {"clean": _top1(run)}
    for name, levels in summarise(robustness_rows(run)).items():
        scores[name] = levels[0.0][0] if name == "clean" else mean_over_levels(levels)
    return scores


def _table(cells: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """One row per label: mean over its runs, with the spread where there are several."""
    columns = list(dict.fromkeys(c for runs in cells.values() for run in runs for c in run))
    rows = []
    for label, runs in cells.items():
        row: dict[str, Any] = {"run": label, "seeds": len(runs)}
        for column in columns:
            values = [run[column] for run in runs if column in run]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            row[column] = f"{np.mean(values):.1f}{spread}" if values else ""
        rows.append(row)
    return rows


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    return (
        aligned(rows)
        + "\n\nTop-1 on the test split in percent: clean, and the mean over the levels of each "
        "corruption.\n± is the standard deviation over runs of the same name.\n"
    )


if __name__ == "__main__":
    main()
