"""The OpenPose skeletons of Kinetics-400 that were published with ST-GCN ("kinetics-skeleton").

One JSON file a clip, and a label file for each split: `kinetics_train/`, `kinetics_val/`,
`kinetics_train_label.json`, `kinetics_val_label.json`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.data.store.reader import Recording
from maskclr_pl.reading import read_json
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.io.files import files_under, listing_hash
from maskclr_pl.sources.options import check_number, parse_frame_size, parse_path
from maskclr_pl.sources.units import check_unit
from maskclr_pl.types import InputError

_LABEL_FILE = "_label.json"
_JOINTS = 18
# far above what was published (300 frames, 400 classes): a file with more must not ask for memory
_MOST_FRAMES, _MOST_CLASSES = 10**5, 10**4


class StgcnJsonSource:
    """Recordings of such a folder, of one of its two folders of clips, or of a single clip.

    A split is what a label file names, and a clip that no label file names is in no split. Clips
    whose label file says that they have no skeleton are left out.

    Args:
        path: Folder with `*_label.json` and a folder of clips for each (or the clips themselves);
            or a folder of clips with its label file beside it or none; or one clip.
        frame_size: (height, width) of the videos in pixels; the published ones were resized to
            340 x 256.
        persons: Most persons in a frame: the first ones, as published.
        units: Unit of the coordinates; as published, `fractions`.

    Raises:
        InputError: If there are no clips, a label file is none, or an option is out of range.
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
        check_unit(units)
        self.units: str | None = units or "fractions"
        self.path = parse_path("input", path)
        size = parse_frame_size(frame_size)
        if size is None:
            raise InputError("frame_size is missing; type frame_size=[HEIGHT,WIDTH]")
        self.frame_size, self.persons = size, persons
        self.notes: list[str] = []
        found = files_under(self.path, ".json")
        label_files = _label_files(self.path, found)
        self._clips = [file for file in found if not file.name.endswith(_LABEL_FILE)]
        self.hash = listing_hash(sorted({*found, *label_files.values()}))
        labels = {split: _labels(file) for split, file in label_files.items()}
        self.class_names = _class_names(label_files, labels)
        self._labels = {name: one for table in labels.values() for name, one in table.items()}
        self._leave_out()
        self._name_classes_of_others()
        if not self._clips:
            raise InputError(f"{self.path}: no clips (.json) in it, or none with a skeleton")
        here = {file.stem for file in self._clips}
        self.splits = {
            split: [name for name in table if name in here]
            for split, table in labels.items()
            if not here.isdisjoint(table)
        }

    def _name_classes_of_others(self) -> None:
        """Clips that no label file names have a class of their own, which needs a name, too."""
        others = [file for file in self._clips if file.stem not in self._labels]
        if self.class_names is None or not others:
            return
        self.notes.append(
            f"{len(others)} clips are in no label file and so in no split, the first is "
            f"{others[0].stem}"
        )
        for file in others:
            with suppress(InputError):  # raised again, with its name, when the clip is read
                content = read_json(file)
                content = content if isinstance(content, dict) else {}
                index = _index(file, "its `label_index`", content.get("label_index"))
                while len(self.class_names) <= index:
                    self.class_names.append(str(len(self.class_names)))

    def _leave_out(self) -> None:
        """Leave out clips without a skeleton, and note what is missing."""
        absent = {name for name, (_, _, has_skeleton) in self._labels.items() if has_skeleton} - {
            file.stem for file in self._clips
        }
        used = {index for index, _, _ in self._labels.values()}
        if used and used == set(range(1, len(used) + 1)):
            self.notes.append(
                "label_index counts from 1, so class 0 has no clips; pass first_label=1"
            )
        if absent:
            self.notes.append(
                f"{len(absent)} clips of the label files have no file in {self.path}, the first "
                f"is {min(absent)}"
            )
        kept = [
            file
            for file in self._clips
            if file.stem not in self._labels or self._labels[file.stem][2]
        ]
        if len(kept) < len(self._clips):
            self.notes.append(f"{len(self._clips) - len(kept)} clips have no skeleton: left out")
        self._clips = kept

    def __len__(self) -> int:
        return len(self._clips)

    def name(self, index: int) -> str:
        """The name of the clip's file."""
        return self._clips[index].stem

    def __getitem__(self, index: int) -> Recording:
        """Read one clip, in half precision like the poses of other 2D sets.

        The published fractions have three decimals, which half precision keeps apart.

        As published, the persons of a frame are sorted by summed score, so slots are no tracks.
        Frames without a person are kept, and so are clips of them alone. Where no joint of a clip
        has a score, the estimator gave none, and each joint that has a position scores 1.
        """
        path = self._clips[index]
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("data"), list):
            raise InputError(f"{path}: expected a clip, an object with a list `data`")
        label = self._label(path, content)
        frames = _frames(path, content["data"])
        if frames and not any(frames.values()):
            nobody = np.zeros((1, max(frames) + 1, _JOINTS, 2), np.float16)
            return Recording(path.stem, label, nobody, nobody[..., 0], self.frame_size)
        frame, slot, pose, score = _people(path, frames, self.persons)
        if not score.any():
            score = np.any(pose, axis=2).astype(np.float64)
        with np.errstate(invalid="ignore"):
            order = np.lexsort((-score.sum(axis=1), frame))
        shape = (int(slot.max()) + 1, max(frames) + 1, _JOINTS)
        keypoint, scores = np.zeros((*shape, 2), np.float16), np.zeros(shape, np.float16)
        seen = (score > 0)[..., None]
        with np.errstate(over="ignore", invalid="ignore"):  # checked for all sources alike
            keypoint[slot, frame] = np.where(seen, pose, 0)[order]
            scores[slot, frame] = score[order]
        return Recording(path.stem, label, keypoint, scores, self.frame_size)

    def _label(self, path: Path, content: Mapping[str, Any]) -> int:
        index, text = content.get("label_index"), content.get("label")
        if path.stem not in self._labels:
            return _index(path, "its `label_index`", index)
        given, name, _ = self._labels[path.stem]
        if index not in (None, given) or text not in (None, name):
            raise InputError(
                f"{path}: its label is {_short(index)} {_short(text)}, but the label file says "
                f"{given} {name!r}"
            )
        return given


