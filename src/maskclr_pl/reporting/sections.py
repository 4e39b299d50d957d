"""The sections of the report's page: what each shows, in the order of a reader's questions."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from maskclr_pl.reporting import html
from maskclr_pl.reporting.caveats import cost_rows, environment_rows, setting_rows
from maskclr_pl.reporting.comparison import (
    Pair,
    class_rows,
    pair_rows,
    robustness_rows,
    summary_rows,
)
from maskclr_pl.reporting.html import Section, fold, heading, paragraph, table
from maskclr_pl.reporting.run_groups import CLEAN, CORRUPTED, Model
from maskclr_pl.runs.describe import benchmark_name
from maskclr_pl.runs.environment import shorten_home

_BUDGET = 6_000_000
"""Bytes of pictures from the run folders on one page."""
_TOGETHER = ("training_curves", "robustness")
"""Pictures of a run that the page shows for all models together."""
_SHOWN = 10
"""Rows of a long table that are not folded."""

_BOOTSTRAP = (
    "Paired bootstrap: 10,000 test sets drawn from the clips with replacement, both models on the "
    "same clips. p is twice the share of them in which the difference is 0 or has the other sign. "
    "This is about the choice of test clips, not about training again; the scores of several "
    "seeds are averaged per clip first. Bold in a table: better than every other model, each time "
    "with an interval without 0."
)

_MEASURES = (
    "clean and top-5: on the test split as it is. all corruptions: mean top-1 over all levels "
    "above 0 of all corruptions. ± is the standard deviation over seeds."
)
_CURVES = (
    "Clips are perturbed at test time only. mean: over levels above 0. auc: area under accuracy "
    "over level, divided by the highest level. retention: mean / clean. worst: lowest level mean. "
    "± is the standard deviation over seeds."
)
_COST = (
    "Clips per second: while training, waiting for data included, without validation and the first "
    "steps. Memory: taken by tensors on a GPU, resident size of the process on a CPU. FLOPs: "
    "forward pass of a clip with one person, a multiplication and an addition counted as two."
)


class Picture(NamedTuple):
    """A figure that was drawn for the page."""

    path: Path
    alt: str
    caption: str


@dataclass(frozen=True)
class Part:
    """Models that were tested on the same clips.

    Args:
        models: At least one.
        tested: Their paired comparisons.
        pictures: Title of the section -> figures in it.
    """

    models: Sequence[Model]
    tested: Sequence[Pair]
    pictures: Mapping[str, Sequence[Picture]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The test: its name and size."""
        first = self.models[0]
        name = benchmark_name(first.configs[0]) if "data" in first.configs[0] else "test"
        clips = f", {len(first.tests[0].label):,} clips" if first.tests else ""
        return f"{name}{clips}" if CLEAN in first.values else f"{first.label}, not tested"


def sections(parts: Sequence[Part]) -> list[Section]:
    """All of them; those without content are left out by the page."""
    models = [model for part in parts for model in part.models]
    return [
        Section("Results", _explained(_each(parts, _results), parts)),
        Section("Configuration", _configuration(models)),
        Section("Training", _each(parts, lambda part: _drawn(part, "Training"))),
        Section("Robustness", _each(parts, _robustness)),
        Section("Classes", _each(parts, _classes)),
        Section("Features", _each(parts, lambda part: _drawn(part, "Features"))),
        Section("Figures of the runs", _own_figures(models)),
        Section("Cost", _cost(models)),
        Section("Environment and data", _environment(models)),
    ]


def _each(parts: Sequence[Part], write: Callable[[Part], str]) -> str:
    """A section of every part, under its title if there are several."""
    written = [(part, write(part)) for part in parts]
    several = len(parts) > 1
    return "\n".join(
        heading(part.title) + text if several else text for part, text in written if text
    )


def _results(part: Part) -> str:
    if not any(CLEAN in model.values for model in part.models):
        return ""
    chosen = [pair for pair in part.tested if pair.measure in (CLEAN, CORRUPTED)]
    return table(summary_rows(part.models, part.tested), "Accuracy in percent") + _pairs(
        chosen, "Differences of top-1 in percentage points"
    )


