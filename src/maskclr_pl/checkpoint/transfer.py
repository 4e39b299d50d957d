"""Start a run from the weights of another."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.checkpoint.inheritance import (
    INHERITED,
    JOINT_KEYS,
    Origin,
    projects_3d_clips,
    read_origin,
)
from maskclr_pl.checkpoint.load import validated_state_dict
from maskclr_pl.config.build import transform_steps
from maskclr_pl.errors import InputError
from maskclr_pl.methods import Method
from maskclr_pl.skeletons.skeleton import Skeleton


def transfer_weights(
    method: Method, path: Path, config: Mapping[str, Any], class_names: list[str]
) -> tuple[list[str], list[str]]:
    """Load the weights of another run into a method.

    The backbone must match completely. Other parts are loaded if all shapes match and both runs
    have the same classes. If the other run has one backbone per stream (`CrosSCLR`), the one of
    this run's stream is used.

    Args:
        method: Receives the weights.
        path: Checkpoint of the other run.
        config: Resolved configuration of this run.
        class_names: Classes of this run.

    Returns:
        Names of the loaded parts, and notes on differences between the clips of the two runs.

    Raises:
        InputError: If the file is no checkpoint, or its backbone is for another stream or does not
            match.
    """
    content = read_weights(path)
    state, origin = validated_state_dict(content, path), read_origin(content)
    streams = origin.config.get("method", {}).get("streams") if origin else None
    if streams and "streams" not in config["method"] and config["clip"]["stream"] not in streams:
        raise InputError(
            f"{path}: has backbones for {', '.join(streams)}, but this run has clip.stream="
            f"{config['clip']['stream']}; pass clip.stream={streams[0]}"
        )
    joints = config["backbone"].get("joints")
    if joints not in (None, len(method.skeleton)):  # inherited, but the data have others
        raise _other_joints(path, joints, method.skeleton, origin)
    same_classes = origin is None or origin.class_names == class_names
    stream = f"backbones.{config['clip']['stream']}."
    loaded = []
    for name, module in method.named_children():
        of_stream = name == "backbone" and any(key.startswith(stream) for key in state)
        prefix = stream if of_stream else f"{name}."
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        own = module.state_dict()
        fits = part.keys() == own.keys() and all(part[k].shape == own[k].shape for k in own)
        if part and fits and (same_classes or name == "backbone"):
            module.load_state_dict(part)
            loaded.append(prefix.removesuffix("."))
        elif name == "backbone":
            _refuse_weights(part, own, path, method.skeleton, origin)
    return loaded, _differences(config, method.skeleton, origin) if origin else []


def _differences(config: Mapping[str, Any], skeleton: Skeleton, origin: Origin) -> list[str]:
    """List differences between the clips of the other run and of this one."""
    notes = []
    if origin.skeleton.joints != skeleton.joints:
        name = origin.skeleton.name
        notes.append(f"it was trained on the joints of {name}, this run has {skeleton.name}")
    for key in _compared(origin, skeleton):
        group, _, name = key.partition(".")
        before, now = (c.get(group, {}).get(name) for c in (origin.config, config))
        if before != now and name in origin.config.get(group, {}):
            notes.append(f"it was trained with {key}={before}, this run has {now}")
    before, now = _channels(origin.config), _channels(config)
    if before != now:
        notes.append(f"its backbone was trained on ({before}), this run has ({now})")
    if projects_3d_clips(origin.config):
        return notes  # its clips were prepared as 3D targets, not as input of the backbone
    before, now = (
        transform_steps(c.get("augment", {}).get("preprocess") or ())
        for c in (origin.config, config)
    )
    if not notes and before != now:
        notes.append("it was trained with another augment=, which preprocesses clips differently")
    return notes


def _compared(origin: Origin, skeleton: Skeleton) -> Iterator[str]:
    """Yield keys of the backbone's input that mean the same in both runs."""
    for group in ("clip", "method"):
        for key in INHERITED[group]:
            numbers_of_joints = key in JOINT_KEYS
            of_streams = key == "stream" and "streams" in origin.config.get("method", {})
            same_joints = origin.skeleton.joints == skeleton.joints and key != "skeleton"
            if same_joints if numbers_of_joints else not of_streams:
                yield f"{group}.{key}"


def _channels(config: Mapping[str, Any]) -> str:
    """Describe the channels of a joint in the input of the backbone."""
    augment = config.get("augment", {})
    targets = [
        str(step.get("_target_")) for step in transform_steps(augment.get("preprocess") or ())
    ]
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
        else "leave out backbone=... and backbone.KEY=... to use the one it was trained with"
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
