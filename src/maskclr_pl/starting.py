"""Starting a run from another: its settings, where none are typed, and its weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from maskclr_pl.backbones.weights import read_weights
from maskclr_pl.checkpoint import (
    TRUSTED,
    checkpoint_path,
    clip_skeleton,
    refuse_untrusted,
    state_of,
)
from maskclr_pl.methods import Method
from maskclr_pl.skeletons import Skeleton
from maskclr_pl.types import InputError


class Origin(NamedTuple):
    """What a checkpoint says of the run that wrote it."""

    config: Mapping[str, Any]
    skeleton: Skeleton
    """Joints that its backbone saw."""
    class_names: list[str]


_TAKEN = {
    "clip": ("persons", "frames", "skeleton", "center", "stream", "released", "released_scores"),
    "data": ("path", "train_split", "test_split", "val_split", "exemplar_split", "copies"),
}
"""What of a group is taken over; the rest follows from the data, or belongs to a protocol."""


def inherit(cfg: DictConfig, typed: Sequence[str]) -> list[str]:
    """Take over, in place, what the run `cfg.init_from` was trained with and nobody typed.

    Its backbone; and its clips, augmentation and data, unless `data=` or `pose=` asks for others.
    Values that are typed (`clip.frames=...`) stand. An `experiment=` says everything itself. 3D
    clips are projected where the backbone learnt to lift, unless it goes on doing so.

    Args:
        cfg: As composed, before sizes are filled in.
        typed: The overrides of the command line.

    Returns:
        Names of the groups that were taken over.

    Raises:
        InputError: If the file is no checkpoint or asks for classes that are not trusted, or clips
            of another length are asked for with an augmentation that was taken over.
    """
    keys = {override.lstrip("+~").partition("=")[0].partition("@")[0] for override in typed}
    path = checkpoint_path(cfg.init_from)
    origin = None if "experiment" in keys else _origin(read_weights(path))
    if origin is None:
        return []
    theirs = origin.config
    if _lifts(theirs) and not _lifts(cfg):
        theirs = {**theirs, "augment": _projected(theirs["augment"], theirs["method"]["view"])}
    taken = [] if "backbone" in keys else ["backbone"]
    if not keys & {"data", "pose"}:
        taken += ["clip", "data"] if "augment" in keys else ["clip", "data", "augment"]
    trusted = (*TRUSTED, *(f"{name}." for name in cfg.trusted))
    refuse_untrusted({group: theirs[group] for group in taken}, path, trusted)
    with open_dict(cfg):
        for group in taken:
            own = {key for key in keys if key.startswith(f"{group}.")}
            if group in _TAKEN:
                values = {f"{group}.{key}": theirs[group].get(key) for key in _TAKEN[group]}
                streams = theirs["method"].get("streams")
                if streams and values.get("clip.stream", streams[0]) not in streams:
                    values["clip.stream"] = streams[0]
                for key in values.keys() - own:
                    OmegaConf.update(cfg, key, values[key])
                continue
            if group == "backbone":
                own.add("backbone.weights")  # those of the run come next
            stand = {key: OmegaConf.select(cfg, key) for key in own}
            cfg[group] = theirs[group]
            for key, value in stand.items():
                OmegaConf.update(cfg, key, value)
        if "data" in taken:
            cfg.source, cfg.download = None, None
    if "augment" in taken and cfg.clip.frames != theirs["clip"]["frames"]:
        raise InputError(
            f"clip.frames={cfg.clip.frames}, but {cfg.init_from} was trained with "
            f"{theirs['clip']['frames']}; leave it out, or type the augment= of these clips as well"
        )
    return taken


def init_from(
    method: Method, path: Path, config: Mapping[str, Any], class_names: list[str]
) -> tuple[list[str], list[str]]:
    """Start a method from the weights of another run.

    The backbone must fit completely. Other parts are taken where every shape fits, unless the other
    run is known to have had other classes. Of a run with a backbone for each stream (`CrosSCLR`),
    that of this run's stream is taken, the first one by itself.

    Args:
        method: To be started.
        path: Checkpoint of the other run.
        config: The resolved configuration of this run.
        class_names: Classes of this run.

    Returns:
        Names of the parts that were taken, and how the clips of the other run differ from those of
        this one, a line each.

    Raises:
        InputError: If the file is no checkpoint, has no backbone of this stream, or the backbone
            does not fit.
    """
    content = read_weights(path)
    state, origin = state_of(content, path), _origin(content)
    streams = origin.config.get("method", {}).get("streams") if origin else None
    if streams and "streams" not in config["method"] and config["clip"]["stream"] not in streams:
        raise InputError(
            f"{path}: it has backbones for {', '.join(streams)}, and this run has clip.stream="
            f"{config['clip']['stream']}; type clip.stream={streams[0]}"
        )
    joints = config["backbone"].get("joints")
    if joints not in (None, len(method.skeleton)):  # it was taken over, but the data is other data
        raise _other_joints(path, joints, method.skeleton, origin)
    same_classes = origin is None or origin.class_names == class_names
    stream = f"backbones.{config['clip']['stream']}."
    taken = []
    for name, module in method.named_children():
        of_stream = name == "backbone" and any(key.startswith(stream) for key in state)
        prefix = stream if of_stream else f"{name}."
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        own = module.state_dict()
        fits = part.keys() == own.keys() and all(part[k].shape == own[k].shape for k in own)
        if part and fits and (same_classes or name == "backbone"):
            module.load_state_dict(part)
            taken.append(prefix.removesuffix("."))
        elif name == "backbone":
            _refuse_weights(part, own, path, method.skeleton, origin)
    return taken, _differences(config, method.skeleton, origin) if origin else []


def _origin(content: Mapping[str, Any]) -> Origin | None:
    try:
        info = content["maskclr_pl"]
        config, source = info["config"], Skeleton.from_dict(info["source_skeleton"])
        skeleton = clip_skeleton(config["clip"]["skeleton"], source)
        return Origin(config, skeleton, list(info["class_names"]))
    except Exception:  # the weights count, whatever a damaged file says of them
        return None


def _differences(config: Mapping[str, Any], skeleton: Skeleton, origin: Origin) -> list[str]:
    """How the clips of a run that is started from differ from those of this one."""
    notes = []
    if origin.skeleton.joints != skeleton.joints:
        theirs = origin.skeleton.name
        notes.append(f"it was trained on the joints of {theirs}, this run has {skeleton.name}")
    keys = [("clip", "frames")]
    if "streams" not in origin.config.get("method", {}):
        keys.append(("clip", "stream"))
    for group, key in keys:
        before, now = (c.get(group, {}).get(key) for c in (origin.config, config))
        if before != now:
            notes.append(f"it was trained with {group}.{key}={before}, this run has {now}")
    seen, shown = _channels(origin.config), _channels(config)
    if seen != shown:
        notes.append(f"its backbone was shown ({seen}), that of this run is shown ({shown})")
    if _lifts(origin.config):
        return notes  # it prepared clips for the truth, from which its backbone was shown less
    before, now = (c.get("augment", {}).get("preprocess") for c in (origin.config, config))
    if not notes and before != now:
        notes.append("it was trained with another augment=, which prepares clips differently")
    return notes


def _lifts(config: Mapping[str, Any]) -> bool:
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


def _channels(config: Mapping[str, Any]) -> str:
    """What the backbone of a run is shown of a joint."""
    augment = config.get("augment", {})
    targets = [str(step.get("_target_")) for step in augment.get("preprocess") or ()]
    flat = _lifts(config) or any(target.endswith(".Project") for target in targets)
    pixels = flat or augment.get("coordinates") == "pixels"
    return "x, y, confidence" if pixels else "x, y, z"


def _refuse_weights(
    part: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    path: Path,
    skeleton: Skeleton,
    origin: Origin | None,
) -> None:
    if origin is not None and len(origin.skeleton) != len(skeleton):
        raise _other_joints(path, len(origin.skeleton), skeleton, origin)
    missing = sorted(own.keys() - part.keys())
    shapes = [k for k in own.keys() & part.keys() if part[k].shape != own[k].shape]
    raise InputError(
        f"{path}: its backbone does not fit this one ({len(missing)} of {len(own)} tensors "
        f"missing, {len(shapes)} of another shape); type the backbone= it was trained with"
    )


def _other_joints(path: Path, joints: int, skeleton: Skeleton, origin: Origin | None) -> InputError:
    named = f" of {origin.skeleton.name}" if origin else ""
    return InputError(
        f"{path}: its backbone was trained on the {joints} joints{named}, and this run has the "
        f"{len(skeleton)} of {skeleton.name}; type the pose= or data= that it was trained with"
    )
