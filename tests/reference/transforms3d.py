"""3D transforms of one clip (M, T, V, 3), joint by joint, in double precision."""

import math

import numpy as np


def there(joint: np.ndarray) -> bool:
    return any(value != 0 for value in joint)


def mean(clip: np.ndarray, m: int, t: int) -> np.ndarray:
    joints = [clip[m, t, v] for v in range(clip.shape[2]) if there(clip[m, t, v])]
    return np.mean(joints, axis=0) if joints else np.zeros(3)


def place(clip: np.ndarray, m: int, t: int, joint: int) -> np.ndarray:
    """Where the joint of a person is, else was last, else will be first, else the mean."""
    known = [s for s in range(clip.shape[1]) if there(clip[m, s, joint])]
    if not known:
        return mean(clip, m, t)
    return clip[m, max([s for s in known if s <= t], default=known[0]), joint]


def center(clip: np.ndarray, joint: int, per_frame: bool) -> np.ndarray:
    clip = clip.astype(np.float64)
    out = np.zeros(clip.shape)
    for m, t, v in np.ndindex(clip.shape[:3]):
        if not there(clip[m, t, v]):
            continue
        who, when = m, t
        if not per_frame:
            who, when = next(
                (i, s)
                for i in range(clip.shape[0])
                for s in range(clip.shape[1])
                if any(there(clip[i, s, u]) for u in range(clip.shape[2]))
            )
        out[m, t, v] = clip[m, t, v] - place(clip, who, when, joint)
    return out


def face_view(clip: np.ndarray, left: int, right: int) -> np.ndarray:
    clip = clip.astype(np.float64)
    out = clip.copy()
    for m in range(clip.shape[0]):
        angles: list[float | None] = []
        for t in range(clip.shape[1]):
            a, b = clip[m, t, left], clip[m, t, right]
            dx, dz = b[0] - a[0], b[2] - a[2]
            usable = there(a) and there(b) and math.hypot(dx, dz) > 1e-4
            angles.append(math.atan2(dz, dx) if usable else None)
        first = next((angle for angle in angles if angle is not None), 0.0)
        last = first
        for t, angle in enumerate(angles):
            last = last if angle is None else angle
            cos, sin = math.cos(last), math.sin(last)
            for v in range(clip.shape[2]):
                x, y, z = clip[m, t, v]
                out[m, t, v] = cos * x + sin * z, y, cos * z - sin * x
    return out


def resize(clip: np.ndarray, start: int, length: int, frames: int) -> np.ndarray:
    """Linear between two frames that both show the joint, else the nearer one."""
    clip = clip.astype(np.float64)
    out = np.zeros((clip.shape[0], frames, *clip.shape[2:]))
    for m, i, v in np.ndindex(clip.shape[0], frames, clip.shape[2]):
        time = min(max((i + 0.5) * length / frames - 0.5, 0.0), length - 1.0)
        below = math.floor(time)
        above, part = min(below + 1, length - 1), time - below
        a, b = clip[m, start + below, v], clip[m, start + above, v]
        if there(a) and there(b):
            out[m, i, v] = (1 - part) * a + part * b
        else:
            out[m, i, v] = a if part <= 0.5 else b
    return out


def blur(clip: np.ndarray, sigma: float, taps: int, normalize: bool) -> np.ndarray:
    clip = clip.astype(np.float64)
    out = np.zeros(clip.shape)
    for m, t, v in np.ndindex(clip.shape[:3]):
        if not there(clip[m, t, v]):
            continue
        total = 0.0
        for offset in range(-(taps // 2), taps // 2 + 1):
            s = t + offset
            if 0 <= s < clip.shape[1] and there(clip[m, s, v]):
                weight = math.exp(-(offset**2) / (2 * sigma**2))
                out[m, t, v] += weight * clip[m, s, v]
                total += weight
        if normalize:
            out[m, t, v] /= total
    return out


def stream(clip: np.ndarray, parents: tuple[int, ...], kind: str, confidence: bool) -> np.ndarray:
    """Differences; the confidence is the smallest of those that take part."""
    clip = clip.astype(np.float64)
    size = 2 if confidence else 3
    out = np.zeros(clip.shape)
    M, T, V, _ = clip.shape
    for m, t, v in np.ndindex(M, T, V):
        terms = [(t, v, 1)]
        if kind.startswith("bone"):
            terms += [(t, parents[v], -1)]
        if kind.endswith("motion"):
            terms = [(s + 1, u, sign) for s, u, sign in terms] + [
                (s, u, -sign) for s, u, sign in terms
            ]
        if any(s >= T or u < 0 for s, u, _ in terms):
            continue
        parts = [(clip[m, s, u], sign) for s, u, sign in terms]
        if confidence:
            out[m, t, v, 2] = min(part[2] for part, _ in parts)
            usable = out[m, t, v, 2] > 0
        else:
            usable = all(there(part) for part, _ in parts)
        if usable:
            out[m, t, v, :size] = sum(sign * part[:size] for part, sign in parts)
    return out
