"""What a model sees of a clip: joints, bones, or the motion of either."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.transforms.base import join, planes, visible_weight
from maskclr_pl.types import InputError

StreamKind = Literal["joint", "bone", "joint_motion", "bone_motion"]


class Stream(nn.Module):
    """The last step before the model: coordinates, or differences of them.

    A bone is a joint minus its parent (zero for a root), a motion is the next frame minus this one
    (zero in the last frame), as in MAMP, STTFormer, AimCLR and CrosSCLR. A difference with
    something that is missing is zeros: 3D joints are missing if they are exactly zero (`Center`
    keeps the joint at the origin from being so), 2D joints if their confidence is 0. The
    confidence of a difference is the smaller of the two, 0 for what has no partner.

    Args:
        skeleton: Layout of the clips; a plain dict (`Skeleton.to_dict`) is accepted.
        kind: joint, bone, joint_motion or bone_motion.
        confidence: Whether channel 2 is a confidence rather than z.

    Raises:
        InputError: If the kind is unknown.
    """

    def __init__(self, skeleton: Skeleton | dict[str, Any], kind: str, confidence: bool):
        super().__init__()
        if kind not in get_args(StreamKind):
            raise InputError(f"stream={kind}: expected {', '.join(get_args(StreamKind))}")
        skeleton = skeleton if isinstance(skeleton, Skeleton) else Skeleton.from_dict(skeleton)
        self.kind, self.confidence = kind, confidence
        parents = torch.tensor(skeleton.bone_parents or skeleton.parents)
        self.parents: Tensor
        self.rooted: Tensor
        self.register_buffer("parents", parents.clamp(min=0), persistent=False)
        self.register_buffer("rooted", parents >= 0, persistent=False)

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V 3"]:
        """The stream of a clip, of the same shape."""
        if self.kind == "joint":
            return clip
        channels = planes(clip)
        values = channels[:2] if self.confidence else channels
        weight = channels[2] if self.confidence else visible_weight(channels)
        if self.kind.startswith("bone"):
            values, weight = self._bones(values, weight)
        if self.kind.endswith("motion"):
            values, weight = self._motion(values, weight)
        values = values * weight.sign()
        return join(torch.cat((values, weight.unsqueeze(0))) if self.confidence else values)

    def _bones(self, values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ends = values.index_select(-1, self.parents), weight.index_select(-1, self.parents)
        return values - ends[0], weight.minimum(ends[1]) * self.rooted

    @staticmethod
    def _motion(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        moved = values[..., 1:, :] - values[..., :-1, :]
        smaller = torch.minimum(weight[..., 1:, :], weight[..., :-1, :])
        last_frame = (0, 0, 0, 1)
        return F.pad(moved, last_frame), F.pad(smaller, last_frame)
