"""Classes that earlier versions named in another way: their runs can still be read."""

from typing import Any

MOVED = {
    "lightning.pytorch.loggers.CSVLogger": "maskclr_pl.runs.history.MetricsTable",
    "maskclr_pl.data.sources.ntu_skeleton.": "maskclr_pl.sources.ntu.source.",
    "maskclr_pl.data.sources.poses.": "maskclr_pl.sources.poses.source.",
    "maskclr_pl.data.sources.stgcn_json.": "maskclr_pl.sources.stgcn.",
    "maskclr_pl.data.sources.": "maskclr_pl.sources.",
    "maskclr_pl.data.synthetic.": "maskclr_pl.sources.synthetic.",
    "maskclr_pl.evaluation.corruptions.": "maskclr_pl.robustness.corruptions.",
    "maskclr_pl.evaluation.history.": "maskclr_pl.runs.history.",
    "maskclr_pl.sources.ntu.skeleton_files.": "maskclr_pl.sources.ntu.source.",
    "maskclr_pl.methods.decoders.": "maskclr_pl.methods.pretrain.decoders.",
}
"""Full name, or prefix that ends in a dot -> the name or prefix now. The first that fits counts."""


def renamed(values: Any) -> Any:
    """A copy of a configuration of plain values in which every `_target_` has its name of today."""
    if isinstance(values, dict):
        return {
            key: _renamed(value) if key == "_target_" else renamed(value)
            for key, value in values.items()
        }
    if isinstance(values, list | tuple):
        return [renamed(value) for value in values]
    return values


def _renamed(target: Any) -> Any:
    for old, new in MOVED.items():
        if isinstance(target, str) and (
            target == old or (old[-1] == "." and target.startswith(old))
        ):
            return new + target.removeprefix(old)
    return target
