"""The text format of the raw NTU RGB+D skeleton files.

Numbers separated by white space: the frame count; per frame the body count; per body 10 values (the
first is the tracking id), the joint count 25, and per joint 12 values: x y z in metres, depth x y,
colour x y in pixels of 1920 x 1080, an orientation of 4 values, and the tracking state.

The whole file is read at once with array operations. Only the columns that are needed become
numbers; the others are skipped and may hold anything.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8, UInt64

from maskclr_pl.types import InputError

JOINTS = 25
_BODY = 11  # tokens of a body before its joints
_JOINT = 12
_TOKENS = _BODY + JOINTS * _JOINT  # of a body
_METRES, _COLOR, _STATE = (0, 1, 2), (5, 6), 11
_LONGEST = 400  # characters of a number; a double has fewer even without an exponent
_BLOCK = 1 << 15  # characters at a time
_NUMBERS = 1 << 12  # tokens at a time


@dataclass(frozen=True)
class Body:
    """What the sensor tracked under one id.

    Args:
        frames: (n,) the frames of the file in which it was seen, ascending.
        joints: (n, 25, 3) x, y, z in metres, camera space.
        color: (n, 25, 2) x, y in pixels of the colour image; None if they were not asked for. May
            lie outside of the image, and be NaN or infinite.
        state: (n, 25) 2 tracked, 1 inferred, 0 not tracked.
    """

    frames: Int64[np.ndarray, " n"]
    joints: Float32[np.ndarray, "n 25 3"]
    color: Float32[np.ndarray, "n 25 2"] | None
    state: UInt8[np.ndarray, "n 25"]

    def __getitem__(self, rows: Bool[np.ndarray, " n"] | Int64[np.ndarray, " k"]) -> "Body":
        """The body in some of its frames."""
        color = None if self.color is None else self.color[rows]
        return Body(self.frames[rows], self.joints[rows], color, self.state[rows])


def parse(data: bytes, file: str, *, color: bool = False) -> list[Body]:
    """The bodies in a `.skeleton` file, in the order in which they appear.

    Every number is the float32 nearest to what `float` makes of the text.

    Args:
        data: Content of the file.
        file: Its name, for error messages.
        color: Whether to read the colour coordinates too.

    Raises:
        InputError: If the file is cut short, has more than it announces, or does not have the
            structure above.
    """
    tokens = _Tokens(data, file)
    frame, first = _bodies(tokens)
    _check_joint_counts(tokens, frame, first + _BODY - 1)
    state = _states(tokens, frame, _columns(first, _STATE))
    xyz = tokens.numbers(_columns(first, *_METRES)).reshape(-1, JOINTS, 3)
    xy = tokens.numbers(_columns(first, *_COLOR)).reshape(-1, JOINTS, 2) if color else None
    everything = Body(frame, xyz, xy, state)
    rows: dict[bytes, list[int]] = {}
    for row, word in enumerate(tokens.words(first)):
        rows.setdefault(word, []).append(row)
    for word in rows:
        if not word.isdigit():
            raise InputError(f"{file}: expected the id of a body, found {_shown(word)}")
    bodies = [everything[np.array(own)] for own in rows.values()]
    if any((np.diff(body.frames) == 0).any() for body in bodies):
        raise InputError(f"{file}: a frame holds two bodies with the same id")
    return bodies


def _columns(first: Int64[np.ndarray, " n"], *columns: int) -> Int64[np.ndarray, "n k"]:
    """The tokens in some columns of all joints, joint by joint."""
    offsets = np.arange(_BODY, _TOKENS, _JOINT)[:, None] + np.array(columns)
    return first[:, None] + offsets.ravel()


class _Tokens:
    """The words of a text, found in one pass.

    The work is done in blocks: arrays below 128 KB stay in the cache, and in this process when they
    are freed; with larger ones reading takes up to twice as long.
    """

    def __init__(self, data: bytes, file: str):
        self.file = file
        self.data = b" " + data + b" " * 16  # edges at both ends, and no window leaves the text
        self.text: UInt8[np.ndarray, " n"] = np.frombuffer(self.data, np.uint8)
        edge, count = np.empty(len(self.text), np.int32), 0
        for begin in range(0, len(self.text), _BLOCK):
            space = self.text[begin : begin + _BLOCK + 1] <= ord(" ")
            found = np.flatnonzero(space[1:] != space[:-1])
            room = edge[count : count + len(found)]
            np.add(found, begin + 1, out=room, casting="same_kind")
            count += len(found)
        self.start, self.end = edge[:count:2], edge[1:count:2]

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, token: int) -> bytes:
        return self.data[self.start[token] : self.end[token]]

    def words(self, token: Int64[np.ndarray, " n"]) -> list[bytes]:
        """Tokens as they stand."""
        span = zip(self.start[token].tolist(), self.end[token].tolist(), strict=True)
        return [self.data[start:end] for start, end in span]

    def count(self, token: int, what: str) -> int:
        """A token as an integer from 0."""
        word = self[token]
        if not word.isdigit() or len(word) > _LONGEST:
            raise InputError(f"{self.file}: expected {what}, found {_shown(word)}")
        return int(word)

    def numbers(self, token: Int64[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """Tokens as numbers."""
        flat = token.ravel()
        values = np.empty(len(flat), np.float32)
        with np.errstate(over="ignore"):  # what does not fit into float32 becomes infinite
            for begin in range(0, len(flat), _NUMBERS):
                block = flat[begin : begin + _NUMBERS]
                start, end = self.start[block].astype(np.int64), self.end[block].astype(np.int64)
                numbers, plain = decimals(self.text, start, end)
                others = np.flatnonzero(~plain)
                numbers[others] = [self._number(word) for word in self.words(block[others])]
                values[begin : begin + len(block)] = numbers
        return values.reshape(token.shape)

    def _number(self, word: bytes) -> float:
        try:
            if b"_" in word or len(word) > _LONGEST:  # what `float` takes but no file means
                raise ValueError
            return float(word)
        except ValueError:
            raise InputError(f"{self.file}: expected a coordinate, found {_shown(word)}") from None


def _bodies(tokens: _Tokens) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Walk through the file: the frame and the first token of each body."""
    if not len(tokens):
        raise InputError(f"{tokens.file}: the file is empty")
    total, frames = len(tokens), tokens.count(0, "the number of frames")
    position = 1
    counts: list[int] = []
    for frame in range(frames):
        if position >= total:
            raise InputError(f"{tokens.file}: cut short, it has {frame} of {frames} frames")
        counts.append(tokens.count(position, "a number of bodies"))
        position += 1 + counts[-1] * _TOKENS
        if position > total:
            raise InputError(f"{tokens.file}: cut short in frame {frame} of {frames}")
    if position < total:
        raise InputError(
            f"{tokens.file}: goes on after the {frames} frames that it announces, with "
            f"{_shown(tokens[position])}"
        )
    frame_of = np.repeat(np.arange(frames), counts)
    # each frame has its body count before its bodies, the file has its frame count
    return frame_of, np.arange(len(frame_of)) * _TOKENS + frame_of + 2


