"""A W&B workspace built from code, with charts for the metrics of this package.

Needs wandb-workspaces (`pip install 'maskclr_pl[dashboard]'`), and an account to save it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskclr_pl.runs.read import read_config, read_robustness
from maskclr_pl.types import InputError

COST = (
    "train/seconds",
    "train/samples_per_second",
    "train/peak_memory_mb",
    "parameters",
    "flops_per_clip",
)


def build_dashboard(folder: Path) -> Any:
    """Build the workspace for the project of a run that was trained with `logger=wandb`.

    Sections: training, validation and test, masking, robustness (if the run was evaluated), cost,
    media. Nothing is uploaded before `.save()`.

    Args:
        folder: Run folder that determines the project, the figures and the corruptions.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`.

    Raises:
        InputError: If wandb-workspaces is missing, or the run has no W&B project.
    """
    try:
        from wandb_workspaces import workspaces as ws
    except ImportError:
        raise InputError(
            "the dashboard needs wandb-workspaces; run pip install 'maskclr_pl[dashboard]'"
        ) from None
    settings = read_config(folder).get("logger", {}).get("wandb")
    if settings is None:
        raise InputError(f"{folder}: not trained with logger=wandb")
    entity = settings.get("entity") or os.environ.get("WANDB_ENTITY")
    if not entity:
        raise InputError(
            f"{folder}: no entity in its configuration; set WANDB_ENTITY=NAME to the user or team "
            "of the project"
        )
    media = [f"figures/{path.stem}" for path in sorted((folder / "figures").glob("*.png"))]
    epochs = (folder / "figures").glob("epoch_*/*.png")
    media += sorted({f"epochs/{path.stem}" for path in epochs})
    corruptions = list(dict.fromkeys(row["corruption"] for row in read_robustness(folder)))
    sections = _sections(media, [name for name in corruptions if name != "clean"])
    return ws.Workspace(
        entity=entity,
        project=settings["project"],
        name="maskclr_pl",
        sections=[
            ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch"),
        auto_generate_panels=False,
    )


def _sections(media: Sequence[str], corruptions: Sequence[str]) -> dict[str, list[Any]]:
    """Panels by section; sections without panels are left out."""
    from wandb_workspaces.reports import v2 as wr

    def line(title: str, *metrics: str, x: str = "epoch", **options: Any) -> Any:
        return wr.LinePlot(title=title, x=x, y=list(metrics), **options)

    def bars(*metrics: str) -> list[Any]:
        return [wr.BarPlot(title=metric, metrics=[metric]) for metric in metrics]

    def images(keys: Sequence[str]) -> list[Any]:
        return [wr.MediaBrowser(media_keys=[key]) for key in keys]

    masks = [key for key in media if "mask" in key]
    sections = {
        "Training": [
            line("loss", "train/loss"),
            line("loss terms", metric_regex="train/loss_.*"),
        ],
        "Validation and test": [
            line("top-1 on validation clips (percent)", "val/top1"),
            line("loss on validation clips", "val/loss"),
            *bars("test/top1", "test/top5"),
        ],
        "Masking": [
            line("share of each joint's tokens that is masked", metric_regex="masked/.*"),
            *images(masks),
        ],
        "Robustness": [
            line(f"top-1 (percent) over {name}", f"robust/{name}", x=f"level/{name}")
            for name in corruptions
        ],
        "Cost": bars(*COST),
        "Media": images([key for key in media if key not in masks]),
    }
    return {name: panels for name, panels in sections.items() if panels}
