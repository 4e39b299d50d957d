"""Spellings of joint names: `LShoulder`, `shoulder_l` and `Left Shoulder` are `left_shoulder`."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")
_SIDES = dict.fromkeys(("left", "lft", "l"), "left") | dict.fromkeys(("right", "rgt", "r"), "right")
_OPPOSITE = {"left": "right", "right": "left"}


class _Reading(NamedTuple):
    """A joint name as a side and the other words."""

    side: str
    words: tuple[str, ...]
    is_certain: bool = False
    """True if the side is spelled out; a single letter needs a joint on the other side."""


def canonical_names(joints: Sequence[str]) -> tuple[str, ...]:
    """Spell joint names as the named layouts do: lower case, joined by `_`, the side first.

    The word left or right is a side anywhere in a name. The letters l and r are sides if the layout
    has both: as a word (`l_hip`, `HipR`), or as the first or last letter (`lhip`, `LSHO`).

    Args:
        joints: Joint names of a layout.

    Returns:
        One name per joint; the input if two joints would get the same name.

    Example:
        >>> canonical_names(["Head", "LShoulder", "RShoulder", "hand tip left"])
        ('head', 'left_shoulder', 'right_shoulder', 'left_hand_tip')
    """
    words = [tuple(word.lower() for word in _WORD.findall(joint)) for joint in joints]
    readings = _with_partner([_read_side_word(name) for name in words])
    has_side = [reading is not None for reading in readings]
    for letter in (slice(None, 1), slice(-1, None)):  # the first letter, then the last
        letters = _with_partner(
            [
                None if done else _read_side_letter("_".join(name), letter)
                for name, done in zip(words, has_side, strict=True)
            ]
        )
        readings = [old or new for old, new in zip(readings, letters, strict=True)]
    names = tuple(
        _spell(joint, name, reading)
        for joint, name, reading in zip(joints, words, readings, strict=True)
    )
    return names if len(set(names)) == len(set(joints)) else tuple(joints)


def _spell(joint: str, words: Sequence[str], reading: _Reading | None) -> str:
    if not words or not joint.isascii():
        return joint
    return "_".join((reading.side, *reading.words) if reading else words)


def _read_side_word(words: Sequence[str]) -> _Reading | None:
    """Read a name with exactly one word that is a side."""
    positions = [i for i, word in enumerate(words) if word in _SIDES]
    if len(positions) != 1 or len(words) == 1:
        return None
    [i] = positions
    return _Reading(_SIDES[words[i]], (*words[:i], *words[i + 1 :]), len(words[i]) > 1)


def _read_side_letter(name: str, letter: slice) -> _Reading | None:
    """Read the first or last letter of a name as a side."""
    side, rest = _SIDES.get(name[letter]), name[1:] if letter.stop else name[:-1]
    return _Reading(side, (rest,)) if side and len(rest) > 1 else None


def _with_partner(readings: Sequence[_Reading | None]) -> list[_Reading | None]:
    """Drop readings that are neither certain nor have a partner on the other side."""
    count = Counter((reading.side, reading.words) for reading in readings if reading)
    return [
        reading
        if reading and (reading.is_certain or (_OPPOSITE[reading.side], reading.words) in count)
        else None
        for reading in readings
    ]
