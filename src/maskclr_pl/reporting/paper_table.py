"""The paper's table: published figures, and beside them those of runs, told apart in every line."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from maskclr_pl.reporting.tables import markdown_table
from maskclr_pl.runs.describe import Run, TableRow, published_clips
from maskclr_pl.runs.seeds import differing_settings, group_seeds, repeated_seeds

PAPER, OURS = "paper", "ours"

NOTE = """
Top-1 on the test split in percent. Lines "paper" are quoted from the source named there; lines
"ours" are runs of this package: mean ± standard deviation over seeds (number of seeds). Runs that
differ in more than the seed stand on lines of their own, which say in what.
"""
_NAMED = 4  # settings that differ, in the name of a line


@cache
def published() -> dict[str, Any]:
    """Figures of the papers with their sources (`published.yaml`): benchmarks, rows, settings."""
    text = files("maskclr_pl.reporting").joinpath("published.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


@dataclass(frozen=True)
class Cell:
    """Seeds of one model on one benchmark."""

    label: str
    """The settings in which they differ from other runs of the row; empty if there are none."""
    runs: list[Run]
    repeated: list[Run]
    """Runs of a seed that is there already, which do not count."""


def cells_of(runs: Sequence[Run]) -> list[Cell]:
    """Runs of a row and a benchmark, those that are seeds of each other together."""
    settings = [run.settings for run in runs]
    members = group_seeds([run.seed for run in runs], settings)
    typical = [max(group, key=lambda i: "data.seed" in settings[i]) for group in members]
    firsts = [{"data.seed": "seed", **settings[i]} for i in typical]
    names = differing_settings(firsts)
    others = [name for name in names if name != "data.seed"]
    if len({tuple(str(one.get(name)) for name in others) for one in firsts}) == len(firsts):
        names = others
    cells: list[Cell] = []
    same: Counter[str] = Counter()
    for group, one in zip(members, firsts, strict=True):
        parts = [f"{name}={one.get(name)}" for name in names[:_NAMED]]
        label = ", ".join(parts + ["..."] * (len(names) > _NAMED))
        same[label] += 1
        label += f" ({same[label]})" if same[label] > 1 else ""
        again = {group[i] for i in repeated_seeds([runs[i].seed for i in group])}
        kept, left = ([runs[i] for i in group if (i in again) == out] for out in (False, True))
        cells.append(Cell(label, kept, left))
    return cells


class PaperTable:
    """Runs by row and benchmark, beside the published figures.

    Args:
        runs: Tested runs.
    """

    def __init__(self, runs: Sequence[Run]):
        places: dict[tuple[TableRow, str], list[Run]] = defaultdict(list)
        for run in runs:
            places[run.row, run.benchmark].append(run)
        self.cells = {place: cells_of(members) for place, members in places.items()}
        self.papers = {
            TableRow(one["method"], one["backbone"], one["protocol"]): one
            for one in published()["rows"]
        }
        self.rows = list(dict.fromkeys([*self.papers, *(run.row for run in runs)]))
        names = [*published()["benchmarks"], *(run.benchmark for run in runs)]
        self.benchmarks = list(dict.fromkeys(names))

    def figure(self, row: TableRow, benchmark: str) -> float | None:
        """The published one."""
        value: float | None = self.papers.get(row, {}).get("figures", {}).get(benchmark)
        return value

    def lines(self) -> list[dict[str, str]]:
        """Of the table: of each row one for the paper, and one for each model that was run."""
        lines = []
        for row in self.rows:
            figures = {b: self.figure(row, b) for b in self.benchmarks}
            if any(figure is not None for figure in figures.values()):
                texts = {b: "" if f is None else f"{f:.1f}" for b, f in figures.items()}
                source = self.papers[row]["source"]
                lines.append({**row._asdict(), "figures": PAPER, **texts, "source": source})
            cells = {b: self.cells.get((row, b), []) for b in self.benchmarks}
            for label in dict.fromkeys(cell.label for found in cells.values() for cell in found):
                texts = {
                    b: "".join(_text(cell.runs) for cell in found if cell.label == label)
                    for b, found in cells.items()
                }
                whose = f"{OURS}: {label}" if label else OURS
                lines.append({**row._asdict(), "figures": whose, **texts, "source": ""})
        return lines

    def records(self) -> list[dict[str, Any]]:
        """For a CSV file: one for each model on a benchmark, and each published figure."""
        records = []
        for row in self.rows:
            for benchmark in self.benchmarks:
                figure = self.figure(row, benchmark)
                nobody = [] if figure is None else [Cell("", [], [])]
                for cell in self.cells.get((row, benchmark), nobody):
                    runs = cell.runs
                    record = {
                        **row._asdict(),
                        "benchmark": benchmark,
                        "settings": cell.label,
                        "published": "" if figure is None else figure,
                        "source": "" if figure is None else self.papers[row]["source"],
                        "ours_mean": f"{_mean(runs):.4f}" if runs else "",
                        "ours_std": f"{_spread(runs):.4f}" if len(runs) > 1 else "",
                        "runs": len(runs),
                        "differences": "; ".join(self.differences(row, benchmark, cell)),
                    }
                    records.append(record)
        return records

    def differences(self, row: TableRow, benchmark: str, cell: Cell) -> list[str]:
        """What keeps the runs of a cell from being compared with the published figure."""
        runs = cell.runs
        notes = [
            f"{run.folder} left out: seed {run.seed} is there already" for run in cell.repeated
        ]
        if not runs:
            return notes
        expected = published_clips(benchmark)
        for count in sorted({run.clips for run in runs} - {expected}) if expected else ():
            notes.append(f"{count:,} test clips (published {expected:,})")
        if self.figure(row, benchmark) is None:
            return notes
        settings = self.papers[row].get("settings")
        if settings is None:
            return [*notes, "the published settings are not known"]
        return notes + [
            f"{key} {_values(runs, key)} (published {value})"
            for key, value in settings.items()
            if any(run.value(key) != value for run in runs)
        ]

    def text(self) -> str:
        """Markdown that reads well on a terminal."""
        notes = [
            f"* {', '.join((*row, benchmark, *filter(None, [cell.label])))}: {'; '.join(found)}"
            for (row, benchmark), cells in self.cells.items()
            for cell in cells
            if (found := self.differences(row, benchmark, cell))
        ]
        lines = [markdown_table(self.lines()), NOTE]
        if notes:
            lines += [
                "What differs from the published settings, and what was left out:\n",
                *notes,
                "",
            ]
        return "\n".join(lines)


def _values(runs: Sequence[Run], key: str) -> str:
    return " or ".join(dict.fromkeys(str(run.value(key)) for run in runs))


def _text(runs: Sequence[Run]) -> str:
    spread = f" ± {_spread(runs):.1f}" if len(runs) > 1 else ""
    return f"{_mean(runs):.1f}{spread} ({len(runs)})"


def _mean(runs: Sequence[Run]) -> float:
    return float(np.mean([run.top1 for run in runs]))


def _spread(runs: Sequence[Run]) -> float:
    return float(np.std([run.top1 for run in runs], ddof=1))
