"""The table of the paper: published accuracies next to those of runs, in separate rows."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskclr_pl.reporting.tables import Rows, markdown_table
from maskclr_pl.runs.describe import Run, TableRow, published_clips
from maskclr_pl.runs.seeds import differing_settings, group_seeds, repeated_seeds

PAPER, OURS = "paper", "ours"

NOTE = """
Top-1 on the test split in percent. Rows "paper" quote the given source; rows "ours" are runs of
this package: mean ± standard deviation over seeds (number of seeds). Runs that differ in more than
the seed have separate rows, which name the settings.
"""
_MAX_SETTINGS = 4  # settings in the label of a row


@cache
def load_published() -> dict[str, Any]:
    """Load `published.yaml`: benchmarks, and rows with accuracies, sources and settings."""
    text = Path(__file__).with_name("published.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


@dataclass(frozen=True)
class Cell:
    """Seeds of one model on one benchmark."""

    label: str
    """Settings that differ from other runs of the row, or empty."""
    runs: list[Run]
    repeated: list[Run]
    """Runs with a seed that is already in `runs`; they do not count."""

    @property
    def mean(self) -> float:
        """Mean top-1 over seeds."""
        return float(np.mean([run.top1 for run in self.runs]))

    @property
    def std(self) -> float:
        """Standard deviation over seeds."""
        return float(np.std([run.top1 for run in self.runs], ddof=1))

    def __str__(self) -> str:
        std = f" ± {self.std:.1f}" if len(self.runs) > 1 else ""
        return f"{self.mean:.1f}{std} ({len(self.runs)})"


def group_cells(runs: Sequence[Run]) -> list[Cell]:
    """Group the runs of a row and a benchmark by everything but the seed."""
    settings = [run.settings for run in runs]
    groups = group_seeds([run.seed for run in runs], settings)
    # a run whose data seed is set explicitly, if any, represents its group
    representatives = [max(group, key=lambda i: "data.seed" in settings[i]) for group in groups]
    group_settings = [{"data.seed": "seed", **settings[i]} for i in representatives]
    names = differing_settings(group_settings)
    without_seed = [name for name in names if name != "data.seed"]
    if len({tuple(str(s.get(n)) for n in without_seed) for s in group_settings}) == len(groups):
        names = without_seed
    cells: list[Cell] = []
    labels: Counter[str] = Counter()
    for group, values in zip(groups, group_settings, strict=True):
        parts = [f"{name}={values.get(name)}" for name in names[:_MAX_SETTINGS]]
        label = ", ".join(parts + ["..."] * (len(names) > _MAX_SETTINGS))
        labels[label] += 1
        if labels[label] > 1:
            label += f" ({labels[label]})"
        repeated = {group[i] for i in repeated_seeds([runs[i].seed for i in group])}
        counted = [runs[i] for i in group if i not in repeated]
        cells.append(Cell(label, counted, [runs[i] for i in group if i in repeated]))
    return cells


class PaperTable:
    """Runs by row and benchmark, next to published accuracies.

    Args:
        runs: Tested runs.
    """

    def __init__(self, runs: Sequence[Run]):
        groups: dict[tuple[TableRow, str], list[Run]] = defaultdict(list)
        for run in runs:
            groups[run.row, run.benchmark].append(run)
        self.cells = {key: group_cells(members) for key, members in groups.items()}
        self.papers = {
            TableRow(entry["method"], entry["backbone"], entry["protocol"]): entry
            for entry in load_published()["rows"]
        }
        self.rows = list(dict.fromkeys([*self.papers, *(run.row for run in runs)]))
        names = [*load_published()["benchmarks"], *(run.benchmark for run in runs)]
        self.benchmarks = list(dict.fromkeys(names))

    def published_top1(self, row: TableRow, benchmark: str) -> float | None:
        """Return the published accuracy, if any."""
        value: float | None = self.papers.get(row, {}).get("figures", {}).get(benchmark)
        return value

    def display_rows(self) -> Rows:
        """Return the displayed table: for each row one line for the paper, and one per model."""
        lines: Rows = []
        for row in self.rows:
            published = {b: self.published_top1(row, b) for b in self.benchmarks}
            if any(top1 is not None for top1 in published.values()):
                texts = {b: "" if top1 is None else f"{top1:.1f}" for b, top1 in published.items()}
                source = self.papers[row]["source"]
                lines.append({**row._asdict(), "figures": PAPER, **texts, "source": source})
            cells = {b: self.cells.get((row, b), []) for b in self.benchmarks}
            for label in dict.fromkeys(cell.label for group in cells.values() for cell in group):
                texts = {
                    b: "".join(str(cell) for cell in group if cell.label == label)
                    for b, group in cells.items()
                }
                origin = f"{OURS}: {label}" if label else OURS
                lines.append({**row._asdict(), "figures": origin, **texts, "source": ""})
        return lines

    def csv_rows(self) -> Rows:
        """Return one row per model and benchmark, and per published accuracy."""
        return [
            self._csv_row(row, benchmark, cell)
            for row in self.rows
            for benchmark in self.benchmarks
            for cell in self.cells.get((row, benchmark), [Cell("", [], [])])
            if cell.runs or self.published_top1(row, benchmark) is not None
        ]

    def _csv_row(self, row: TableRow, benchmark: str, cell: Cell) -> dict[str, Any]:
        published, seeds = self.published_top1(row, benchmark), len(cell.runs)
        return {
            **row._asdict(),
            "benchmark": benchmark,
            "settings": cell.label,
            "published": "" if published is None else published,
            "source": "" if published is None else self.papers[row]["source"],
            "ours_mean": f"{cell.mean:.4f}" if seeds else "",
            "ours_std": f"{cell.std:.4f}" if seeds > 1 else "",
            "runs": seeds,
            "differences": "; ".join(self.differences(row, benchmark, cell)),
        }

    def differences(self, row: TableRow, benchmark: str, cell: Cell) -> list[str]:
        """Return repeated runs, and differences from the published test set and settings."""
        notes = [f"{run.folder} skipped: seed {run.seed} is repeated" for run in cell.repeated]
        if not cell.runs:
            return notes
        expected = published_clips(benchmark)
        for count in sorted({run.clips for run in cell.runs} - {expected}) if expected else ():
            notes.append(f"{count:,} test clips (published {expected:,})")
        if self.published_top1(row, benchmark) is None:
            return notes
        settings = self.papers[row].get("settings")
        if settings is None:
            return [*notes, "the published settings are unknown"]
        for key, value in settings.items():
            values = [run.value(key) for run in cell.runs]
            if any(own != value for own in values):
                text = " or ".join(dict.fromkeys(map(str, values)))
                notes.append(f"{key} {text} (published {value})")
        return notes

    def markdown(self) -> str:
        """Return Markdown that is also readable in a terminal."""
        notes = [
            f"* {', '.join((*row, benchmark, *filter(None, [cell.label])))}: {'; '.join(texts)}"
            for (row, benchmark), cells in self.cells.items()
            for cell in cells
            if (texts := self.differences(row, benchmark, cell))
        ]
        lines = [markdown_table(self.display_rows()), NOTE]
        if notes:
            lines += ["Differences from the published settings, and skipped runs:\n", *notes, ""]
        return "\n".join(lines)
