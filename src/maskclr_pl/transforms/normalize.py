"""Deterministic steps from a recording to a clip: image units, person identities, joint layout."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.errors import InputError
from maskclr_pl.skeletons.skeleton import Skeleton, conversion_matrix
from maskclr_pl.transforms.base import join, planes, visible_weight


def image_normalize(keypoint: np.ndarray, frame_size: Sequence[int]) -> np.ndarray:
    """Convert pixels to units in which the longer image side spans [-1, 1].

    x' = 2 x / max(h, w) - 1 for both axes, which share an origin, as in MotionBERT.

    Args:
        keypoint: (..., 2) pixels.
        frame_size: (height, width).

    Returns:
        (..., 2) float32.

    Example:
        >>> image_normalize(np.array([[960.0, 540.0]]), frame_size=(1080, 1920))
        array([[ 0.    , -0.4375]], dtype=float32)
    """
    return keypoint.astype(np.float32) * np.float32(2 / max(frame_size)) - np.float32(1)


def find_identity_swaps(keypoint: np.ndarray, score: np.ndarray | None) -> np.ndarray:
    """Find the frames in which a detector swapped two persons.

    MotionBERT's rule: identities flip at frame t if person 0 is nearer to where person 1 was at
    t - 1 than to where person 0 was. A step in which one of the compared persons is absent (all
    scores 0) decides nothing; the released code compares with the zeros.

    Args:
        keypoint: (2, T, V, 2) coordinates.
        score: (2, T, V) confidence. None: every step decides, as in the released code.

    Returns:
        (T,) bool, True where the two persons (coordinates and scores) must be swapped back.

    Example:
        >>> left, right = np.zeros((2, 17, 2)), np.ones((2, 17, 2))
        >>> left[1], right[1] = 1, 0  # they change places
        >>> find_identity_swaps(np.stack((left, right)), score=None)
        array([False,  True])
    """
    first, before = keypoint[0, 1:], keypoint[:, :-1]
    distance_0, distance_1 = np.linalg.norm(first - before, axis=-1).sum(-1)
    is_flip = distance_0 > distance_1
    if score is not None:
        visible = np.any(score > 0, axis=-1)
        is_flip &= visible[0, 1:] & visible[0, :-1] & visible[1, :-1]
    swapped: np.ndarray = np.cumsum(np.concatenate([[False], is_flip])) % 2 == 1
    return swapped


class Convert(nn.Module):
    """Convert the joints of one layout to those of another, with their confidences.

    A joint that is a mean of several has the smallest of their confidences (the released code
    leaves confidences in the order of the source). In metric clips it is missing if one of them is.
    Joints that cannot be built are zeros.

    Args:
        source: Layout of the clips, a `Skeleton` or its `to_dict`.
        target: Layout to convert to, likewise.
        confidence: Whether channel 2 is a confidence rather than z.
        released_scores: Leave confidences in the order of the source, which must have as many
            joints; the published checkpoints were trained so.

    Raises:
        InputError: If `released_scores` is used between layouts of different size.

    Example:
        >>> from maskclr_pl.skeletons import load_skeleton
        >>> convert = Convert(load_skeleton("ntu25"), load_skeleton("h36m17"), confidence=False)
        >>> convert(torch.randn(8, 2, 120, 25, 3)).shape
        torch.Size([8, 2, 120, 17, 3])
    """

    def __init__(
        self,
        source: Skeleton | dict[str, Any],
        target: Skeleton | dict[str, Any],
        confidence: bool = True,
        released_scores: bool = False,
    ):
        super().__init__()
        source, target = (
            skeleton if isinstance(skeleton, Skeleton) else Skeleton.from_dict(skeleton)
            for skeleton in (source, target)
        )
        if released_scores and len(source) != len(target):
            raise InputError(
                f"compat=released keeps the order of confidences, but {source.name} has "
                f"{len(source)} joints and {target.name} has {len(target)}; pass compat=none"
            )
        matrix, self.missing = conversion_matrix(source, target)
        self.identity = source.joints == target.joints
        self.confidence, self.released_scores = confidence, released_scores
        ingredients = [np.flatnonzero(row) for row in matrix]
        means = [joint for joint, joints in enumerate(ingredients) if len(joints) > 1]
        width = max((len(ingredients[joint]) for joint in means), default=1)
        # ingredients of each mean, repeated up to the same width
        means_of = np.array([np.resize(ingredients[i], width) for i in means], dtype=np.int64)
        self.weights: Tensor
        self.means: Tensor
        self.means_of: Tensor
        self.register_buffer("weights", torch.tensor(matrix.T, dtype=torch.float32), False)
        self.register_buffer("means", torch.tensor(means, dtype=torch.int64), False)
        self.register_buffer("means_of", torch.tensor(means_of), False)

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V2 3"]:
        """Return the clip in the target layout."""
        if self.identity:
            return clip
        channels = planes(clip)
        with torch.autocast(clip.device.type, enabled=False):  # 8 bits do not hold coordinates
            out = channels @ self.weights
        if len(self.means):
            weight = channels[2] if self.confidence else visible_weight(channels)
            smallest = weight[..., self.means_of].amin(-1)
            if self.confidence:
                out[2, ..., self.means] = smallest
            else:
                out[..., self.means] *= smallest
        if self.confidence and self.released_scores:
            out[2] = channels[2]
        elif self.confidence:
            out[:2] *= out[2].sign()
        return join(out)
