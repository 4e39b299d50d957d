"""Transforms of one clip (M, T, V, 3), point by point, in double precision."""

import math

import numpy as np


def crop_scale(clip: np.ndarray, ratio: float) -> np.ndarray:
    """Box over everything seen to [-1, 1] / ratio; what is not seen becomes zero."""
    out = np.zeros(clip.shape)
    seen = [i for i in np.ndindex(clip.shape[:3]) if clip[i][2] != 0]
    if len(seen) < 4:
        return out
    xs, ys = [float(clip[i][0]) for i in seen], [float(clip[i][1]) for i in seen]
    side = ratio * max(max(xs) - min(xs), max(ys) - min(ys))
    if side == 0:
        return out
    centre = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
    for i in seen:
        for axis in (0, 1):
            out[i][axis] = min(1.0, max(-1.0, 2 * (float(clip[i][axis]) - centre[axis]) / side))
        out[i][2] = min(1.0, float(clip[i][2]))
    return out


def random_move(
    clip: np.ndarray,
    angle: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    center: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Rotation and scale about a point, and shift; linear between the first and last frame."""
    out = np.zeros(clip.shape)
    frames = clip.shape[1]
    for m, t, v in np.ndindex(clip.shape[:3]):
        x, y, score = (float(value) for value in clip[m, t, v])
        if score == 0:
            continue
        u = t / (frames - 1) if frames > 1 else 0.0
        a, s, tx, ty = (
            float(ends[0]) * (1 - u) + float(ends[1]) * u
            for ends in (angle, scale, shift[0], shift[1])
        )
        cos, sin = math.cos(math.radians(a)), math.sin(math.radians(a))
        x, y = x - center[0], y - center[1]
        x, y = s * (cos * x - sin * y), s * (sin * x + cos * y)
        out[m, t, v] = x + center[0] + tx, y + center[1] + ty, score
    return out
