"""OpenPose skeletons of Kinetics-400 as published with ST-GCN ("kinetics-skeleton").

One JSON file per clip, and a label file for each split: `kinetics_train/`, `kinetics_val/`,
`kinetics_train_label.json`, `kinetics_val_label.json`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.reading import read_json
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.io.files import files_under, listing_hash
from maskclr_pl.sources.options import check_number, parse_frame_size, parse_path
from maskclr_pl.sources.units import parse_unit
from maskclr_pl.types import InputError

_LABEL_FILE = "_label.json"
_JOINTS = 18
# far above what was published (300 frames, 400 classes): bounds the memory for a small file
_MAX_FRAMES, _MAX_CLASSES = 10**5, 10**4


class _Label(NamedTuple):
    """An entry of a label file."""

    class_index: int
    name: str
    has_skeleton: bool


class StgcnJsonSource:
    """Recordings of such a folder, of one of its two folders of clips, or of a single clip.

    The splits are those of the label files; a clip in no label file is in no split. Clips marked
    there as having no skeleton are left out.

    Args:
        path: Folder with `*_label.json` and a folder of clips for each (or the clips themselves);
            or a folder of clips, with or without its label file beside it; or one clip.
        frame_size: (height, width) of the videos in pixels; the published ones were resized to
            340 x 256.
        persons: Most persons in a frame: the first ones, as published.
        units: Unit of the coordinates; as published, `fractions`.

    Raises:
        InputError: If there are no clips, a label file is malformed, or an option is out of range.
    """

    skeleton: Skeleton | None = None
    parallel = True

    def __init__(
        self,
        path: str | Path,
        frame_size: Sequence[int] = (256, 340),
        persons: int = 5,
        units: str | None = None,
    ):
        check_number("source.persons", persons, 1)
        self.units: str | None = parse_unit(units) or "fractions"
        self.path = parse_path("input", path)
        size = parse_frame_size(frame_size)
        if size is None:
            raise InputError("frame_size is missing; pass frame_size=[HEIGHT,WIDTH]")
        self.frame_size, self.persons = size, persons
        files = files_under(self.path, ".json")
        label_files = _find_label_files(self.path, files)
        clips = [file for file in files if not file.name.endswith(_LABEL_FILE)]
        self.hash = listing_hash(sorted({*files, *label_files.values()}))
        labels = {split: _read_labels(file) for split, file in label_files.items()}
        self._labels = {name: label for split in labels.values() for name, label in split.items()}
        self._clips = [
            clip
            for clip in clips
            if clip.stem not in self._labels or self._labels[clip.stem].has_skeleton
        ]
        self.class_names = _class_names(label_files, labels)
        self.notes = self._describe_labels(clips)
        self._name_classes_of_unlabeled()
        if not self._clips:
            raise InputError(f"{self.path}: no clips (.json) in it, or none with a skeleton")
        available = {file.stem for file in self._clips}
        self.splits = {
            split: [name for name in names if name in available]
            for split, names in labels.items()
            if not available.isdisjoint(names)
        }

    def _describe_labels(self, clips: Sequence[Path]) -> list[str]:
        """Note what is unusual or missing in the label files."""
        notes = []
        labeled = {name for name, label in self._labels.items() if label.has_skeleton}
        absent = labeled - {file.stem for file in self._clips}
        classes = {label.class_index for label in self._labels.values()}
        if classes and classes == set(range(1, len(classes) + 1)):
            notes.append("label_index counts from 1, so class 0 has no clips; pass first_label=1")
        if absent:
            notes.append(
                f"{len(absent)} clips of the label files have no file in {self.path}, the first "
                f"is {min(absent)}"
            )
        if len(self._clips) < len(clips):
            notes.append(f"{len(clips) - len(self._clips)} clips have no skeleton: left out")
        return notes

    def _name_classes_of_unlabeled(self) -> None:
        """Extend the class names by the classes of clips that are in no label file."""
        unlabeled = [file for file in self._clips if file.stem not in self._labels]
        if self.class_names is None or not unlabeled:
            return
        self.notes.append(
            f"{len(unlabeled)} clips are in no label file and so in no split, the first is "
            f"{unlabeled[0].stem}"
        )
        for file in unlabeled:
            with suppress(InputError):  # raised again, with its name, when the clip is read
                content = read_json(file)
                content = content if isinstance(content, dict) else {}
                index = _class_index(file, "its `label_index`", content.get("label_index"))
                self.class_names += map(str, range(len(self.class_names), index + 1))

    def __len__(self) -> int:
        return len(self._clips)

    def name(self, index: int) -> str:
        """Return the file name of a clip without its extension."""
        return self._clips[index].stem

    def __getitem__(self, index: int) -> Recording:
        """Read one clip, in half precision like the poses of other 2D data sets.

        The published fractions have three decimals, which half precision preserves.

        As published, the persons of a frame are sorted by summed score, so slots are not tracks.
        Frames without a person are kept, and so are clips without any person. In a clip without
        scores, every joint that has a position scores 1.
        """
        path = self._clips[index]
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("data"), list):
            raise InputError(f"{path}: expected a clip, an object with a list `data`")
        label = self._check_label(path, content)
        frames = _persons_by_frame(path, content["data"])
        if frames and not any(frames.values()):
            empty = np.zeros((1, max(frames) + 1, _JOINTS, 2), np.float16)
            return Recording(path.stem, label, empty, empty[..., 0], self.frame_size)
        frame, slot, pose, score = _read_persons(path, frames, self.persons)
        if not score.any():
            score = np.any(pose, axis=2).astype(np.float64)
        with np.errstate(invalid="ignore"):
            order = np.lexsort((-score.sum(axis=1), frame))
        shape = (int(slot.max()) + 1, max(frames) + 1, _JOINTS)
        keypoint, scores = np.zeros((*shape, 2), np.float16), np.zeros(shape, np.float16)
        visible = (score > 0)[..., None]
        with np.errstate(over="ignore", invalid="ignore"):  # refused when a store is written
            keypoint[slot, frame] = np.where(visible, pose, 0)[order]
            scores[slot, frame] = score[order]
        return Recording(path.stem, label, keypoint, scores, self.frame_size)

    def _check_label(self, path: Path, content: Mapping[str, Any]) -> int:
        index, name = content.get("label_index"), content.get("label")
        label = self._labels.get(path.stem)
        if label is None:
            return _class_index(path, "its `label_index`", index)
        if index not in (None, label.class_index) or name not in (None, label.name):
            raise InputError(
                f"{path}: its label is {_shorten(index)} {_shorten(name)}, but "
                f"{label.class_index} {label.name!r} in the label file"
            )
        return label.class_index


def _persons_by_frame(path: Path, data: Sequence[Any]) -> dict[int, list[Any]]:
    """Return the persons of each frame, counted from 0."""
    frames: dict[int, list[Any]] = {}
    for entry in data:
        number = entry.get("frame_index") if isinstance(entry, dict) else None
        persons = entry.get("skeleton") if isinstance(entry, dict) else None
        if type(number) is not int or not 1 <= number <= _MAX_FRAMES or number - 1 in frames:
            raise InputError(
                f"{path}: an entry of `data` has frame_index {_shorten(number)}, expected each "
                "frame once, counted from 1"
            )
        if not isinstance(persons, list):
            raise InputError(f"{path}: frame {number} has no list `skeleton`")
        frames[number - 1] = persons
    return frames


def _read_persons(
    path: Path, frames: Mapping[int, Sequence[Any]], max_persons: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return frame and slot (N,), pose (N, 18, 2) and score (N, 18) of the first persons."""
    persons = [
        (frame, slot, person)
        for frame, members in sorted(frames.items())
        for slot, person in enumerate(members[:max_persons])
    ]
    if not persons:
        raise InputError(f"{path}: it has no frames")
    pose = _read_numbers(path, "pose", 2 * _JOINTS, persons).reshape(-1, _JOINTS, 2)
    score = _read_numbers(path, "score", _JOINTS, persons)
    frame, slot = np.array([(frame, slot) for frame, slot, _ in persons]).T
    return frame, slot, pose, score


