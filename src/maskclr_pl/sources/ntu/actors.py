"""Which of the bodies in a raw NTU RGB+D file are the actors.

The sensor also tracks chairs, doors and reflections, loses people and finds them again under
another id. The rules are those of the published preprocessing (CTR-GCN's, which STTFormer, MAMP and
others use unchanged; its constants and order are kept).
"""

from collections.abc import Callable, Sequence

import numpy as np

from maskclr_pl.sources.ntu.parser import Body

_SHORT = 11  # frames; a body seen in no more is noise
_SPREAD = 0.8  # width / height of a body beyond which a frame is noise
_NOISY = 0.69754  # share of noisy frames from which on a body is noise

Slots = list[list[Body]]


def actors(bodies: Sequence[Body]) -> Slots:
    """Choose the actors and assign them to one or two slots.

    A single body is taken as it is. Of several,

    1. those seen in 11 frames or fewer are dropped (unless all are);
    2. those of which at least 69.754 % of the frames are wider than 0.8 of their height are
       dropped, but never the last one left: this removes furniture and reflections, which are
       flat, such as the second body in all frames of S001C001P003R002A005;
    3. the rest is ordered by motion, the sum over x, y, z of the variance over all frames and
       joints, or over the frames that are not too wide if that is less;
    4. in this order each goes to the first slot whose time span it overlaps in one frame at most,
       and is dropped if it overlaps both.

    Time is that of the file. (The published scripts close the gap of a body that leaves and
    returns, and take the second slot for occupied from frame 0 on once it is used at all.) A frame
    of a body in which all joints are exactly zero counts as absent.

    Returns:
        The bodies of the first actor, and those of the second if there is one. Later ones have the
        right to a frame that two of them share. Empty if there is no body at all.
    """
    left = [body[seen] for body in bodies if (seen := (body.joints != 0).any((1, 2))).any()]
    if len(left) > 1:
        left = [body for body in left if len(body.frames) > _SHORT] or left
    slots: Slots = []
    spans: list[tuple[int, int]] = []
    for body in left if len(left) < 2 else _by_motion(left):
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


def assemble(slots: Slots, values: Callable[[Body], np.ndarray]) -> np.ndarray:
    """Values of the actors on a common time axis.

    Args:
        slots: At least one, as `actors` returns them.
        values: What is wanted of a body: (n, 25, ...), one row per frame in which it was seen.

    Returns:
        (M, T, 25, ...) in the type of the values, zeros where an actor is absent. T counts the
        frames in which there is any actor; the others are left out, as published.
    """
    kept = np.unique(np.concatenate([body.frames for slot in slots for body in slot]))
    example = values(slots[0][0])
    clip = np.zeros((len(slots), len(kept), *example.shape[1:]), example.dtype)
    for actor, slot in zip(clip, slots, strict=True):
        for body in slot:
            actor[np.searchsorted(kept, body.frames)] = values(body)
    return clip


def _by_motion(bodies: Sequence[Body]) -> list[Body]:
    """Drop the bodies that are too wide; the rest, most motion first."""
    motions: list[float] = []
    left: list[Body] = []
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused later
        for number, body in enumerate(bodies):
            low, high = body.joints.min(1), body.joints.max(1)
            noisy = high[:, 0] - low[:, 0] > _SPREAD * (high[:, 1] - low[:, 1])
            others = len(left) + len(bodies) - number - 1
            if noisy.mean() >= _NOISY and others:
                continue
            motion = _motion(body)
            if noisy.any() and noisy.mean() < _NOISY:
                motion = min(motion, _motion(body[~noisy]))
            left.append(body)
            motions.append(motion)
    return [left[i] for i in sorted(range(len(left)), key=lambda i: -motions[i])]


def _motion(body: Body) -> float:
    return float(body.joints.reshape(-1, 3).var(0, dtype=np.float64).sum())
