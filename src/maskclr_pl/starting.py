"""Starting a run from the weights of another, maybe of other data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from maskclr_pl.backbones.weights import read_weights
from maskclr_pl.checkpoint import clip_skeleton, state_of
from maskclr_pl.methods import Method
from maskclr_pl.skeletons import Skeleton
from maskclr_pl.types import InputError


class Origin(NamedTuple):
    """What a checkpoint says of the run that wrote it."""

    config: Mapping[str, Any]
    skeleton: Skeleton
    """Joints that its backbone saw."""
    class_names: list[str]


def init_from(
    method: Method, path: Path, config: Mapping[str, Any], class_names: list[str]
) -> tuple[list[str], list[str]]:
    """Start a method from the weights of another run.

    The backbone must fit completely. Other parts are taken where every shape fits, unless the other
    run is known to have had other classes. Of a run with a backbone for each stream (`CrosSCLR`),
    that of this run's stream is taken.

    Args:
        method: To be started.
        path: Checkpoint of the other run.
        config: The resolved configuration of this run.
        class_names: Classes of this run.

    Returns:
        Names of the parts that were taken, and how the clips of the other run differ from those of
        this one, a line each.

    Raises:
        InputError: If the file is no checkpoint, or the backbone does not fit.
    """
    content = read_weights(path)
    state, origin = state_of(content, path), _origin(content)
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
    keys = [("clip", "frames"), ("augment", "coordinates")]
    if "streams" not in origin.config.get("method", {}):
        keys.append(("clip", "stream"))
    for group, key in keys:
        before, now = (c.get(group, {}).get(key) for c in (origin.config, config))
        if before != now:
            notes.append(f"it was trained with {group}.{key}={before}, this run has {now}")
    before, now = (c.get("augment", {}).get("preprocess") for c in (origin.config, config))
    if not notes and before != now:
        notes.append("it was trained with another augment=, which prepares clips differently")
    return notes


def _refuse_weights(
    part: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    path: Path,
    skeleton: Skeleton,
    origin: Origin | None,
) -> None:
    if origin is not None and len(origin.skeleton) != len(skeleton):
        raise InputError(
            f"{path}: its backbone was trained on the {len(origin.skeleton)} joints of "
            f"{origin.skeleton.name}, and this run has the {len(skeleton)} of {skeleton.name}; "
            "type the pose= or data= that it was trained with"
        )
    missing = sorted(own.keys() - part.keys())
    shapes = [k for k in own.keys() & part.keys() if part[k].shape != own[k].shape]
    raise InputError(
        f"{path}: its backbone does not fit this one ({len(missing)} of {len(own)} tensors "
        f"missing, {len(shapes)} of another shape); type the backbone= it was trained with"
    )
