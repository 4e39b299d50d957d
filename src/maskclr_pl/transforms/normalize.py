"""Deterministic steps from a recording to a clip: image units, identities, joint layout."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskclr_pl.skeletons.skeleton import Skeleton, conversion_matrix
from maskclr_pl.transforms.base import join, planes, visible_weight
from maskclr_pl.types import InputError


def image_normalize(keypoint: np.ndarray, frame_size: Sequence[int]) -> np.ndarray:
    """Pixels to units in which the longer image side spans [-1, 1]: 2 p / max(h, w) - 1.

    Both axes are divided by the same side and share an origin, as in MotionBERT.

    Args:
        keypoint: (..., 2) pixels.
        frame_size: (height, width).

    Returns:
        (..., 2) float32.
    """
    return keypoint.astype(np.float32) * np.float32(2 / max(frame_size)) - np.float32(1)


def find_identity_swaps(keypoint: np.ndarray, score: np.ndarray | None) -> np.ndarray:
    """Where a detector exchanged the two persons.

    MotionBERT's rule: the identities flip at frame t if person 0 is nearer to where person 1
    was at t - 1 than to where person 0 was. A step in which one of the persons compared
    is not there (all scores 0) decides nothing; the released code compares with its zeros.

    Args:
        keypoint: (2, T, V, 2) coordinates.
        score: (2, T, V) confidence. None: every step decides, as in the released code.

    Returns:
        (T,) bool, True where the two persons are to be exchanged (scores along with coordinates).
    """
    first, before = keypoint[0, 1:], keypoint[:, :-1]
    keep, swap = np.linalg.norm(first - before, axis=-1).sum(-1)
    nearer = keep > swap
    if score is not None:
        visible = np.any(score > 0, axis=-1)
        nearer &= visible[0, 1:] & visible[0, :-1] & visible[1, :-1]
    flips = np.concatenate([[False], nearer])
    swapped: np.ndarray = np.cumsum(flips) % 2 == 1
    return swapped


class Convert(nn.Module):
    """Joints of one layout to those of another; the confidence of each joint goes along.

    A joint that is built from several has the smallest of their confidences (the released code
    leaves the confidences in the order of the source). In metres, where a zero triple is a joint
    that is missing, it is missing if one of them is. Joints that cannot be built are zeros.

    Args:
        source: Layout of the clips.
        target: Layout to convert to; a plain dict (`Skeleton.to_dict`) is accepted for both.
        confidence: Whether channel 2 is a confidence rather than z.
        released_scores: Leave the confidences in the order of the source, which must have as many
            joints: what the published checkpoints were trained with.

    Raises:
        InputError: If the released order is asked for between layouts of different size.
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
        weights, self.missing = conversion_matrix(source, target)
        self.identity = source.joints == target.joints
        self.confidence, self.released_scores = confidence, released_scores
        if released_scores and len(source) != len(target):
            raise InputError(
                f"compat=released keeps the {len(source)} confidences of {source.name} for the "
                f"{len(target)} joints of {target.name}, which only works for equal numbers; type "
                "compat=none"
            )
        parts = [np.flatnonzero(row) for row in weights]
        means = [joint for joint, part in enumerate(parts) if len(part) > 1]
        width = max((len(parts[joint]) for joint in means), default=1)
        self.weights: Tensor
        self.means: Tensor
        self.means_of: Tensor
        for name, values in {
            "weights": torch.tensor(weights.T, dtype=torch.float32),
            "means": torch.tensor(means, dtype=torch.int64),
            # the joints that each mean is built from, repeated up to the same width
            "means_of": torch.tensor(
                np.array([np.resize(parts[joint], width) for joint in means], dtype=np.int64)
            ),
        }.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, clip: Float[Tensor, "*batch M T V 3"]) -> Float[Tensor, "*batch M T V2 3"]:
        """The clip in the target layout."""
        if self.identity:
            return clip
        channels = planes(clip)
        with torch.autocast(clip.device.type, enabled=False):  # 8 bits do not hold coordinates
            out = channels @ self.weights
        if len(self.means):
            known = channels[2] if self.confidence else visible_weight(channels)
            weakest = known[..., self.means_of].amin(-1)
            if self.confidence:
                out[2, ..., self.means] = weakest
            else:
                out[..., self.means] *= weakest
        if self.confidence and self.released_scores:
            out[2] = channels[2]
        elif self.confidence:
            out[:2] *= out[2].sign()
        return join(out)