def _frames(path: Path, data: Sequence[Any]) -> dict[int, list[Any]]:
    """Frame, from 0 -> its persons."""
    frames: dict[int, list[Any]] = {}
    for entry in data:
        number = entry.get("frame_index") if isinstance(entry, dict) else None
        persons = entry.get("skeleton") if isinstance(entry, dict) else None
        if type(number) is not int or not 1 <= number <= _MOST_FRAMES or number - 1 in frames:
            raise InputError(
                f"{path}: an entry of `data` has frame_index {_short(number)}, expected each "
                "frame once, counted from 1"
            )
        if not isinstance(persons, list):
            raise InputError(f"{path}: frame {number} has no list `skeleton`")
        frames[number - 1] = persons
    return frames


def _people(
    path: Path, frames: Mapping[int, Sequence[Any]], most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frame and slot (N,), pose (N, 18, 2) and score (N, 18) of the first persons of each frame."""
    people = [
        (frame, slot, person)
        for frame, persons in sorted(frames.items())
        for slot, person in enumerate(persons[:most])
    ]
    if not people:
        raise InputError(f"{path}: it has no frames")
    pose = _numbers(path, "pose", 2 * _JOINTS, people).reshape(-1, _JOINTS, 2)
    score = _numbers(path, "score", _JOINTS, people)
    frame, slot = np.array([one[:2] for one in people]).T
    return frame, slot, pose, score


def _numbers(
    path: Path, key: str, count: int, people: Sequence[tuple[int, int, Any]]
) -> np.ndarray:
    """(N, count) what the persons have under a key."""
    for frame, _, person in people:
        values = person.get(key) if isinstance(person, dict) else None
        if not isinstance(values, list) or len(values) != count:
            found = f"{len(values)}" if isinstance(values, list) else "no list"
            raise InputError(
                f"{path}: frame {frame + 1}: {found} under `{key}`, expected {count} numbers "
                f"(OpenPose with {_JOINTS} joints)"
            )
    try:
        return np.array([person[key] for *_, person in people], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: a `{key}` is no list of numbers ({error})") from None


def _label_files(path: Path, found: Sequence[Path]) -> dict[str, Path]:
    """Split -> label file, in the folder or else beside it."""
    inside = [file for file in found if file.name.endswith(_LABEL_FILE)]
    root = path.resolve()
    beside = root.with_name(f"{root.name}{_LABEL_FILE}")
    if not inside and root.is_dir() and beside.is_file():
        inside = [beside]
    files: dict[str, Path] = {}
    for file in inside:
        split = file.name.removesuffix(_LABEL_FILE).removeprefix("kinetics_")
        if split in files:
            raise InputError(f"{file}: a second label file of the split {split!r}")
        files[split] = file
    return files


def _labels(path: Path) -> dict[str, tuple[int, str, bool]]:
    """Clip -> (class, class name, whether it has a skeleton)."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object with an entry for each clip")
    labels = {}
    for clip, entry in content.items():
        name = entry.get("label") if isinstance(entry, dict) else None
        has_skeleton = entry.get("has_skeleton", True) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(has_skeleton, bool):
            raise InputError(
                f"{path}: entry {clip!r} is no object with `label`, `label_index` and "
                "`has_skeleton`"
            )
        index = _index(path, f"`label_index` of {clip!r}", entry.get("label_index"))
        labels[clip] = index, name, has_skeleton
    return labels


def _index(path: Path, what: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST_CLASSES:
        raise InputError(f"{path}: {what} is {_short(value)}, expected a class number from 0")
    return value


def _short(value: Any) -> str:
    return f"{value!r:.40}"


def _class_names(
    files: Mapping[str, Path], labels: Mapping[str, Mapping[str, tuple[int, str, bool]]]
) -> list[str] | None:
    """Class names of all label files; a class that none of them uses has its number as name."""
    names: dict[int, str] = {}
    for split, table in labels.items():
        for clip, (index, name, _) in table.items():
            if names.setdefault(index, name) != name:
                raise InputError(
                    f"{files[split]}: clip {clip!r} has label_index {index} and label {name!r}, "
                    f"but elsewhere {index} is {names[index]!r}"
                )
    return [names.get(i, str(i)) for i in range(max(names) + 1)] if names else None