def _check_joint_counts(
    tokens: _Tokens, frame: Int64[np.ndarray, " n"], token: Int64[np.ndarray, " n"]
) -> None:
    start = tokens.start[token]
    good = tokens.end[token] - start == 2
    good &= (tokens.text[start] == ord("2")) & (tokens.text[start + 1] == ord("5"))
    if not good.all():
        bad = int(np.argmin(good))
        word = _shown(tokens[int(token[bad])])
        raise InputError(
            f"{tokens.file}: a body of frame {frame[bad]} announces {word} joints, expected 25"
        )


def _states(
    tokens: _Tokens, frame: Int64[np.ndarray, " n"], token: Int64[np.ndarray, "n 25"]
) -> UInt8[np.ndarray, "n 25"]:
    """The tracking states. They end the lines, so a value too few or too many shows here."""
    start = tokens.start[token]
    state = tokens.text[start] - np.uint8(ord("0"))  # what is below "0" wraps around
    good = (state <= 2) & (tokens.end[token] - start == 1)
    if not good.all():
        body, joint = (int(i) for i in np.argwhere(~good)[0])
        word = _shown(tokens[int(token[body, joint])])
        raise InputError(
            f"{tokens.file}: joint {joint} of a body of frame {frame[body]} has tracking state "
            f"{word}, expected 0, 1 or 2 as the last of 12 values"
        )
    return state


