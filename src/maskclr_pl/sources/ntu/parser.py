"""The text format of the raw NTU RGB+D skeleton files.

Numbers separated by white space: the frame count; per frame the body count; per body 10 values (the
first is the tracking id), the joint count 25, and per joint 12 values: x y z in meters, depth x y,
color x y in pixels of 1920 x 1080, an orientation of 4 values, and the tracking state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from maskclr_pl.types import InputError

JOINTS = 25
_HEADER = 11  # tokens of a body before its joints
_PER_JOINT = 12
_PER_BODY = _HEADER + JOINTS * _PER_JOINT
_METERS, _COLOR, _STATE = (0, 1, 2), (5, 6), 11
_MAX_DIGITS = 400  # of a count
_STATES = {b"0", b"1", b"2"}


@dataclass(frozen=True)
class Body:
    """One body tracked by the sensor.

    Args:
        frames: (n,) the frames of the file in which it was seen, ascending.
        joints: (n, 25, 3) x, y, z in meters, camera space.
        color: (n, 25, 2) x, y in pixels of the color image; None unless requested. May lie outside
            of the image, and be NaN or infinite.
        state: (n, 25) 2 tracked, 1 inferred, 0 not tracked.
    """

    frames: Int64[np.ndarray, " n"]
    joints: Float32[np.ndarray, "n 25 3"]
    color: Float32[np.ndarray, "n 25 2"] | None
    state: UInt8[np.ndarray, "n 25"]

    def __getitem__(self, rows: Bool[np.ndarray, " n"] | Int64[np.ndarray, " k"]) -> "Body":
        """Select some of its frames."""
        color = None if self.color is None else self.color[rows]
        return Body(self.frames[rows], self.joints[rows], color, self.state[rows])


def parse(data: bytes, file: str, *, color: bool = False) -> list[Body]:
    """Read the bodies in a `.skeleton` file, in order of appearance.

    Columns that are not needed are skipped and may hold anything.

    Args:
        data: Content of the file.
        file: Its name, for error messages.
        color: Whether to read the color coordinates, too.

    Raises:
        InputError: If the file is cut short, has more than it announces, or does not have the
            structure above.
    """
    tokens = data.split()
    frames, starts = _locate_bodies(tokens, file)
    rows_by_id: dict[bytes, list[int]] = {}
    for row, start in enumerate(starts):
        if tokens[start + _HEADER - 1] != b"25":
            raise InputError(
                f"{file}: a body in frame {frames[row]} has {_shorten(tokens[start + _HEADER - 1])}"
                " joints, expected 25"
            )
        if not tokens[start].isdigit():
            raise InputError(f"{file}: expected a body id, found {_shorten(tokens[start])}")
        rows_by_id.setdefault(tokens[start], []).append(row)
    all_bodies = Body(
        np.array(frames, np.int64),
        _read_coordinates(tokens, starts, _METERS, file),
        _read_coordinates(tokens, starts, _COLOR, file) if color else None,
        _read_states(tokens, starts, frames, file),
    )
    bodies = [all_bodies[np.array(rows)] for rows in rows_by_id.values()]
    if any((np.diff(body.frames) == 0).any() for body in bodies):
        raise InputError(f"{file}: a frame holds two bodies with the same id")
    return bodies


def _locate_bodies(tokens: Sequence[bytes], file: str) -> tuple[list[int], list[int]]:
    """Return the frame and the index of the first token of each body."""
    if not tokens:
        raise InputError(f"{file}: the file is empty")
    total = _read_count(tokens[0], "the number of frames", file)
    position = 1
    frames: list[int] = []
    starts: list[int] = []
    for frame in range(total):
        if position >= len(tokens):
            raise InputError(f"{file}: cut short, it has {frame} of {total} frames")
        bodies = _read_count(tokens[position], "a number of bodies", file)
        end = position + 1 + bodies * _PER_BODY
        if end > len(tokens):
            raise InputError(f"{file}: cut short in frame {frame} of {total}")
        starts += range(position + 1, end, _PER_BODY)
        frames += [frame] * bodies
        position = end
    if position < len(tokens):
        raise InputError(
            f"{file}: continues after the announced {total} frames with "
            f"{_shorten(tokens[position])}"
        )
    return frames, starts


def _read_count(token: bytes, name: str, file: str) -> int:
    if not token.isdigit() or len(token) > _MAX_DIGITS:
        raise InputError(f"{file}: expected {name}, found {_shorten(token)}")
    return int(token)


def _column(tokens: Sequence[bytes], starts: Sequence[int], column: int) -> list[bytes]:
    """Return one of the 12 values of every joint of every body."""
    return list(
        chain.from_iterable(
            tokens[start + _HEADER + column : start + _PER_BODY : _PER_JOINT] for start in starts
        )
    )


def _read_coordinates(
    tokens: Sequence[bytes], starts: Sequence[int], columns: Sequence[int], file: str
) -> Float32[np.ndarray, "n 25 C"]:
    values = np.empty((len(starts), JOINTS, len(columns)), np.float32)
    for channel, column in enumerate(columns):
        words = _column(tokens, starts, column)
        try:
            if b"_" in b"".join(words):  # `float` would accept it
                raise ValueError
            numbers = np.array(list(map(float, words)))
        except ValueError:
            bad = next(word for word in words if not _is_number(word))
            raise InputError(f"{file}: expected a coordinate, found {_shorten(bad)}") from None
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite
            values[..., channel] = numbers.reshape(-1, JOINTS)
    return values


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word


def _read_states(
    tokens: Sequence[bytes], starts: Sequence[int], frames: Sequence[int], file: str
) -> UInt8[np.ndarray, "n 25"]:
    """Read the tracking states, which end the lines: a missing or extra value shows here."""
    words = _column(tokens, starts, _STATE)
    if not set(words) <= _STATES:
        index = next(i for i, word in enumerate(words) if word not in _STATES)
        body, joint = divmod(index, JOINTS)
        raise InputError(
            f"{file}: joint {joint} of a body in frame {frames[body]} has tracking state "
            f"{_shorten(words[index])}, expected 0, 1 or 2 as the last of 12 values"
        )
    return np.frombuffer(b"".join(words), np.uint8).reshape(-1, JOINTS) - np.uint8(ord("0"))


def _shorten(word: bytes) -> str:
    text = word[:24].decode("latin-1")
    return repr(text + "..." if len(word) > 24 else text)
