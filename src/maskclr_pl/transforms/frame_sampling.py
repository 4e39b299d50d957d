"""Choice of the frames of a recording that make a clip of fixed length."""

import numpy as np


def uniform_frames(frames: int, length: int, released: bool = False) -> np.ndarray:
    """Return evenly spaced frames, floor(i * frames / length) in exact arithmetic.

    MotionBERT's test-time resampling. The released code truncates a floating-point product and is
    one frame early for a few (frames, length).

    Args:
        frames: Length of the recording, at least 1.
        length: Length of the clip.
        released: Truncate as the released code does.

    Returns:
        (length,) int64, in [0, frames).

    Example:
        >>> uniform_frames(10, 5)
        array([0, 2, 4, 6, 8])
    """
    if released:
        return (np.arange(length) * (frames / length)).astype(np.int64)
    return np.arange(length) * frames // length


def jittered_frames(frames: int, length: int, draws: np.ndarray) -> np.ndarray:
    """Return one frame from each of `length` equal stretches of the recording, for training.

    MotionBERT's training-time resampling. With frames >= length a draw u is the position inside the
    stretch, floor((i + u) * frames / length). In shorter recordings i * frames / length is rounded
    down for u < 0.5 and up otherwise, and the result is sorted.

    Args:
        frames: Length of the recording, at least 1.
        length: Length of the clip.
        draws: (length,) uniform in [0, 1).

    Returns:
        (length,) int64, in [0, frames), never decreasing.

    Example:
        >>> jittered_frames(10, 5, np.full(5, 0.5))
        array([1, 3, 5, 7, 9])
    """
    start = np.arange(length)
    if frames >= length:
        indices = np.floor((start + draws) * frames / length)
    else:
        exact = start * frames / length
        indices = np.sort(np.where(draws < 0.5, np.floor(exact), np.ceil(exact)))
    return np.clip(indices, 0, frames - 1).astype(np.int64)
