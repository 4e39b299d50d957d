"""Whether a recording can be stored, and if not, why."""

import numpy as np

from maskclr_pl.data.store.reader import ATTRIBUTES, Recording
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError
from maskclr_pl.visibility import visible_joints

UNSTORABLE = "its name is empty, too long, no Unicode text, or holds a zero character; rename it"
"""What is wrong with a name that is not `is_storable`."""
_MOST_CLASSES = 100_000  # each class is named and counted: a wild label would fill the memory
_LARGEST = 2**31 - 1  # the store keeps numbers in 32 bits
_FARTHEST = 1e6  # no image has as many pixels a side, no room as many metres
_OUTSIDE = 0.2  # share of visible joints beyond the image that no estimator produces
_SUSPECT = 0.05  # and one that is worth a look


def check_recording(
    recording: Recording, skeleton: Skeleton, class_names: int | None = None
) -> None:
    """Look at name, shapes, types, values, label and what else is known.

    Args:
        recording: What a source yielded.
        skeleton: Layout it should have.
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


def is_storable(name: str) -> bool:
    """Whether the store can hold a name: 1 to 1000 bytes of UTF-8 text without zero characters."""
    try:
        return 0 < len(name.encode()) <= 1000 and "\0" not in name
    except UnicodeEncodeError:  # half of a character
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
            f"it has {shape[2]} joints, but skeleton {skeleton.name} has {len(skeleton)}; type "
            "the skeleton=... that the file was made with"
        )
    if 0 in shape:
        return f"it is empty (shape {shape})"
    if score is not None and score.shape != shape[:3]:
        return f"its scores have shape {score.shape}, expected {shape[:3]}"
    if score is not None and score.dtype.kind not in "fiub":
        return "its scores are not an array of numbers"
    if shape[3] == 2 and recording.frame_size is None:
        return "it has pixels but no image size; type frame_size=[HEIGHT,WIDTH]"
    return None


def _values(recording: Recording, skeleton: Skeleton) -> str | None:
    keypoint, score = recording.keypoint, recording.score
    for what, values in (("coordinate", keypoint), ("score", score)):
        if values is not None and not np.isfinite(values).all():
            bad = np.argwhere(~np.isfinite(values))
            person, frame, joint = bad[0][:3]
            return (
                f"{len(bad)} {what}s are NaN or infinite, the first at person {person}, frame "
                f"{frame}, joint {skeleton.joints[joint]}; set missing joints to 0 with score 0"
            )
    low, high = float(keypoint.min()), float(keypoint.max())
    if max(-low, high) > _FARTHEST:
        person, frame, joint = np.argwhere((keypoint < -_FARTHEST) | (keypoint > _FARTHEST))[0][:3]
        return (
            f"a coordinate of person {person}, frame {frame}, joint {skeleton.joints[joint]} is "
            f"{(low if -low > high else high):g}, expected at most {_FARTHEST:g}; set missing "
            "joints to 0 with score 0"
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
        count = (
            "; if the labels count from 1, pass first_label=1" if 0 < label == class_names else ""
        )
        return f"its label {label} is out of range of {class_names} class names{count}"
    if label >= _MOST_CLASSES:
        return f"its label is {label}, expected the number of a class, below {_MOST_CLASSES}"
    return None


def _facts(recording: Recording) -> str | None:
    if not is_storable(recording.name):
        return UNSTORABLE
    height, width = recording.frame_size or (1, 1)
    facts = {"image height": (1, height), "image width": (1, width)}
    facts |= {key: (-1, getattr(recording, key)) for key in ATTRIBUTES}
    for what, (lowest, value) in facts.items():
        if not lowest <= value <= _LARGEST:
            return f"its {what} is {value}, expected {lowest} to {_LARGEST}"
    return None


def outside_image(
    x: np.ndarray, y: np.ndarray, height: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Whether points (R,) are outside of images with sides (R,) or (1,) in pixels; NaN is."""
    return ~((x >= 0) & (y >= 0) & (x <= width) & (y <= height))


def is_swapped(
    visible: np.ndarray,
    outside: np.ndarray,
    exchanged: np.ndarray,
    share: float = _SUSPECT,
    left: float = 0.1,
) -> np.ndarray:
    """Whether height and width of the image were exchanged, as the poses of k clips say.

    Args:
        visible: (k,) number of visible joints.
        outside: (k,) how many of them are outside of the image.
        exchanged: (k,) how many would be if height and width changed places.
        share: The sides were exchanged if a larger part of the joints is outside ...
        left: ... of which no larger part would be.
    """
    return (outside > share * visible) & (exchanged <= left * outside)


def _swapped(recording: Recording) -> bool:
    """`is_swapped`, beyond doubt: every joint would be inside."""
    assert recording.frame_size is not None
    xy = recording.keypoint
    height, width = np.array(recording.frame_size, np.float32)[:, None]
    # the largest values decide nearly every clip; only the others are looked at joint by joint
    high = xy.max((0, 1, 2))
    if high[0] <= width and high[1] <= height:
        return False
    x, y = xy[visible_joints(xy, recording.score)].T
    outside, exchanged = (
        outside_image(x, y, *sides).sum(keepdims=True)
        for sides in ((height, width), (width, height))
    )
    return bool(is_swapped(np.array([len(x)]), outside, exchanged, _OUTSIDE, left=0)[0])
