"""How many joints a model attends to."""

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
from maskclr_pl.methods.protocols.one_shot import eval_mode
from maskclr_pl.types import Batch, InputError

DEFINITION = (
    "activated_joints: exp of the entropy of the attention that the joints of a person receive "
    "over the whole clip, mean over persons; V when all joints receive the same, 1 when one "
    "receives all. red_joints: joints of a person in a frame with at least a third of the largest "
    "importance in the clip, mean over frames and persons. Both: mean over test clips and "
    "standard deviation over them"
)

_TINY = torch.finfo(torch.float32).tiny


class ClipAttention(NamedTuple):
    """What was attended to in n clips that show a person."""

    activated: Float[Tensor, " n"]
    red: Float[Tensor, " n"]
    share: Float[Tensor, "n V"]
    """Of each joint, mean over persons; sums to 1."""


def activated_joints(importance: Float[Tensor, "N T V"]) -> Float[Tensor, " N"]:
    """The effective number of joints that a sequence's attention is spread over.

    exp(H(p)), where p_v is the share of the attention of the sequence that joint v receives,
    summed over frames, and H the entropy (Hill's number of order 1, 1973). It is V where all joints
    receive the same, k where k joints share all of it equally, 1 for a single one. Unlike a count
    of joints above a threshold it needs no constant and moves smoothly.

    Limits: it says where attention goes in the layer that is read, not what the decision uses: an
    untrained model attends to all joints alike and scores V, and a joint can be attended to
    without its value being of use. Attention of small models is flat, so values lie close to V and
    differences in the first decimal can matter; compare models of one architecture on the same
    clips only. Joints that an estimator did not see count as well.

    Args:
        importance: >= 0; a sequence of zeros has 0 activated joints.
    """
    received = importance.float().sum(1)
    total = received.sum(-1, keepdim=True)
    share = received / total.clamp_min(_TINY)
    return torch.special.entr(share).sum(-1).exp() * (total.squeeze(-1) > 0)


def red_joints(
    importance: Float[Tensor, "N T V"], clip_index: Int[Tensor, " N"], clips: int
) -> Float[Tensor, " N"]:
    """Joints that the poster's colouring paints fully red, mean over the frames of a sequence.

    Those with at least a third of the largest importance in the clip (of all its persons), see
    `figures.attention`: what a reader of the poster counts. The maximum is a single joint in a
    single frame, so one outlier makes all others blue: the number varies far more from clip to
    clip than `activated_joints`.

    Args:
        importance: >= 0.
        clip_index: The clip of each sequence.
        clips: Number of clips.
    """
    largest = importance.new_zeros(clips).scatter_reduce(
        0, clip_index, importance.amax((1, 2)), "amax"
    )
    red = (3 * importance >= largest[clip_index, None, None]) & (importance > 0)
    return red.float().sum(-1).mean(1)


@torch.no_grad()
def clip_attention(method: Method, batches: Iterable[Batch]) -> ClipAttention:
    """What a model attends to in clips, in one pass; on the CPU in the order of the batches.

    Clips that show nobody are left out.

    Args:
        method: On the device of the batches.
        batches: As the data module delivers them.

    Raises:
        InputError: If the backbone tells no importance, or no clip shows a person.
    """
    parts = []
    with eval_mode(method):
        for batch in batches:
            importance, sequence = importance_of(method, batch)
            clips = len(batch["label"])
            clip_index = sequence // batch["present"].shape[1]
            received = importance.float().sum(1)
            values = (
                activated_joints(importance).unsqueeze(1),
                red_joints(importance, clip_index, clips).unsqueeze(1),
                received / received.sum(-1, keepdim=True).clamp_min(_TINY),
                torch.ones_like(received[:, :1]),
            )
            columns = torch.cat(values, dim=1)
            parts.append(
                columns.new_zeros(clips, columns.shape[1]).index_add(0, clip_index, columns)
            )
    sums = torch.cat(parts).cpu()
    persons = sums[:, -1]
    if not (persons > 0).any():
        raise InputError("none of the clips shows a person; there is nothing to attend to")
    means = sums[persons > 0] / persons[persons > 0, None]
    return ClipAttention(means[:, 0], means[:, 1], means[:, 2:-1])


def importance_of(method: Method, batch: Batch) -> tuple[Float[Tensor, "N T V"], Int[Tensor, " N"]]:
    """Importance in the sequences of the persons that a clip shows, and their places.

    Returns:
        importance: Of each sequence.
        sequence: Where it stands among the B * M flattened ones.

    Raises:
        InputError: If the backbone tells no importance.
    """
    clip = method.preprocess(batch["clip"])
    sequence = batch["sequence"]
    shown = visible_persons(clip).flatten()[sequence]  # some may be outside of the crop
    sequence = sequence[shown]
    x = clip.flatten(0, 1).index_select(0, sequence).contiguous()
    importance = method.encode(x, with_importance=True).importance
    if importance is None:
        raise InputError(
            f"{type(method.backbone).__name__} does not tell what it attends to; expected a "
            "backbone with importance, such as backbone=dstformer"
        )
    return importance, sequence


def read_from(backbone: Backbone) -> str:
    """Which attention the importance of a backbone is, in words."""
    maps = getattr(backbone, "importance", ())
    names = [maps] if isinstance(maps, str) else list(maps)
    layers = {"last": "last layer", "all": "all layers"}
    layer = layers[getattr(backbone, "importance_layers", "last")]
    return ", ".join([type(backbone).__name__, *names, layer])


def write_attention(folder: Path, method: Method, found: ClipAttention) -> dict[str, Any]:
    """`attention.json` of a run folder; returns what it holds."""
    share = found.share.mean(0).tolist()
    values: dict[str, Any] = {}
    for name, column in (("activated_joints", found.activated), ("red_joints", found.red)):
        values[name] = round(float(column.mean()), 4)
        values[f"{name}_std"] = round(float(column.std(correction=0)), 4)
    values |= {
        "joints": len(method.skeleton),
        "clips": len(found.activated),
        "read_from": read_from(method.backbone),
        "definition": DEFINITION,
        "share": {
            joint: round(one, 6) for joint, one in zip(method.skeleton.joints, share, strict=True)
        },
    }
    write_atomically(folder / "attention.json", (json.dumps(values, indent=2) + "\n").encode())
    return values
