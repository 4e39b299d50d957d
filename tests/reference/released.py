"""The released data path of MotionBERT and MaskCLR, recording to network input, point by point.

Written from shared/spec/maskclr_spec.md, sections 1.3 to 1.9, in double precision (released: half).
"""

import math

import numpy as np

COCO_OF_H36M = [
    [11, 12], [12], [14], [16], [11], [13], [15], [11, 12, 5, 6], [5, 6], [0], [1, 2],
    [5], [7], [9], [6], [8], [10],
]  # fmt: skip


def exchanged(xy: np.ndarray) -> list[bool]:
    """In which frames the tracker exchanges the two persons (2, T, V, 2), present or not."""
    swapped = [False]
    for t in range(1, xy.shape[1]):
        keep = sum(math.dist(a, b) for a, b in zip(xy[0, t], xy[0, t - 1], strict=True))
        swap = sum(math.dist(a, b) for a, b in zip(xy[0, t], xy[1, t - 1], strict=True))
        swapped.append(swapped[-1] ^ (keep > swap))
    return swapped


def crop_scale(clip: np.ndarray, ratio: float) -> np.ndarray:
    """Every point of (M, T, V, 3) is moved, the box is that of points with confidence."""
    seen = [clip[i] for i in np.ndindex(clip.shape[:3]) if clip[i][2] != 0]
    if len(seen) < 4:
        return np.zeros(clip.shape)
    low = [min(p[axis] for p in seen) for axis in (0, 1)]
    high = [max(p[axis] for p in seen) for axis in (0, 1)]
    side = ratio * max(high[0] - low[0], high[1] - low[1])
    if side == 0:
        return np.zeros(clip.shape)
    out = np.array(clip, dtype=float)
    for i in np.ndindex(clip.shape[:3]):
        for axis in (0, 1):
            out[i][axis] = 2 * (clip[i][axis] - (low[axis] + high[axis]) / 2) / side
        out[i] = [min(1.0, max(-1.0, value)) for value in out[i]]
    return out


def network_input(
    keypoint: np.ndarray, score: np.ndarray, size: tuple[int, int], length: int, ratio: float = 2.0
) -> np.ndarray:
    """A recording in COCO's joints, of one or two persons, as the network is tested on it.

    Args:
        keypoint: (M, T, 17, 2) pixels.
        score: (M, T, 17), in which persons are never exchanged.
        size: (height, width) of the image.
        length: Frames wanted.
        ratio: Of the crop.

    Returns:
        (2, length, 17, 3).
    """
    persons, frames = keypoint.shape[:2]
    xy = 2 * keypoint.astype(float) / max(size) - 1
    if persons == 2:
        for t, swap in enumerate(exchanged(xy)):
            if swap:
                xy[:, t] = xy[::-1, t].copy()
    clip = np.zeros((2, length, 17, 3))
    for m in range(persons):
        for i in range(length):
            t = int(i * (frames / length))
            for joint, parts in enumerate(COCO_OF_H36M):
                clip[m, i, joint, :2] = np.mean([xy[m, t, part] for part in parts], axis=0)
                clip[m, i, joint, 2] = score[m, t, joint]  # in the order of COCO
    return crop_scale(clip, ratio)
