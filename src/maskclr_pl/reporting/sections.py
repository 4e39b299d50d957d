"""The sections of the HTML report."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from maskclr_pl.reporting.caveats import cost_rows, environment_rows, setting_rows
from maskclr_pl.reporting.comparison import (
    ModelDifference,
    class_comparison_rows,
    corruption_rows,
    difference_rows,
    overview_rows,
)
from maskclr_pl.reporting.html import (
    Block,
    Code,
    Fold,
    Grid,
    Heading,
    Image,
    Section,
    Table,
    Text,
    images_in,
    smallest_file,
)
from maskclr_pl.reporting.run_groups import CLEAN, CORRUPTED, Model
from maskclr_pl.reporting.tables import Rows
from maskclr_pl.runs.describe import benchmark_name
from maskclr_pl.runs.environment import shorten_home

_MAX_BYTES = 6_000_000
"""Total size of images from the run folders on one page."""
_SHARED_FIGURES = ("training_curves", "robustness")
"""Figures of runs that the page shows for all models together."""
_MAX_ROWS = 10
"""Longer tables are collapsed."""

_BOOTSTRAP = (
    "Paired bootstrap: 10,000 test sets resampled from the clips, both models on the same clips. p "
    "is twice the share of them in which the difference is 0 or has the opposite sign. This is "
    "about the choice of test clips, not about training again; several seeds are averaged per clip "
    "first. Bold: significantly better than every other model (95 % interval without 0)."
)
_MEASURES = (
    "clean and top-5: on the unmodified test split. all corruptions: mean top-1 over all levels "
    "above 0 of all corruptions. ± is the standard deviation over seeds."
)
_CURVES = (
    "Clips are corrupted at test time only. mean: over levels above 0. auc: area under accuracy "
    "over level, divided by the highest level. retention: mean / clean. worst: lowest level mean. "
    "± is the standard deviation over seeds."
)
_COST = (
    "Clips per second: during training, including data loading, without validation and the first "
    "steps. Memory: tensors on a GPU, resident size of the process on a CPU. FLOPs: forward pass "
    "of a clip with one person; a multiply-add counts as two."
)


@dataclass(frozen=True)
class ComparisonGroup:
    """Models that were tested on the same clips.

    Args:
        models: At least one model.
        differences: Their paired comparisons.
        figures: Section title -> figures.
    """

    models: Sequence[Model]
    differences: Sequence[ModelDifference]
    figures: Mapping[str, Sequence[Image]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name and size of the test set."""
        first = self.models[0]
        name = benchmark_name(first.configs[0]) if "data" in first.configs[0] else "test"
        clips = f", {len(first.tests[0].label):,} clips" if first.tests else ""
        return f"{name}{clips}" if CLEAN in first.values else f"{first.label}, not tested"

    def section_figures(self, title: str) -> list[Image]:
        """Return the figures of a section."""
        return list(self.figures.get(title, ()))


def report_sections(groups: Sequence[ComparisonGroup]) -> list[Section]:
    """Return all sections; the page omits empty ones."""
    models = [model for group in groups for model in group.models]
    return [
        Section("Results", _explain_results(_per_group(groups, _results), groups)),
        Section("Configuration", _configuration(models)),
        Section("Training", _per_group(groups, lambda group: group.section_figures("Training"))),
        Section("Robustness", _per_group(groups, _robustness)),
        Section("Classes", _per_group(groups, _classes)),
        Section("Features", _per_group(groups, lambda group: group.section_figures("Features"))),
        Section("Figures of the runs", _run_figures(models)),
        Section("Cost", _cost(models)),
        Section("Environment and data", _environment(models)),
    ]


def _per_group(
    groups: Sequence[ComparisonGroup], write: Callable[[ComparisonGroup], Sequence[Block]]
) -> list[Block]:
    """Concatenate the blocks of all groups, with headings if there are several groups."""
    result: list[Block] = []
    for group in groups:
        if blocks := write(group):
            result += [*([Heading(group.title)] if len(groups) > 1 else []), *blocks]
    return result


def _table(rows: Rows, caption: str) -> list[Block]:
    return [Table(rows, caption)] if rows else []


