"""Spellings of joint names: `LShoulder`, `shoulder_l` and `Left Shoulder` are `left_shoulder`."""

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")
_SIDES = {
    "left": "left",
    "lft": "left",
    "l": "left",
    "right": "right",
    "rgt": "right",
    "r": "right",
}
_OTHER = {"left": "right", "right": "left"}
Side = tuple[str, tuple[str, ...]]
"""Left or right, and the words beside it."""


def canonical_names(joints: Sequence[str]) -> tuple[str, ...]:
    """Joint names in the spelling of the named layouts: lower case, joined by `_`, the side first.

    A side is the word left or right anywhere in a name. The letters l and r are sides where the
    layout has both: as a word (`l_hip`, `HipR`), or as the first or last letter (`lhip`, `LSHO`).

    Args:
        joints: The names of a layout.

    Returns:
        One name per joint; all as they are if two would become the same.

    Example:
        >>> canonical_names(["Head", "LShoulder", "RShoulder", "hand tip left"])
        ('head', 'left_shoulder', 'right_shoulder', 'left_hand_tip')
    """
    words = [tuple(word.lower() for word in _WORD.findall(joint)) for joint in joints]
    sides = _paired([_side(one) for one in words])
    glued = [() if side else _glued(one) for one, side in zip(words, sides, strict=True)]
    for readings in zip(*(one or ("", "") for one in glued), strict=True):  # first, last letter
        found = _paired([(*reading, False) if reading else None for reading in readings])
        sides = [side or other for side, other in zip(sides, found, strict=True)]
    names = tuple(
        "_".join((side[0], *side[1]) if side else one) if one and joint.isascii() else joint
        for joint, one, side in zip(joints, words, sides, strict=True)
    )
    return names if len(set(names)) == len(set(joints)) else tuple(joints)


def _side(words: Sequence[str]) -> tuple[str, tuple[str, ...], bool] | None:
    """Side and other words of a name, and whether the side is written out."""
    places = [i for i, word in enumerate(words) if word in _SIDES]
    if len(places) != 1 or len(words) == 1:
        return None
    [place] = places
    word = words[place]
    return _SIDES[word], (*words[:place], *words[place + 1 :]), len(word) > 1


def _glued(words: Sequence[str]) -> tuple[Side | str, ...]:
    """A name read with its first letter as the side, and with its last one; "" if it is none."""
    name = "_".join(words)
    readings = ((name[:1], name[1:]), (name[-1:], name[:-1]))
    return tuple(
        (_SIDES[letter], (rest,)) if letter in _SIDES and len(rest) > 1 else ""
        for letter, rest in readings
    )


def _paired(sides: Sequence[tuple[str, tuple[str, ...], bool] | None]) -> list[Side | None]:
    """The sides that are written out, or that have a partner on the other side."""
    there = Counter(side[:2] for side in sides if side)
    return [
        side[:2] if side and (side[2] or (_OTHER[side[0]], side[1]) in there) else None
        for side in sides
    ]
