"""Whether a recording can be stored, and if not, why."""

import numpy as np

from maskclr_pl.data.store import Recording
from maskclr_pl.skeletons import Skeleton
from maskclr_pl.types import InputError

_OUTSIDE = 0.2  # share of visible joints beyond the image that no estimator produces


def check_recording(
    recording: Recording, skeleton: Skeleton, class_names: int | None = None
) -> None:
    """Look at shapes, types, values and label.

    Args:
        recording: What a source yielded.
        skeleton: Layout it should have.
        class_names: Number of class names; None if the classes have no names.

    Raises:
        InputError: If it cannot be stored; the message names the recording.
    """
    problem = _shapes(recording, skeleton) or _values(recording, skeleton)
    label = recording.label
    if problem is None and (not isinstance(label, int) or label < 0):
        problem = f"its label is {label!r}, expected an integer from 0"
    if problem is None and class_names is not None and label >= class_names:
        problem = f"its label {label} is out of range of {class_names} class names"
    if problem is not None:
        raise InputError(f"clip {recording.name!r}: {problem}")


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
    if score is not None and np.abs(score).max() > 65504:
        return f"its scores go up to {np.abs(score).max():g}, expected confidences"
    if recording.frame_size is not None and _swapped(recording):
        height, width = recording.frame_size
        return (
            f"its poses do not fit an image of height {height} and width {width}, but they fit "
            f"one of height {width} and width {height}; image sizes must be (height, width)"
        )
    return None


def _swapped(recording: Recording) -> bool:
    """Whether many joints lie outside of the image, and none outside of the turned one."""
    assert recording.frame_size is not None
    height, width = recording.frame_size
    if height == width:
        return False
    xy = recording.keypoint
    limit, turned = (np.array(size, np.float32) for size in ((width, height), (height, width)))
    # the largest values decide nearly every clip; only the others are looked at joint by joint
    if (xy.max((0, 1, 2)) <= limit).all():
        return False
    seen = xy[recording.score > 0] if recording.score is not None else xy[(xy != 0).any(-1)]
    outside = (seen > limit).any(-1)
    return bool(outside.mean() > _OUTSIDE and (seen <= turned).all()) if len(seen) else False
