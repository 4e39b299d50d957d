"""Statistics of joint attention: how many joints a model attends to."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskclr_pl.backbones import Backbone
from maskclr_pl.files import write_atomically
from maskclr_pl.methods import Method
from maskclr_pl.methods.base import visible_persons
from maskclr_pl.methods.protocols.features import eval_mode
from maskclr_pl.types import Batch, InputError

DEFINITION = (
    "activated_joints: exp of the entropy of the attention that the joints of a person receive "
    "over the whole clip, mean over persons; V if all joints receive the same attention, 1 if one "
    "joint receives all of it. red_joints: joints of a person in a frame with at least a third of "
    "the maximum importance in the clip, mean over frames and persons. Both: mean and standard "
    "deviation over test clips"
)

_TINY = torch.finfo(torch.float32).tiny


class ClipAttention(NamedTuple):
    """Attention statistics of n clips that show a person."""

    activated: Float[Tensor, " n"]
    red: Float[Tensor, " n"]
    share: Float[Tensor, "n V"]
    """Share of attention of each joint, mean over persons; sums to 1."""


def activated_joints(importance: Float[Tensor, "N T V"]) -> Float[Tensor, " N"]:
    """Return the effective number of joints that receive the attention of a sequence.

    exp(H(p)), where p_v is the share of attention that joint v receives over all frames, and H the
    entropy (Hill number of order 1, 1973). It is V if all joints receive the same attention and k
    if k joints share it equally. Unlike a count above a threshold it has no parameter and is
    smooth.

    Limits: it describes attention in the layer it is read from, not causal importance; an untrained
    model attends to all joints alike and scores V. Attention of small models is flat, so values are
    close to V and differences in the first decimal can matter. Compare models of one architecture
    on the same clips only. Joints that the pose estimator missed count as well.

    Args:
        importance: Values >= 0; an all-zero sequence has 0 activated joints.

    Example:
        >>> activated_joints(torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 5.0, 0.0]]]))
        tensor([2., 1.])
    """
    received = importance.float().sum(1)  # (N, V)
    total = received.sum(-1, keepdim=True)
    share = received / total.clamp_min(_TINY)
    return torch.special.entr(share).sum(-1).exp() * (total.squeeze(-1) > 0)


def red_joints(
    importance: Float[Tensor, "N T V"], clip_index: Int[Tensor, " N"], batch_size: int
) -> Float[Tensor, " N"]:
    """Return the mean number of joints per frame that the MaskCLR poster would color fully red.

    These have at least a third of the maximum importance in the clip (over all persons), see
    `figures.attention`. A single outlier can make all other joints blue, so this number varies
    much more between clips than `activated_joints`.

    Args:
        importance: Values >= 0.
        clip_index: The clip of each sequence.
        batch_size: Number of clips.
    """
    maximum = importance.new_zeros(batch_size)
    maximum = maximum.scatter_reduce(0, clip_index, importance.amax((1, 2)), "amax")
    red = (3 * importance >= maximum[clip_index, None, None]) & (importance > 0)
    return red.float().sum(-1).mean(1)


@torch.no_grad()
def clip_attention(method: Method, batches: Iterable[Batch]) -> ClipAttention:
    """Compute attention statistics of clips in one pass; clips without persons are skipped.

    Args:
        method: Model on the device of the batches.
        batches: Batches of the data module.

    Returns:
        Statistics on the CPU, in the order of the batches.

    Raises:
        InputError: If the backbone has no attention, or no clip shows a person.
    """
    sums = []
    with eval_mode(method):
        for batch in batches:
            importance, sequence = sequence_importance(method, batch)
            batch_size = len(batch["label"])
            clip_index = sequence // batch["present"].shape[1]
            received = importance.float().sum(1)
            columns = torch.cat(
                (
                    activated_joints(importance).unsqueeze(1),
                    red_joints(importance, clip_index, batch_size).unsqueeze(1),
                    received / received.sum(-1, keepdim=True).clamp_min(_TINY),
                    torch.ones_like(received[:, :1]),  # counts persons
                ),
                dim=1,
            )
            zeros = columns.new_zeros(batch_size, columns.shape[1])
            sums.append(zeros.index_add(0, clip_index, columns))
    table = torch.cat(sums).cpu()  # (n, 2 + V + 1)
    persons = table[:, -1]
    if not (persons > 0).any():
        raise InputError("no clip shows a person; attention needs clips with at least one")
    means = table[persons > 0] / persons[persons > 0, None]
    return ClipAttention(means[:, 0], means[:, 1], means[:, 2:-1])


def sequence_importance(
    method: Method, batch: Batch
) -> tuple[Float[Tensor, "N T V"], Int[Tensor, " N"]]:
    """Return the importance of the visible person sequences of a batch, and their indices.

    Returns:
        importance: Importance of joints in each sequence.
        sequence: Index of each sequence among the B * M flattened ones.

    Raises:
        InputError: If the backbone has no attention.
    """
    clip = method.preprocess(batch["clip"])
    sequence = batch["sequence"]
    sequence = sequence[visible_persons(clip).flatten()[sequence]]  # cropping can remove persons
    x = clip.flatten(0, 1).index_select(0, sequence).contiguous()
    importance = method.encode(x, with_importance=True).importance
    if importance is None:
        raise InputError(
            f"{type(method.backbone).__name__} has no attention to read; use a backbone with "
            "importance, such as backbone=dstformer"
        )
    return importance, sequence


def importance_source(backbone: Backbone) -> str:
    """Describe which attention the importance of a backbone is read from."""
    maps = getattr(backbone, "importance", ())
    names = [maps] if isinstance(maps, str) else list(maps)
    layers = {"last": "last layer", "all": "all layers"}
    layer = layers[getattr(backbone, "importance_layers", "last")]
    return ", ".join([type(backbone).__name__, *names, layer])


def write_attention(folder: Path, method: Method, attention: ClipAttention) -> dict[str, Any]:
    """Write `attention.json` to a run folder and return its content."""
    share = attention.share.mean(0).tolist()
    values: dict[str, Any] = {}
    for name, column in (("activated_joints", attention.activated), ("red_joints", attention.red)):
        values[name] = round(float(column.mean()), 4)
        values[f"{name}_std"] = round(float(column.std(correction=0)), 4)
    joints = method.skeleton.joints
    values |= {
        "joints": len(joints),
        "clips": len(attention.activated),
        "read_from": importance_source(method.backbone),
        "definition": DEFINITION,
        "share": {joint: round(value, 6) for joint, value in zip(joints, share, strict=True)},
    }
    write_atomically(folder / "attention.json", (json.dumps(values, indent=2) + "\n").encode())
    return values
