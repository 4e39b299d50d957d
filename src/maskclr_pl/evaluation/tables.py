"""The paper's table: published figures, and beside them those of runs, told apart in every line."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from maskclr_pl.evaluation.identity import Row, Run, published_clips

PAPER, OURS = "paper", "ours"

NOTE = """
Top-1 on the test split in percent. Lines "paper" are quoted from the source named there; lines
"ours" are runs of this package: mean ± standard deviation over seeds (number of runs).
"""


@cache
def published() -> dict[str, Any]:
    """Figures of the papers with their sources (`published.yaml`): benchmarks, rows, settings."""
    text = files("maskclr_pl.evaluation").joinpath("published.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


class Table:
    """Runs by row and benchmark, beside the published figures.

    Args:
        runs: Tested runs.
    """

    def __init__(self, runs: Sequence[Run]):
        self.cells: dict[tuple[Row, str], list[Run]] = defaultdict(list)
        for run in runs:
            self.cells[run.row, run.benchmark].append(run)
        self.papers = {
            Row(one["method"], one["backbone"], one["protocol"]): one for one in published()["rows"]
        }
        self.rows = list(dict.fromkeys([*self.papers, *(run.row for run in runs)]))
        names = [*published()["benchmarks"], *(run.benchmark for run in runs)]
        self.benchmarks = list(dict.fromkeys(names))

    def figure(self, row: Row, benchmark: str) -> float | None:
        """The published one."""
        value: float | None = self.papers.get(row, {}).get("figures", {}).get(benchmark)
        return value

    def lines(self) -> list[dict[str, str]]:
        """Of the table: one for the paper, and one for the runs, of each row that has them."""
        lines = []
        for row in self.rows:
            for whose in (PAPER, OURS):
                cells = {b: self._text(row, b, whose) for b in self.benchmarks}
                if any(cells.values()):
                    source = self.papers[row]["source"] if whose == PAPER else ""
                    lines.append({**row._asdict(), "figures": whose, **cells, "source": source})
        return lines

    def _text(self, row: Row, benchmark: str, whose: str) -> str:
        if whose == PAPER:
            value = self.figure(row, benchmark)
            return "" if value is None else f"{value:.1f}"
        runs = self.cells.get((row, benchmark), [])
        if not runs:
            return ""
        spread = f" ± {_spread(runs):.1f}" if len(runs) > 1 else ""
        return f"{_mean(runs):.1f}{spread} ({len(runs)})"

    def records(self) -> list[dict[str, Any]]:
        """For a CSV file: one for each cell with a figure."""
        records = []
        for row in self.rows:
            for benchmark in self.benchmarks:
                runs, figure = self.cells.get((row, benchmark), []), self.figure(row, benchmark)
                if not runs and figure is None:
                    continue
                records.append(
                    {
                        **row._asdict(),
                        "benchmark": benchmark,
                        "published": "" if figure is None else figure,
                        "source": "" if figure is None else self.papers[row]["source"],
                        "ours_mean": f"{_mean(runs):.4f}" if runs else "",
                        "ours_std": f"{_spread(runs):.4f}" if len(runs) > 1 else "",
                        "runs": len(runs),
                        "differences": "; ".join(self.differences(row, benchmark)),
                    }
                )
        return records

    def differences(self, row: Row, benchmark: str) -> list[str]:
        """What keeps a cell's runs from being compared with the published figure, or as seeds."""
        runs = self.cells.get((row, benchmark), [])
        notes: list[str] = []
        if not runs:
            return notes
        seeds = [run.seed for run in runs]
        if len(set(seeds)) < len(seeds):
            notes.append(f"seeds {', '.join(map(str, seeds))} are not all different")
        notes += [
            f"{key} is {_values(runs, key)} in these runs"
            for key in sorted(set().union(*(run.seedless for run in runs)))
            if len({str(run.value(key)) for run in runs}) > 1
        ]
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
            f"* {row.method}, {row.backbone}, {row.protocol}, {benchmark}: {'; '.join(found)}"
            for row, benchmark in self.cells
            if (found := self.differences(row, benchmark))
        ]
        lines = [aligned(self.lines()), NOTE]
        if notes:
            lines += ["What differs from the published settings, or between seeds:\n", *notes, ""]
        return "\n".join(lines)


class Best(str):
    """A cell whose lead over all others in its column is supported: bold where that is possible."""


def aligned(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table with columns of one width."""
    lines = [list(rows[0]), *([_marked(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def _marked(value: Any) -> str:
    text = str(value).replace("|", "\\|")
    return f"**{text}**" if isinstance(value, Best) else text


def _values(runs: Sequence[Run], key: str) -> str:
    return " or ".join(dict.fromkeys(str(run.value(key)) for run in runs))


def _mean(runs: Sequence[Run]) -> float:
    return float(np.mean([run.top1 for run in runs]))


def _spread(runs: Sequence[Run]) -> float:
    return float(np.std([run.top1 for run in runs], ddof=1))