def _read_numbers(
    path: Path, key: str, count: int, persons: Sequence[tuple[int, int, Any]]
) -> np.ndarray:
    """Return the (N, count) numbers under a key of each person."""
    for frame, _, person in persons:
        values = person.get(key) if isinstance(person, dict) else None
        if not isinstance(values, list) or len(values) != count:
            actual = f"{len(values)} numbers" if isinstance(values, list) else "no list"
            raise InputError(
                f"{path}: frame {frame + 1}: {actual} under `{key}`, expected {count} numbers "
                f"(OpenPose with {_JOINTS} joints)"
            )
    try:
        return np.array([person[key] for *_, person in persons], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: a `{key}` is not a list of numbers ({error})") from None


def _find_label_files(path: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Return split -> label file, in the folder or else beside it."""
    label_files = [file for file in files if file.name.endswith(_LABEL_FILE)]
    root = path.resolve()
    beside = root.with_name(f"{root.name}{_LABEL_FILE}")
    if not label_files and root.is_dir() and beside.is_file():
        label_files = [beside]
    by_split: dict[str, Path] = {}
    for file in label_files:
        split = file.name.removesuffix(_LABEL_FILE).removeprefix("kinetics_")
        if split in by_split:
            raise InputError(f"{file}: a second label file of split {split!r}")
        by_split[split] = file
    return by_split


def _read_labels(path: Path) -> dict[str, _Label]:
    """Return the label of each clip in a label file."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object with an entry for each clip")
    labels = {}
    for clip, entry in content.items():
        name = entry.get("label") if isinstance(entry, dict) else None
        has_skeleton = entry.get("has_skeleton", True) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(has_skeleton, bool):
            raise InputError(
                f"{path}: entry {clip!r} is not an object with `label`, `label_index` and "
                "`has_skeleton`"
            )
        index = _class_index(path, f"`label_index` of {clip!r}", entry.get("label_index"))
        labels[clip] = _Label(index, name, has_skeleton)
    return labels


def _class_index(path: Path, subject: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_CLASSES:
        raise InputError(f"{path}: {subject} is {_shorten(value)}, expected a class number from 0")
    return value


def _shorten(value: Any) -> str:
    return f"{value!r:.40}"


def _class_names(
    files: Mapping[str, Path], labels: Mapping[str, Mapping[str, _Label]]
) -> list[str] | None:
    """Return the class names of all label files; an unused class is named by its number."""
    names: dict[int, str] = {}
    for split, labels_of_split in labels.items():
        for clip, (index, name, _) in labels_of_split.items():
            if names.setdefault(index, name) != name:
                raise InputError(
                    f"{files[split]}: clip {clip!r} has label_index {index} and label {name!r}, "
                    f"but elsewhere {index} is {names[index]!r}"
                )
    return [names.get(i, str(i)) for i in range(max(names) + 1)] if names else None
