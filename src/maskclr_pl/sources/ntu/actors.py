"""Selection of the actors among the bodies of a raw NTU RGB+D file.

The sensor also tracks chairs, doors and reflections, loses people and finds them again under
another id. The rules are those of the published preprocessing (CTR-GCN's, which STTFormer, MAMP and
others use unchanged), with the same constants and order.
"""

from collections.abc import Callable, Sequence

import numpy as np

from maskclr_pl.sources.ntu.parser import Body

_MIN_FRAMES = 11  # a body seen in no more frames is noise
_MAX_WIDTH = 0.8  # width / height of a body above which a frame is noisy
_NOISY_SHARE = 0.69754  # share of noisy frames from which a body is noise

Slots = list[list[Body]]


def select_actors(bodies: Sequence[Body]) -> Slots:
    """Select the actors and assign them to one or two slots.

    A single body is used without checks. Of several,

    1. those seen in 11 frames or fewer are dropped (unless all are);
    2. those of which at least 69.754 % of the frames are wider than 0.8 of their height are
       dropped, but never the last one left: this removes flat furniture and reflections such as
       the second body in all frames of S001C001P003R002A005;
    3. the rest is ordered by motion, the sum over x, y, z of the variance over all frames and
       joints, or over the frames that are not too wide if that is less;
    4. in this order each goes to the first slot whose time span it overlaps in one frame at most,
       and is dropped if it overlaps both.

    Time is that of the file. (The published scripts close the gap of a body that leaves and
    returns, and take the second slot for occupied from frame 0 on once it is used at all.) A frame
    of a body in which all joints are exactly zero counts as absent.

    Returns:
        The bodies of the first actor, and those of the second if there is one; empty without any
        body. In a frame that two bodies of a slot share, the later one is used.
    """
    seen = [(body.joints != 0).any((1, 2)) for body in bodies]
    candidates = [body[rows] for body, rows in zip(bodies, seen, strict=True) if rows.any()]
    if len(candidates) > 1:
        long = [body for body in candidates if len(body.frames) > _MIN_FRAMES]
        candidates = _sort_by_motion(long or candidates)
    slots: Slots = []
    spans: list[tuple[int, int]] = []
    for body in candidates:
        first, last = int(body.frames[0]), int(body.frames[-1])
        for slot, (begin, end) in enumerate(spans):
            if min(end, last) - max(begin, first) <= 0:
                slots[slot].append(body)
                spans[slot] = min(begin, first), max(end, last)
                break
        else:
            if len(slots) < 2:
                slots.append([body])
                spans.append((first, last))
    return slots


def stack_actors(slots: Slots, values: Callable[[Body], np.ndarray]) -> np.ndarray:
    """Stack values of the actors on a common time axis.

    Args:
        slots: At least one, from `select_actors`.
        values: Returns the (n, 25, ...) values of a body, a row per frame in which it was seen.

    Returns:
        (M, T, 25, ...) in the type of the values, zeros where an actor is absent. T counts the
        frames with any actor; the others are left out, as published.
    """
    frames = np.unique(np.concatenate([body.frames for slot in slots for body in slot]))
    example = values(slots[0][0])
    clip = np.zeros((len(slots), len(frames), *example.shape[1:]), example.dtype)
    for actor, slot in zip(clip, slots, strict=True):
        for body in slot:
            actor[np.searchsorted(frames, body.frames)] = values(body)
    return clip


def _sort_by_motion(bodies: Sequence[Body]) -> list[Body]:
    """Drop bodies that are too wide and sort the rest by falling motion."""
    if len(bodies) < 2:
        return list(bodies)
    motions: list[float] = []
    selected: list[Body] = []
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused later
        for index, body in enumerate(bodies):
            low, high = body.joints.min(1), body.joints.max(1)
            noisy = high[:, 0] - low[:, 0] > _MAX_WIDTH * (high[:, 1] - low[:, 1])
            others = len(selected) + len(bodies) - index - 1
            if noisy.mean() >= _NOISY_SHARE and others:
                continue
            motion = _motion(body)
            if noisy.any() and noisy.mean() < _NOISY_SHARE:
                motion = min(motion, _motion(body[~noisy]))
            selected.append(body)
            motions.append(motion)
    return [selected[i] for i in sorted(range(len(selected)), key=lambda i: -motions[i])]


def _motion(body: Body) -> float:
    return float(body.joints.reshape(-1, 3).var(0, dtype=np.float64).sum())