def _explained(results: str, parts: Sequence[Part]) -> str:
    if not results:
        return ""
    compared = any(part.tested for part in parts)
    return results + paragraph(_MEASURES) + (paragraph(_BOOTSTRAP) if compared else "")


def _pairs(tested: Sequence[Pair], caption: str) -> str:
    rows = pair_rows(tested)
    if len(rows) <= _SHOWN:
        return table(rows, caption)
    return fold(f"{caption} ({len(rows)} rows)", table(rows, caption))


def _configuration(models: Sequence[Model]) -> str:
    rows = setting_rows(models)
    text = table(rows, "Settings that differ (without seeds and folders)")
    if len(models) > 1 and not rows:
        text = paragraph("No setting differs but seeds and folders.")
    for model in models:
        file = model.runs[0] / "config.yaml"
        content = shorten_home(file.read_text(encoding="utf-8", errors="replace"))
        text += fold(f"All settings of {model.label} ({model.runs[0].name})", html.code(content))
    return text


def _drawn(part: Part, title: str) -> str:
    return "\n".join(html.picture(*one) for one in part.pictures.get(title, ()))


def _robustness(part: Part) -> str:
    rows = robustness_rows(part.models, part.tested)
    if not rows:
        return _drawn(part, "Robustness")
    chosen = [pair for pair in part.tested if pair.measure not in (CLEAN, CORRUPTED)]
    by_pair = groupby(chosen, key=lambda pair: pair.title)
    differences = [
        fold(f"Differences by corruption: {names}", table(pair_rows(found), names))
        for names, found in by_pair
    ]
    return "\n".join(
        [
            _drawn(part, "Robustness"),
            table(rows, "Top-1 in percent"),
            paragraph(_CURVES),
            *differences,
        ]
    )


def _classes(part: Part) -> str:
    rows, drawn = class_rows(part.models), _drawn(part, "Classes")
    if not rows:
        return drawn
    several = sum(bool(model.tests) for model in part.models) > 1
    how = "largest difference of the last two columns" if several else "weakest"
    caption = f"Top-1 in percent by class, {how} first"
    if len(rows) <= _SHOWN:
        return table(rows, caption) + drawn
    whole = fold(f"All {len(rows)} classes", table(rows, caption))
    return table(rows[:_SHOWN], f"{caption}: {_SHOWN} of {len(rows)} classes") + whole + drawn


def _own_figures(models: Sequence[Model]) -> str:
    """The pictures in the `figures/` of the first run of each model, as far as there is room."""
    text, left = "", _BUDGET
    for model in models:
        run, shown, skipped = model.runs[0], [], 0
        for path in html.pictures_in(run / "figures", without=_TOGETHER):
            size = html.smallest_form(path).stat().st_size
            if size <= left:
                left -= size
                name = path.stem.replace("_", " ")
                shown.append(html.picture(path, f"{model.label}: {name}"))
            else:
                skipped += 1
        more = f"{skipped} more in {run.name}/figures, too large for one page" if skipped else ""
        seeds = f" (of {len(model.runs)} seeds the first, {run.name})" if model.runs[1:] else ""
        if shown or skipped:
            grid = f'<div class="pictures">{"".join(shown)}</div>'
            text += heading(model.label + seeds) + grid + (paragraph(more) if more else "")
    return text


def _cost(models: Sequence[Model]) -> str:
    rows = cost_rows(models)
    return table(rows, "Mean over seeds") + paragraph(_COST) if rows else ""


def _environment(models: Sequence[Model]) -> str:
    same, differ = environment_rows(models)
    text = table(differ, "What is not the same in all runs")
    text += table(same, "The same in all runs") if differ else table(same, "All runs")
    commands = [
        f"# {run.name}\n{shlex.join(environment['command'])}"
        for model in models
        for run, environment in zip(model.runs, model.environments, strict=True)
        if environment.get("command")
    ]
    return text + (heading("Commands") + html.code("\n".join(commands)) if commands else "")
