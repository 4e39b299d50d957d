"""Start a run with the weights of another."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.checkpoint.inheritance import (
    JOINT_KEYS,
    TAKEN,
    Origin,
    projects_3d_clips,
    read_origin,
)
from maskclr_pl.checkpoint.load import validated_state_dict
from maskclr_pl.errors import InputError
from maskclr_pl.methods import Method
from maskclr_pl.skeletons.skeleton import Skeleton


def transfer_weights(
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
    state, origin = validated_state_dict(content, path), read_origin(content)
    streams = origin.config.get("method", {}).get("streams") if origin else None
    if streams and "streams" not in config["method"] and config["clip"]["stream"] not in streams:
        raise InputError(
            f"{path}: it has backbones for {', '.join(streams)}, and this run has clip.stream="
            f"{config['clip']['stream']}; pass clip.stream={streams[0]}"
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


def _differences(config: Mapping[str, Any], skeleton: Skeleton, origin: Origin) -> list[str]:
    """How the clips of a run that is started from differ from those of this one."""
    notes = []
    if origin.skeleton.joints != skeleton.joints:
        theirs = origin.skeleton.name
        notes.append(f"it was trained on the joints of {theirs}, this run has {skeleton.name}")
    for key in _compared(origin, skeleton):
        group, _, name = key.partition(".")
        before, now = (c.get(group, {}).get(name) for c in (origin.config, config))
        if before != now and name in origin.config.get(group, {}):
            notes.append(f"it was trained with {key}={before}, this run has {now}")
    seen, shown = _channels(origin.config), _channels(config)
    if seen != shown:
        notes.append(f"its backbone was shown ({seen}), that of this run is shown ({shown})")
    if projects_3d_clips(origin.config):
        return notes  # it prepared clips for the truth, from which its backbone was shown less
    before, now = (c.get("augment", {}).get("preprocess") for c in (origin.config, config))
    if not notes and before != now:
        notes.append("it was trained with another augment=, which prepares clips differently")
    return notes


def _compared(origin: Origin, skeleton: Skeleton) -> Iterator[str]:
    """Keys of what a backbone is shown that mean the same in both runs."""
    for group in ("clip", "method"):
        for key in TAKEN[group]:
            numbers_of_joints = key in JOINT_KEYS
            of_streams = key == "stream" and "streams" in origin.config.get("method", {})
            same_joints = origin.skeleton.joints == skeleton.joints and key != "skeleton"
            if same_joints if numbers_of_joints else not of_streams:
                yield f"{group}.{key}"


def _channels(config: Mapping[str, Any]) -> str:
    """What the backbone of a run is shown of a joint."""
    augment = config.get("augment", {})
    targets = [str(step.get("_target_")) for step in augment.get("preprocess") or ()]
    flat = projects_3d_clips(config) or any(target.endswith(".Project") for target in targets)
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
    remedy = (
        "pass the backbone=... that it was trained with"
        if origin is None
        else "leave out backbone=... and backbone.KEY=... to have the one it was trained with"
    )
    raise InputError(
        f"{path}: its backbone does not fit this one ({len(missing)} of {len(own)} tensors "
        f"missing, {len(shapes)} of another shape); {remedy}"
    )


def _other_joints(path: Path, joints: int, skeleton: Skeleton, origin: Origin | None) -> InputError:
    named = f" of {origin.skeleton.name}" if origin else ""
    return InputError(
        f"{path}: its backbone was trained on the {joints} joints{named}, and this run has the "
        f"{len(skeleton)} of {skeleton.name}; leave out pose=... to convert them"
    )