def _shown(word: bytes) -> str:
    text = word[:24].decode("latin-1")
    return repr(text + "..." if len(word) > 24 else text)


def _repeat(byte: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([byte]) * 8, "little"))


_ZERO, _POINT, _ONE, _ABOVE_NINE, _TOP = (_repeat(byte) for byte in (0x30, 0x2E, 1, 0x76, 0x80))
_POWERS = 10.0 ** np.arange(16)


def decimals(
    text: UInt8[np.ndarray, " n"], start: Int64[np.ndarray, " k"], end: Int64[np.ndarray, " k"]
) -> tuple[Float64[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
    """Numbers like `-12.345678`: 1 to 7 digits before the point and up to 8 after it.

    Eight characters at a time are one 64-bit integer, the first character in its lowest byte. Both
    parts have at most 15 digits together, so that they make an exact float64 and a single division
    by a power of ten rounds as `float` does.

    Args:
        text: Characters, with at least 16 more after the last token.
        start: Where the tokens begin.
        end: Where they end.

    Returns:
        values: The numbers.
        plain: Which tokens have that form; the values of the others mean nothing.
    """
    negative = text[start] == ord("-")
    first = start + negative
    # windows of 16 characters at every offset, without a copy
    windows = np.ndarray((len(text) - 15,), "V16", text.data, strides=(1,))
    head, tail = windows[first].view("<u8").reshape(-1, 2).T
    before = _first_point(head)
    after = end - first - before - 1
    skipped = (before.view(np.uint64) + np.uint64(1)) << np.uint64(3)  # bits up to the point
    fraction = (head >> skipped) | (tail << (np.uint64(64) - skipped))
    # the digits that belong to the number move to the top, what follows them is shifted out
    length = np.concatenate([before, after]).view(np.uint64)  # -1 becomes huge
    digits = np.concatenate([head, fraction]) ^ _ZERO
    digits <<= np.uint64(64) - (length << np.uint64(3))
    good = ((digits + _ABOVE_NINE | digits) & _TOP) == 0  # every byte is 0 to 9
    good &= length <= 8
    whole, parts = _eight_digits(digits).astype(np.float64).reshape(2, -1)
    power = _POWERS[after & 15]
    values = (whole * power + parts) / power
    plain = good[: len(start)] & good[len(start) :] & (before > 0)
    return np.where(negative, -values, values), plain


def _first_point(word: UInt64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
    """Index of the first `.` among eight characters, negative if there is none."""
    rest = word ^ _POINT
    high = (rest - _ONE) & ~rest & _TOP  # its lowest bit marks the first byte that is zero
    lowest = (high & (~high + np.uint64(1))).astype(np.float64)
    # the exponent of a power of two is its logarithm; that of zero is negative
    return ((lowest.view(np.int64) >> 52) - 1023) >> 3


def _eight_digits(word: UInt64[np.ndarray, " k"]) -> UInt64[np.ndarray, " k"]:
    """The number with these digits, most significant in the lowest byte; `word` is used up."""
    for bits, mask in ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0xFFFFFFFF)):
        # neighbours a, b become 10^n a + b, where b stands; the mask clears what stood beside
        word *= np.uint64((10 ** (bits // 8) << bits) + 1)
        word >>= np.uint64(bits)
        word &= np.uint64(mask)
    return word
