"""Checks of recordings before they are stored."""

import numpy as np

from maskclr_pl.data.store.reader import ATTRIBUTES, Recording
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError
from maskclr_pl.visibility import visible_joints

INVALID_NAME = "its name is empty, too long, not Unicode, or contains a null character; rename it"
"""Message for names that fail `is_valid_name`."""
_MAX_CLASSES = 100_000  # classes are named and counted: a corrupt label would exhaust memory
_MAX_INT = 2**31 - 1  # stores use 32-bit integers
_MAX_COORDINATE = 1e6  # larger than any image in pixels or room in meters
_MAX_OUTSIDE = 0.2  # share of visible joints outside the image that no estimator produces
_SUSPICIOUS = 0.05  # share worth reporting


def check_recording(
    recording: Recording, skeleton: Skeleton, class_names: int | None = None
) -> None:
    """Validate name, shapes, types, values, label, and metadata of a recording.

    Args:
        recording: Recording as a source yields it.
        skeleton: Expected layout.
        class_names: Number of class names; None if the classes have no names.

    Raises:
        InputError: If it cannot be stored; the message names the recording.
    """
    problem = (
        _shapes(recording, skeleton)
        or _values(recording, skeleton)
        or _label(recording.label, class_names)
        or _facts(recording)
    )
    if problem is not None:
        raise InputError(f"clip {recording.name!r}: {problem}")


def is_valid_name(name: str) -> bool:
    """Return True for names of 1 to 1000 bytes of UTF-8 text without null characters."""
    try:
        return 0 < len(name.encode()) <= 1000 and "\0" not in name
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _shapes(recording: Recording, skeleton: Skeleton) -> str | None:
    keypoint, score = recording.keypoint, recording.score
    if not isinstance(keypoint, np.ndarray) or keypoint.dtype.kind not in "fiu":
        return "its keypoints are not an array of numbers"
    shape = keypoint.shape
    if keypoint.ndim != 4 or shape[3] not in (2, 3):
        return f"its keypoints have shape {shape}, expected (persons, frames, joints, 2 or 3)"
    if shape[2] != len(skeleton):
        return (
            f"it has {shape[2]} joints, but skeleton {skeleton.name} has {len(skeleton)}; pass "
            "the skeleton=... that the file uses"
        )
    if 0 in shape:
        return f"it is empty (shape {shape})"
    if score is not None and score.shape != shape[:3]:
        return f"its scores have shape {score.shape}, expected {shape[:3]}"
    if score is not None and score.dtype.kind not in "fiub":
        return "its scores are not an array of numbers"
    if shape[3] == 2 and recording.frame_size is None:
        return "it has pixels but no image size; pass frame_size=[HEIGHT,WIDTH]"
    return None


def _values(recording: Recording, skeleton: Skeleton) -> str | None:
    keypoint, score = recording.keypoint, recording.score
    for noun, values in (("coordinate", keypoint), ("score", score)):
        if values is not None and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))
            person, frame, joint = bad[0][:3]
            return (
                f"{len(bad)} {noun}s are NaN or infinite, the first at person {person}, frame "
                f"{frame}, joint {skeleton.joints[joint]}; set missing joints to 0 with score 0"
            )
    low, high = float(keypoint.min()), float(keypoint.max())
    if max(-low, high) > _MAX_COORDINATE:
        extreme = (keypoint < -_MAX_COORDINATE) | (keypoint > _MAX_COORDINATE)
        person, frame, joint = np.argwhere(extreme)[0][:3]
        return (
            f"a coordinate of person {person}, frame {frame}, joint {skeleton.joints[joint]} is "
            f"{(low if -low > high else high):g}, expected at most {_MAX_COORDINATE:g}; set "
            "missing joints to 0 with score 0"
        )
    if score is not None and np.abs(score).max() > 65504:
        return f"its scores go up to {np.abs(score).max():g}, expected confidences"
    if keypoint.shape[3] == 2 and recording.frame_size is not None and _swapped(recording):
        height, width = recording.frame_size
        return (
            f"its poses do not fit an image of height {height} and width {width}, but they fit "
            f"one of height {width} and width {height}; image sizes must be (height, width)"
        )
    return None


def _label(label: int, class_names: int | None) -> str | None:
    if not isinstance(label, int) or label < 0:
        return f"its label is {label!r}, expected an integer from 0"
    if class_names is not None and label >= class_names:
        count = "; if labels start at 1, pass first_label=1" if 0 < label == class_names else ""
        return f"its label {label} is out of range of {class_names} class names{count}"
    if label >= _MAX_CLASSES:
        return f"its label is {label}, expected a class number below {_MAX_CLASSES}"
    return None


def _facts(recording: Recording) -> str | None:
    if not is_valid_name(recording.name):
        return INVALID_NAME
    height, width = recording.frame_size or (1, 1)
    facts = {"image height": (1, height), "image width": (1, width)}
    facts |= {key: (-1, getattr(recording, key)) for key in ATTRIBUTES}
    for key, (lowest, value) in facts.items():
        if not lowest <= value <= _MAX_INT:
            return f"its {key} is {value}, expected {lowest} to {_MAX_INT}"
    return None


def outside_image(
    x: np.ndarray, y: np.ndarray, height: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Return True for points (R,) outside images with sides (R,) or (1,) in pixels, and for NaN."""
    return ~((x >= 0) & (y >= 0) & (x <= width) & (y <= height))


def is_size_swapped(
    visible: np.ndarray,
    outside: np.ndarray,
    exchanged: np.ndarray,
    share: float = _SUSPICIOUS,
    left: float = 0.1,
) -> np.ndarray:
    """Detect clips whose image height and width were exchanged.

    Args:
        visible: (k,) number of visible joints.
        outside: (k,) number of visible joints outside the image.
        exchanged: (k,) number outside the image with height and width exchanged.
        share: Sides count as exchanged if a larger share of the joints is outside ...
        left: ... and at most this share of those remains outside after the exchange.
    """
    return (outside > share * visible) & (exchanged <= left * outside)


def _swapped(recording: Recording) -> bool:
    """Apply `is_size_swapped` with strict limits: every joint must fit after the exchange."""
    assert recording.frame_size is not None
    xy = recording.keypoint
    height, width = np.array(recording.frame_size, np.float32)[:, None]
    # the maxima decide nearly every clip; only the others are checked joint by joint
    high = xy.max((0, 1, 2))
    if high[0] <= width and high[1] <= height:
        return False
    x, y = xy[visible_joints(xy, recording.score)].T
    outside, exchanged = (
        outside_image(x, y, *sides).sum(keepdims=True)
        for sides in ((height, width), (width, height))
    )
    return bool(is_size_swapped(np.array([len(x)]), outside, exchanged, _MAX_OUTSIDE, left=0)[0])
