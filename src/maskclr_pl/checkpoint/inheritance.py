"""Take over the settings of the run that a run starts from, by one rule.

What decides what the backbone is, and what it is shown, comes from the origin; what belongs to the
way of learning (optimizer, batches, held-out clips, head, loss) is the new run's own; what was
passed on the command line stands.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.checkpoint.load import checkpoint_path
from maskclr_pl.config.build import clip_skeleton
from maskclr_pl.config.composition import Inherited, is_overridden
from maskclr_pl.config.trust import refuse_untrusted, trusted_packages
from maskclr_pl.runs.moved import update_config
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.skeletons.skeleton import Skeleton

WHOLE = ("backbone", "augment")
"""Groups that are taken over as they are, but for `OWN`."""
JOINT_KEYS = ("skeleton", "parts", "pairs", "root", "shoulders", "center")
"""Keys of `clip` that belong to one joint layout."""
TAKEN: Mapping[str, tuple[str, ...]] = {
    "clip": ("persons", "frames", "stream", "released", "released_scores", *JOINT_KEYS),
    "data": ("path", "train_split", "test_split", "val_split", "exemplar_split", "copies"),
    "method": ("persons",),
}
"""Keys that are taken over of the other groups."""
OWN: Mapping[str, tuple[str, ...]] = {
    "": (
        *("seed", "output_dir", "init_from", "init_overlap", "trusted", "resume"),
        *("compile", "checkpointing", "check_only"),
        *("objective", "monitor_split", "optim", "trainer", "callbacks", "logger", "paths"),
        *("head", "loss", "masking"),
    ),
    # weights of the origin come next; drop path is regularization, which a recipe chooses
    "backbone": ("weights", "drop_path"),
    "data": (
        *("_target_", "val_fraction", "novel_classes", "labelled", "batch_size", "balanced"),
        *("num_workers", "seed"),
    ),
    "method": (
        *("_target_", "num_classes", "bn_stats", "drop_hidden", "normalise", "init_std"),
        *("embed_dim", "queue_size", "temperature", "base_temperature", "momentum", "topk", "k"),
        *("mining_epoch", "drop_threshold", "streams", "cross_epoch", "context"),
        *("target", "decoder", "n_mpjpe", "velocity", "view", "noise", "drop"),
    ),
}
"""Keys ("": groups and single keys) that the new run says itself."""
DERIVED: Mapping[str, tuple[str, ...]] = {
    "": ("source", "download"),
    "clip": ("joints", "channels", "classes"),
    "data": ("frames", "persons", "sampling", "released"),
    "method": ("coordinates",),
}
"""Keys that follow from the data file, from `clip` or from `augment`."""


class Origin(NamedTuple):
    """The run that wrote a checkpoint, as the file describes it."""

    config: Mapping[str, Any]
    source: Skeleton
    """Joints of its data."""
    skeleton: Skeleton
    """Joints that its backbone saw."""
    class_names: list[str]


def read_origin(content: Mapping[str, Any]) -> Origin | None:
    """The run that wrote a checkpoint; None if the file does not say."""
    try:
        info = content["maskclr_pl"]
        config, source = update_config(info["config"]), Skeleton.from_dict(info["source_skeleton"])
        skeleton = clip_skeleton(config["clip"]["skeleton"], source)
        return Origin(config, source, skeleton, list(info["class_names"]))
    except Exception:  # the weights count, whatever a damaged file says of them
        return None


def inherit(cfg: DictConfig, passed: frozenset[str]) -> Inherited:
    """Take over, in place, the settings of the run `cfg.init_from` that were not passed.

    3D clips are projected where the backbone learned to lift, unless it goes on doing so.

    Args:
        cfg: As composed, before anything is settled by the data.
        passed: Keys of the command line (`passed_keys`).

    Raises:
        InputError: If the file is no checkpoint or asks for classes that are not trusted.
    """
    path = checkpoint_path(cfg.init_from)
    origin = read_origin(read_weights(path))
    if origin is None:
        return Inherited()
    config, groups, notes = dict(origin.config), [], []
    # with the single keys that are taken over: a node in the place of a number is made as well
    used = {group: config.get(group) for group in (*WHOLE, *TAKEN)}
    refuse_untrusted(used, path, trusted_packages(cfg.trusted))
    if projects_3d_clips(config) and not projects_3d_clips(cfg):
        config["augment"] = _projected(config["augment"], config["method"]["view"])
    other_joints = is_overridden("clip.skeleton", passed) and not _same_joints(cfg, origin)
    whole = [group for group in WHOLE if group not in passed]
    if other_joints and "augment" in whole:  # it names joints by their number
        whole.remove("augment")
        notes.append(f"the augmentation of {cfg.init_from} is for other joints; not taken over")
    own_augment = cfg.augment
    with open_dict(cfg):
        if "backbone" in whole:
            notes += _backbone(cfg, config["backbone"], passed)
            groups.append("backbone")
        groups += _keys(cfg, config, passed, other_joints)
        if "augment" in whole:
            _exchange(cfg, "augment", _of_length(config, cfg.clip.frames), passed)
            groups.append("augment")
    return Inherited(
        groups,
        notes,
        None if is_overridden("clip.skeleton", passed) else origin.skeleton,
        origin.source,
        own_augment if "augment" in whole else None,
    )


def _same_joints(cfg: DictConfig, origin: Origin) -> bool:
    name = cfg.clip.skeleton
    return name is not None and load_skeleton(name).joints == origin.skeleton.joints


def _backbone(cfg: DictConfig, backbone: Mapping[str, Any], passed: frozenset[str]) -> list[str]:
    """Take over a backbone; a note if the recipe has another kind."""
    before = cfg.backbone
    same = before._target_ == backbone["_target_"]
    own = {key: before[key] for key in OWN["backbone"] if same and key in before}
    without = {"weights": None} if "weights" in backbone else {}
    _exchange(cfg, "backbone", {**backbone, **without, **own}, passed)
    if same or "experiment" not in passed:
        return []
    names = [str(target).rsplit(".", 1)[-1] for target in (backbone["_target_"], before._target_)]
    return ["the backbone is that of {}, {}; the recipe has {}".format(cfg.init_from, *names)]


def _exchange(cfg: DictConfig, group: str, values: Any, passed: frozenset[str]) -> None:
    """Another content for a group, in which single values that were passed stand."""
    stand = {key: OmegaConf.select(cfg, key) for key in passed if key.startswith(f"{group}.")}
    cfg[group] = values
    for key, value in stand.items():
        OmegaConf.update(cfg, key, value)


def _keys(
    cfg: DictConfig, config: Mapping[str, Any], passed: frozenset[str], other_joints: bool
) -> list[str]:
    """Take over single keys; the groups (of `method` the key) from which some were."""
    # the choice of a method is a choice of how to learn, not of what the backbone is shown
    passed = passed - {"method"}
    groups = []
    for group, keys in TAKEN.items():
        before = config.get(group, {})
        values = {
            key: before[key]
            for key in keys
            if key in before
            and (group == "clip" or key in cfg[group])
            and not is_overridden(f"{group}.{key}", passed)
            and not (other_joints and group == "clip" and key in JOINT_KEYS)
        }
        streams = config.get("method", {}).get("streams")
        if streams and values.get("stream", streams[0]) not in streams:
            values["stream"] = streams[0]
        if group == "method" and all(cfg.method[key] == value for key, value in values.items()):
            continue
        for key, value in values.items():
            OmegaConf.update(cfg, f"{group}.{key}", value)
        if values:
            groups.append(group if group != "method" else ", ".join(f"method.{k}" for k in values))
        if group == "data" and "data" not in passed:  # those of the set that was composed
            cfg.source, cfg.download = None, None
    return groups


def _of_length(config: Mapping[str, Any], frames: int) -> dict[str, Any]:
    """The augmentation of a run, for clips of another length."""
    before = config["clip"]["frames"]

    def fitted(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                key: frames if key == "frames" and one == before else fitted(one)
                for key, one in value.items()
            }
        return [fitted(one) for one in value] if isinstance(value, list | tuple) else value

    result: dict[str, Any] = fitted(config["augment"])
    return result


def projects_3d_clips(config: Mapping[str, Any] | DictConfig) -> bool:
    """Whether a run projects 3D clips itself, which are the truth that it learns from."""
    lifting = str(config.get("method", {}).get("_target_")).endswith(".Lift")
    return lifting and config.get("augment", {}).get("coordinates") == "metres"


def _projected(augment: Mapping[str, Any], view: Mapping[str, Any]) -> dict[str, Any]:
    """The augmentation of a run that lifts, and then what it does before its backbone.

    Its noise and its hidden joints are for learning to lift alone.
    """
    project = {"_target_": "maskclr_pl.transforms.Project"}
    crop = {"_target_": "maskclr_pl.transforms.CropScale3D", "ratio": [1.0, 1.0]}
    trained = {k: [*augment[k], view, project] for k in ("augment", "extreme") if augment.get(k)}
    return {**augment, **trained, "preprocess": [*augment["preprocess"], crop, project]}
