"""Inherit settings of the run that a run starts from (`init_from`).

What the backbone is and what it sees comes from that run; how the new run learns (optimizer,
batches, held-out clips, head, loss) is its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.checkpoint.load import checkpoint_path
from maskclr_pl.config.build import clip_skeleton, transform_steps
from maskclr_pl.config.composition import Inherited, is_overridden
from maskclr_pl.config.trust import refuse_untrusted, trusted_packages
from maskclr_pl.runs.moved import update_config
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.skeletons.skeleton import Skeleton

JOINT_KEYS = ("skeleton", "parts", "pairs", "root", "shoulders", "center")
"""Keys of `clip` that belong to one joint layout."""
INHERITED: Mapping[str, tuple[str, ...]] = {
    "backbone": (),
    "clip": ("persons", "frames", "stream", "released", "released_scores", *JOINT_KEYS),
    "data": ("path", "train_split", "test_split", "val_split", "exemplar_split", "duplicates"),
    "method": ("persons",),
    "augment": (),
}
"""Group -> inherited keys; an empty tuple is the whole group."""
OWN_BACKBONE_KEYS = ("weights", "drop_path")
"""Not inherited: weights come from the checkpoint, and drop path is regularization."""

_MISSING = object()


class Origin(NamedTuple):
    """The run that wrote a checkpoint."""

    config: Mapping[str, Any]
    source: Skeleton
    """Joints of its data."""
    skeleton: Skeleton
    """Joints of the input of its backbone."""
    class_names: list[str]


def read_origin(content: Mapping[str, Any]) -> Origin | None:
    """Return the run that wrote a checkpoint; None if the file does not describe it."""
    try:
        info = content["maskclr_pl"]
        config, source = update_config(info["config"]), Skeleton.from_dict(info["source_skeleton"])
        skeleton = clip_skeleton(config["clip"]["skeleton"], source)
        return Origin(config, source, skeleton, list(info["class_names"]))
    except Exception:  # weights remain usable without a description
        return None


def inherit(cfg: DictConfig, passed: frozenset[str]) -> Inherited:
    """Complete, in place, a configuration with settings of the run `cfg.init_from`.

    Its inherited settings are the base, and overrides of the command line go on top. 3D clips are
    projected where the backbone learned to lift, unless this run lifts as well.

    Args:
        cfg: As composed, before it is adapted to the data.
        passed: Overridden keys of the command line (`overridden_keys`).

    Raises:
        InputError: If the file is no checkpoint or names classes that are not trusted.
    """
    path = checkpoint_path(cfg.init_from)
    origin = read_origin(read_weights(path))
    if origin is None:
        return Inherited()
    saved = {group: origin.config.get(group) or {} for group in INHERITED}
    refuse_untrusted(saved, path, trusted_packages(cfg.trusted))
    notes = _backbone_notes(cfg, saved["backbone"], passed)
    if projects_3d_clips(origin.config) and not projects_3d_clips(cfg):
        saved["augment"] = _projected(saved["augment"], saved["method"]["view"])
    keys = [
        key for key in _inherited_keys(cfg, saved) if not is_overridden(key, passed - {"method"})
    ]
    if is_overridden("clip.skeleton", passed) and not _same_joints(cfg, origin):
        if "augment" in keys:
            notes.append(f"augment= of {cfg.init_from} is for other joints and is not inherited")
        other_joints = {"augment", *(f"clip.{key}" for key in JOINT_KEYS)}
        keys = [key for key in keys if key not in other_joints]
    own_augment = cfg.augment
    groups = _merge(cfg, saved, keys, passed)
    return Inherited(
        groups,
        notes,
        None if is_overridden("clip.skeleton", passed) else origin.skeleton,
        origin.source,
        own_augment if "augment" in groups else None,
    )


def _inherited_keys(cfg: DictConfig, saved: Mapping[str, Any]) -> Iterator[str]:
    """Yield the inherited keys that the other run has; new keys come in `clip` only."""
    for group, keys in INHERITED.items():
        if not keys:
            yield group
        for key in keys:
            if key in saved[group] and (group == "clip" or key in cfg[group]):
                yield f"{group}.{key}"


def _merge(
    cfg: DictConfig, saved: dict[str, Any], keys: Sequence[str], passed: frozenset[str]
) -> list[str]:
    """Replace keys by their saved values, then apply overrides again; return groups for the log."""
    composed = cfg.copy()
    streams = saved["method"].get("streams")
    if streams and saved["clip"].get("stream", streams[0]) not in streams:
        saved["clip"] = {**saved["clip"], "stream": streams[0]}
    frames = saved["clip"]["frames"] if "clip.frames" in keys else cfg.clip.frames
    saved["augment"] = _resize(saved["augment"], saved["clip"].get("frames"), frames)
    same = cfg.backbone._target_ == saved["backbone"].get("_target_")
    own = {key: cfg.backbone[key] for key in OWN_BACKBONE_KEYS if same and key in cfg.backbone}
    without = {"weights": None} if "weights" in saved["backbone"] else {}
    saved["backbone"] = {**saved["backbone"], **without, **own}
    groups = []
    with open_dict(cfg):
        for key in keys:
            group, _, name = key.partition(".")
            value = saved[group][name] if name else saved[group]
            if group == "method" and OmegaConf.select(cfg, key) == value:
                continue
            OmegaConf.update(cfg, key, value, merge=False)
            groups.append(key if group == "method" else group)
        for key in passed:
            value = OmegaConf.select(composed, key, default=_MISSING)
            if key.partition(".")[0] in groups and "." in key and value is not _MISSING:
                OmegaConf.update(cfg, key, value, merge=False)
        if "data" not in passed:  # what belongs to the data set that was composed
            cfg.source, cfg.download = None, None
    return list(dict.fromkeys(groups))


def _same_joints(cfg: DictConfig, origin: Origin) -> bool:
    name = cfg.clip.skeleton
    return name is not None and load_skeleton(name).joints == origin.skeleton.joints


def _backbone_notes(
    cfg: DictConfig, backbone: Mapping[str, Any], passed: frozenset[str]
) -> list[str]:
    """Note that a recipe has another backbone than the one that is inherited."""
    inherited, own = (str(b["_target_"]).rpartition(".")[2] for b in (backbone, cfg.backbone))
    if inherited == own or "experiment" not in passed or "backbone" in passed:
        return []
    return [f"the backbone is that of {cfg.init_from}, {inherited}; the recipe has {own}"]


def _resize(values: Any, before: int | None, frames: int) -> Any:
    """Copy an augmentation for clips of another length."""
    if isinstance(values, Mapping):
        return {
            key: frames if key == "frames" and value == before else _resize(value, before, frames)
            for key, value in values.items()
        }
    if isinstance(values, list | tuple):
        return [_resize(value, before, frames) for value in values]
    return values


def projects_3d_clips(config: Mapping[str, Any] | DictConfig) -> bool:
    """Return True for a run that learns to lift from 3D clips, which it projects itself."""
    lifting = str(config.get("method", {}).get("_target_")).endswith(".Lift")
    return lifting and config.get("augment", {}).get("coordinates") == "metres"


def _projected(augment: Mapping[str, Any], view: Mapping[str, Any]) -> dict[str, Any]:
    """Return the augmentation of a lifting run, followed by the projection before its backbone.

    Its noise and dropped joints are part of the lifting task and are left out.
    """
    project = {"_target_": "maskclr_pl.transforms.Project"}
    crop = {"_target_": "maskclr_pl.transforms.CropScale3D", "ratio": [1.0, 1.0]}
    result = dict(augment)
    for name in ("augment", "extreme"):
        if augment.get(name):
            result[name] = [*transform_steps(augment[name]), view, project]
    result["preprocess"] = [*transform_steps(augment["preprocess"]), crop, project]
    return result
