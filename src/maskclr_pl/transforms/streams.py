"""Input streams of a model: joints, bones, or the motion of either."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.errors import InputError
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.transforms.base import join, planes, visible_weight

StreamKind = Literal["joint", "bone", "joint_motion", "bone_motion"]


class Stream(nn.Module):
    """Turn joint positions into a stream; the last step before the model.

    A bone is a joint minus its parent (zero for a root), a motion is the next frame minus this one
    (zero in the last frame), as in MAMP, STTFormer, AimCLR and CrosSCLR. A difference with a
    missing joint is zero. The confidence of a difference is the smaller of the two.

    Args:
        skeleton: Layout of the clips, a `Skeleton` or its `to_dict`.
        kind: joint, bone, joint_motion or bone_motion.
        confidence: Whether channel 2 is a confidence rather than z.

    Raises:
        InputError: If the kind is unknown.

    Example:
        >>> from maskclr_pl.skeletons import load_skeleton
        >>> stream = Stream(load_skeleton("ntu25"), kind="bone", confidence=False)
        >>> stream(torch.randn(8, 2, 120, 25, 3)).shape
        torch.Size([8, 2, 120, 25, 3])
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
        """Return the stream of a clip."""
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
        origin = values.index_select(-1, self.parents)
        smaller = weight.minimum(weight.index_select(-1, self.parents))
        return values - origin, smaller * self.rooted

    @staticmethod
    def _motion(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        motion = values[..., 1:, :] - values[..., :-1, :]
        smaller = torch.minimum(weight[..., 1:, :], weight[..., :-1, :])
        last_frame = (0, 0, 0, 1)
        return F.pad(motion, last_frame), F.pad(smaller, last_frame)
