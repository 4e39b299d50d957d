"""JSON formats of pose estimators: the persons of each frame.

The format is recognized by its content. Layouts: documentation and output of OpenPifPaf, AlphaPose
(with PoseFlow), OpenPose, MMPose's inferencer, COCO (keypoint annotations and results), st-gcn
(the Kinetics skeletons) and tf-openpose.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskclr_pl.types import InputError

IMAGE = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp)$", re.IGNORECASE)
"""Extension of an image file."""
_FORMATS = "OpenPifPaf, AlphaPose, PoseFlow, OpenPose, MMPose, COCO, st-gcn or tf-openpose"
_PERSON_KEYS = ("people", "bodies", "instances", "predictions", "skeleton")
_FRAME_KEYS = ("frame_id", "frame_index", "frame")
_POSE_KEYS = ("keypoints", "pose_keypoints_2d", "pose_keypoints", "pose", "joints")
_SCORE_KEYS = ("keypoint_scores", "scores", "score")
_TRACK_KEYS = ("track_id", "idx", "id_", "person_id")

Frames = list[tuple[Any, list[Any]]]
"""(number or name of the image, persons) in the order of the file; None: the file names none."""


def parse_frames(content: Any) -> Frames:
    """Return the persons of each frame in the content of a JSON file.

    Raises:
        InputError: If the format is unknown.
    """
    if isinstance(content, dict):
        return _parse_dict(content)
    if not isinstance(content, list):
        raise InputError(f"found {_describe(content)}, expected a file of {_FORMATS}")
    if content and all(isinstance(item, list) for item in content):  # MMPose: a list per frame
        return list(enumerate(content))
    if not all(isinstance(item, dict) for item in content):
        kinds = sorted({type(item).__name__ for item in content})
        raise InputError(f"found a list of {', '.join(kinds)}, expected a file of {_FORMATS}")
    first = content[0] if content else {}
    if any("image_id" in item for item in content):  # AlphaPose, COCO results
        return _group_by_image(content)
    if any(key in first for key in _PERSON_KEYS):
        return [_parse_frame(item, index) for index, item in enumerate(content)]
    if "joints" in first and "keypoints" not in first:  # tf-openpose: a person per frame
        return [(index, [item]) for index, item in enumerate(content)]
    return [(None, content)]  # OpenPifPaf, MMPose: an image


def _parse_dict(content: dict[str, Any]) -> Frames:
    if "annotations" in content:
        return _parse_coco(content)
    for key in ("instance_info", "data"):  # MMPose, st-gcn
        if isinstance(content.get(key), list):
            return [_parse_frame(item, index) for index, item in enumerate(content[key])]
    if any(key in content for key in _PERSON_KEYS):
        return [_parse_frame(content, None)]
    if content and all(IMAGE.search(name) for name in content):  # PoseFlow
        return [
            (name, _parse_frame(item, name)[1] if isinstance(item, dict) else _require_list(item))
            for name, item in content.items()
        ]
    raise InputError(f"found {_describe(content)}, expected a file of {_FORMATS}")


def _parse_frame(item: Any, number: Any) -> tuple[Any, list[Any]]:
    """Return the number, by default the given one, and the persons of a frame."""
    key = next((key for key in _PERSON_KEYS if isinstance(item, dict) and key in item), None)
    if key is None:
        raise InputError(
            f"frame {str(number)[:60]} is {_describe(item)}, expected a list of persons"
        )
    number = next((item[name] for name in _FRAME_KEYS if name in item), number)
    return number, _require_list(item[key])


def _describe(value: Any) -> str:
    """Describe an unexpected value in at most a line."""
    if isinstance(value, dict):
        keys = ", ".join(repr(key) for key in list(value)[:4])
        return f"a dict with {keys[:200] or 'nothing'}"
    if value is None or isinstance(value, str | int | float):
        return repr(str(value)[:40])
    return f"a {type(value).__name__}"


def _require_list(persons: Any) -> list[Any]:
    if not isinstance(persons, list):
        raise InputError(f"found {_describe(persons)}, expected a list of persons")
    return persons


def _group_by_image(persons: Sequence[dict[str, Any]]) -> Frames:
    frames: dict[Any, list[Any]] = {}
    for person in persons:
        image = person.get("image_id")
        if not isinstance(image, str | int | float):
            raise InputError("a person has no `image_id`, unlike others")
        frames.setdefault(image, []).append(person)
    return list(frames.items())


def _parse_coco(content: dict[str, Any]) -> Frames:
    """Read COCO annotations, including images without persons; image names give the order."""
    images, annotations = content.get("images", []), content["annotations"]
    if not all(
        isinstance(part, list) and all(isinstance(item, dict) for item in part)
        for part in (images, annotations)
    ):
        raise InputError("`images` and `annotations` are not lists of dicts (COCO)")
    names = {str(image.get("id")): image.get("file_name", image.get("id")) for image in images}
    by_image = {str(image): persons for image, persons in _group_by_image(annotations)}
    unknown = next((image for image in by_image if image not in names), None)
    if images and unknown is not None:
        raise InputError(f"`annotations` names image {unknown[:60]!r}, which is not in `images`")
    return [(names.get(key, key), by_image.get(key, [])) for key in {**names, **by_image}]


def coco_image_size(content: Any) -> tuple[int, int] | None:
    """Return the (height, width) that holds all images of a COCO file; None if unknown."""
    is_coco = isinstance(content, dict) and "annotations" in content
    images = content.get("images", []) if is_coco else []
    sides = [(image.get("height"), image.get("width")) for image in images]
    if not images or not all(
        type(side) is int and 0 < side < 2**20 for pair in sides for side in pair
    ):
        return None
    return max(height for height, _ in sides), max(width for _, width in sides)


def parse_pose(person: Any) -> np.ndarray:
    """Return (V, 3) x, y, score of a person; (0, 3) if it has no joints.

    Without scores, a joint at (0, 0) is missing and the others have score 1.

    Raises:
        InputError: If there are no joints, or they are not numbers.
    """
    key = next((key for key in _POSE_KEYS if isinstance(person, dict) and key in person), None)
    if key is None:
        raise InputError(f"a person is {_describe(person)}, expected a dict with `keypoints`")
    scores = next((person[k] for k in _SCORE_KEYS if isinstance(person.get(k), list)), None)
    try:
        values = np.asarray(person[key], dtype=np.float64)
        score = None if scores is None else np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"`{key}` of a person is not a list of numbers") from None
    shape = values.shape
    if values.size == 0:
        return np.empty((0, 3))
    if score is not None and score.ndim == 1 and shape in ((2 * len(score),), (len(score), 2)):
        return np.column_stack([values.reshape(-1, 2), score])
    if score is None and len(shape) == 2 and shape[1] == 2:
        return np.column_stack([values, values.any(axis=1)])
    is_flat = len(shape) == 1 and shape[0] % 3 == 0
    if score is None and (is_flat or (len(shape) == 2 and shape[1] == 3)):
        return values.reshape(-1, 3)
    count = "no scores" if score is None else f"{score.size} scores"
    raise InputError(
        f"`{key}` of a person has shape {shape} and {count}, expected x, y and score of each joint"
    )


def parse_track_id(person: dict[str, Any]) -> int:
    """Return the track id of a person, -1 if the file has none."""
    for key in _TRACK_KEYS:
        value = person.get(key)
        while isinstance(value, list) and value:  # AlphaPose merges persons: [[3.0], [5.0]]
            value = value[0]
        if isinstance(value, int | float) and 0 <= value < 2**53:
            return int(value)
    return -1
