"""What the files of pose estimators hold: the persons of each frame.

The format is recognised by its content. Layouts: documentation and output of OpenPifPaf, AlphaPose
(with PoseFlow), OpenPose, MMPose's inferencer, COCO (keypoint annotations and results), st-gcn
(the Kinetics skeletons) and tf-openpose.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskclr_pl.types import InputError

IMAGE = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp)$", re.IGNORECASE)
"""Ending of an image file."""
_KNOWN = "OpenPifPaf, AlphaPose, PoseFlow, OpenPose, MMPose, COCO, st-gcn or tf-openpose"
_PERSONS = ("people", "bodies", "instances", "predictions", "skeleton")
_NUMBER = ("frame_id", "frame_index", "frame")
_POSE = ("keypoints", "pose_keypoints_2d", "pose_keypoints", "pose", "joints")
_SCORES = ("keypoint_scores", "scores", "score")
_TRACK = ("track_id", "idx", "id_", "person_id")

Frames = list[tuple[Any, list[Any]]]
"""(number or name of the image, persons) in the order of the file; None: the file names none."""


def parse_frames(content: Any) -> Frames:
    """Take the persons of each frame from the content of a JSON file.

    Raises:
        InputError: If it is none of the known formats.
    """
    if isinstance(content, dict):
        return _from_dict(content)
    if not isinstance(content, list):
        raise InputError(f"the value {_short(content)}, expected a file of {_KNOWN}")
    if content and all(isinstance(item, list) for item in content):  # MMPose: a list a frame
        return list(enumerate(content))
    first = content[0] if content else {}
    if not all(isinstance(item, dict) for item in content):
        kinds = sorted({type(item).__name__ for item in content})
        raise InputError(f"a list of {', '.join(kinds)}, expected a file of {_KNOWN}")
    if any("image_id" in item for item in content):  # AlphaPose, COCO results
        return _grouped(content)
    if any(key in first for key in _PERSONS):
        return [_frame(item, at) for at, item in enumerate(content)]
    if "joints" in first and "keypoints" not in first:  # tf-openpose: a person a frame
        return [(at, [item]) for at, item in enumerate(content)]
    return [(None, content)]  # OpenPifPaf, MMPose: an image


def _from_dict(content: dict[str, Any]) -> Frames:
    if "annotations" in content:  # COCO
        return _coco(content)
    for key in ("instance_info", "data"):  # MMPose, st-gcn
        if isinstance(content.get(key), list):
            return [_frame(item, at) for at, item in enumerate(content[key])]
    if any(key in content for key in _PERSONS):
        return [_frame(content, None)]
    if content and all(IMAGE.search(name) for name in content):  # PoseFlow
        return [
            (name, _frame(item, name)[1] if isinstance(item, dict) else _list(item))
            for name, item in content.items()
        ]
    raise InputError(f"{_keys(content)}, expected a file of {_KNOWN}")


def _frame(item: Any, number: Any) -> tuple[Any, list[Any]]:
    """A dict with a list of persons, and perhaps a number that is better than `number`."""
    key = next((key for key in _PERSONS if isinstance(item, dict) and key in item), None)
    if key is None:
        found = _keys(item) if isinstance(item, dict) else _short(item)
        raise InputError(f"frame {str(number)[:60]} is {found}, expected a list of persons")
    number = next((item[name] for name in _NUMBER if name in item), number)
    return number, _list(item[key])


def _keys(content: dict[str, Any]) -> str:
    keys = ", ".join(repr(key) for key in list(content)[:4])
    return f"a dict with {keys[:200] or 'nothing'}"


def _short(value: Any) -> str:
    """A value that was not expected, as far as a line can show it."""
    plain = value is None or isinstance(value, str | int | float)
    return repr(str(value)[:40]) if plain else f"a {type(value).__name__}"


def _list(persons: Any) -> list[Any]:
    if not isinstance(persons, list):
        raise InputError(f"{_short(persons)} where a list was expected")
    return persons


def _grouped(persons: Sequence[dict[str, Any]]) -> Frames:
    frames: dict[Any, list[Any]] = {}
    for person in persons:
        image = person.get("image_id")
        if not isinstance(image, str | int | float):
            raise InputError("a person without `image_id`, unlike others")
        frames.setdefault(image, []).append(person)
    return list(frames.items())


def _coco(content: dict[str, Any]) -> Frames:
    """Images also count if nobody is in them; their names say their order."""
    images = content.get("images", [])
    if not all(isinstance(item, dict) for item in [*_list(images), *_list(content["annotations"])]):
        raise InputError("`images` and `annotations` are no lists of dicts (COCO)")
    names = {str(image.get("id")): image.get("file_name", image.get("id")) for image in images}
    by_image = {str(image): persons for image, persons in _grouped(content["annotations"])}
    unknown = next((image for image in by_image if image not in names), None)
    if images and unknown is not None:
        raise InputError(f"`annotations` names image {unknown[:60]!r}, which is not in `images`")
    return [(names.get(key, key), by_image.get(key, [])) for key in {**names, **by_image}]


def image_size(content: Any) -> tuple[int, int] | None:
    """(height, width) of COCO's images, the largest of them."""
    coco = isinstance(content, dict) and "annotations" in content
    images = content.get("images", []) if coco else []
    sides = [(image.get("height"), image.get("width")) for image in images]
    if not images or not all(
        type(side) is int and 0 < side < 2**20 for pair in sides for side in pair
    ):
        return None
    return max(height for height, _ in sides), max(width for _, width in sides)


def parse_pose(person: Any) -> np.ndarray:
    """(V, 3) x, y, score of a person; (0, 3) if nothing of it was found.

    Where there are no scores, a joint at (0, 0) was not found and the others have score 1.

    Raises:
        InputError: If there are no joints, or no numbers.
    """
    key = next((key for key in _POSE if isinstance(person, dict) and key in person), None)
    if key is None:
        found = _keys(person) if isinstance(person, dict) else _short(person)
        raise InputError(f"a person is {found}, expected one with `keypoints`")
    scores = next((person[k] for k in _SCORES if isinstance(person.get(k), list)), None)
    try:
        values = np.asarray(person[key], dtype=np.float64)
        score = None if scores is None else np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"`{key}` of a person is no list of numbers") from None
    shape = values.shape
    if values.size == 0:
        return np.empty((0, 3))
    if score is not None and score.ndim == 1 and shape in ((2 * len(score),), (len(score), 2)):
        return np.column_stack([values.reshape(-1, 2), score])
    if score is None and len(shape) == 2 and shape[1] == 2:
        return np.column_stack([values, values.any(axis=1)])
    flat = len(shape) == 1 and shape[0] % 3 == 0
    if score is None and (flat or (len(shape) == 2 and shape[1] == 3)):
        return values.reshape(-1, 3)
    scored = "no scores" if score is None else f"{score.size} scores"
    raise InputError(
        f"`{key}` of a person has shape {shape} and {scored}, expected x, y and score of each joint"
    )


def parse_track_id(person: dict[str, Any]) -> int:
    """Track number of a person, -1 if the file gives none."""
    for key in _TRACK:
        value = person.get(key)
        while isinstance(value, list) and value:  # AlphaPose merges persons: [[3.0], [5.0]]
            value = value[0]
        if isinstance(value, int | float) and 0 <= value < 2**53:
            return int(value)
    return -1
