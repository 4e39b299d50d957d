"""Which frames of a recording make a clip of fixed length."""

import numpy as np


def uniform_frames(frames: int, length: int, released: bool = False) -> np.ndarray:
    """Evenly spaced frames, floor(i * frames / length) in exact arithmetic.

    MotionBERT's test-time resampling (spec of MaskCLR, section 1.6); the released code truncates a
    floating-point product and is one frame early for a few (frames, length).

    Args:
        frames: Length of the recording, at least 1.
        length: Length of the clip.
        released: Truncate as the released code does.

    Returns:
        (length,) int64, in [0, frames).
    """
    if released:
        return (np.arange(length) * (frames / length)).astype(np.int64)
    return np.arange(length) * frames // length


def jittered_frames(frames: int, length: int, draws: np.ndarray) -> np.ndarray:
    """Frames for training: one from each of `length` equal stretches of the recording.

    MotionBERT's training-time resampling. With frames >= length a draw u is the position inside the
    stretch, floor((i + u) * frames / length); with fewer, i * frames / length is rounded down for
    u < 0.5 and up otherwise, and the list is sorted.

    Args:
        frames: Length of the recording, at least 1.
        length: Length of the clip.
        draws: (length,) uniform in [0, 1).

    Returns:
        (length,) int64, in [0, frames), never decreasing.
    """
    start = np.arange(length)
    if frames >= length:
        picked = np.floor((start + draws) * frames / length)
    else:
        exact = start * frames / length
        picked = np.sort(np.where(draws < 0.5, np.floor(exact), np.ceil(exact)))
    return np.clip(picked, 0, frames - 1).astype(np.int64)
