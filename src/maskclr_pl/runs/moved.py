"""Class and key names of earlier versions, so that their runs stay readable."""

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
"""Old full name, or prefix that ends in a dot -> new name or prefix. The first match counts."""


RENAMED_KEYS = {
    "select_on": "monitor_split",
    "data.labelled": "data.label_fraction",
    "data.copies": "data.duplicates",
    "method.normalise": "method.normalize",
    "masking.strategy.normalise": "masking.strategy.normalize",
    "loss.terms.class.normalise": "loss.terms.class.normalize",
}
"""Old key -> new key, as dotted paths from the root of a configuration."""


def update_config(config: Any) -> Any:
    """Copy a configuration with the keys and `_target_`s of this version."""
    config = _with_targets(config)
    for old, new in RENAMED_KEYS.items():
        node, (*groups, key) = config, old.split(".")
        for group in groups:
            node = node.get(group) if isinstance(node, dict) else None
        if isinstance(node, dict) and key in node:
            node[new.rpartition(".")[2]] = node.pop(key)
    return config


def _with_targets(values: Any) -> Any:
    if isinstance(values, dict):
        return {
            key: _renamed(value) if key == "_target_" else _with_targets(value)
            for key, value in values.items()
        }
    if isinstance(values, list | tuple):
        return [_with_targets(value) for value in values]
    return values


def _renamed(target: Any) -> Any:
    for old, new in MOVED.items():
        if isinstance(target, str) and (
            target == old or (old[-1] == "." and target.startswith(old))
        ):
            return new + target.removeprefix(old)
    return target