def _results(group: ComparisonGroup) -> list[Block]:
    if not any(CLEAN in model.values for model in group.models):
        return []
    rows = difference_rows(p for p in group.differences if p.measure in (CLEAN, CORRUPTED))
    caption = "Differences of top-1 in percentage points"
    differences = _table(rows, caption)
    if len(rows) > _MAX_ROWS:
        differences = [Fold(f"{caption} ({len(rows)} rows)", differences)]
    overview = overview_rows(group.models, group.differences)
    return [*_table(overview, "Accuracy in percent"), *differences]


def _explain_results(blocks: list[Block], groups: Sequence[ComparisonGroup]) -> list[Block]:
    if not blocks:
        return []
    compared = any(group.differences for group in groups)
    return [*blocks, Text(_MEASURES), *([Text(_BOOTSTRAP)] if compared else [])]


def _configuration(models: Sequence[Model]) -> list[Block]:
    rows = setting_rows(models)
    blocks = _table(rows, "Settings that differ (except seeds and folders)")
    if len(models) > 1 and not rows:
        blocks.append(Text("No settings differ except seeds and folders."))
    for model in models:
        file = model.runs[0] / "config.yaml"
        content = shorten_home(file.read_text(encoding="utf-8", errors="replace"))
        blocks.append(
            Fold(f"All settings of {model.label} ({model.runs[0].name})", [Code(content)])
        )
    return blocks


def _robustness(group: ComparisonGroup) -> list[Block]:
    blocks: list[Block] = [*group.section_figures("Robustness")]
    rows = corruption_rows(group.models, group.differences)
    if not rows:
        return blocks
    blocks += [Table(rows, "Top-1 in percent"), Text(_CURVES)]
    pairs = [pair for pair in group.differences if pair.measure not in (CLEAN, CORRUPTED)]
    for title, members in groupby(pairs, key=lambda pair: pair.title):
        table = Table(difference_rows(members), title)
        blocks.append(Fold(f"Differences by corruption: {title}", [table]))
    return blocks


def _classes(group: ComparisonGroup) -> list[Block]:
    rows, figures = class_comparison_rows(group.models), group.section_figures("Classes")
    if not rows:
        return [*figures]
    several = sum(bool(model.tests) for model in group.models) > 1
    order = "largest difference of last and first model" if several else "weakest"
    caption = f"Top-1 in percent by class, {order} first"
    if len(rows) <= _MAX_ROWS:
        return [Table(rows, caption), *figures]
    short = Table(rows[:_MAX_ROWS], f"{caption}: {_MAX_ROWS} of {len(rows)} classes")
    return [short, Fold(f"All {len(rows)} classes", [Table(rows, caption)]), *figures]


def _run_figures(models: Sequence[Model]) -> list[Block]:
    """Show the images in `figures/` of the first run of each model, up to a total size."""
    blocks: list[Block] = []
    remaining = _MAX_BYTES
    for model in models:
        run, images, skipped = model.runs[0], [], 0
        for path in images_in(run / "figures", exclude=_SHARED_FIGURES):
            size = smallest_file(path).stat().st_size
            if size > remaining:
                skipped += 1
                continue
            remaining -= size
            images.append(Image(path, f"{model.label}: {path.stem.replace('_', ' ')}"))
        if images or skipped:
            seeds = f" (first of {len(model.runs)} seeds, {run.name})" if model.runs[1:] else ""
            blocks += [Heading(model.label + seeds), Grid(images)]
        if skipped:
            blocks.append(Text(f"{skipped} more in {run.name}/figures, too large for one page"))
    return blocks


def _cost(models: Sequence[Model]) -> list[Block]:
    rows = cost_rows(models)
    return [Table(rows, "Mean over seeds"), Text(_COST)] if rows else []


def _environment(models: Sequence[Model]) -> list[Block]:
    same, differing = environment_rows(models)
    blocks = _table(differing, "Differences between runs")
    blocks += _table(same, "The same in all runs" if differing else "All runs")
    commands = [
        f"# {run.name}\n{shlex.join(environment['command'])}"
        for model in models
        for run, environment in zip(model.runs, model.environments, strict=True)
        if environment.get("command")
    ]
    return [*blocks, Heading("Commands"), Code("\n".join(commands))] if commands else blocks
