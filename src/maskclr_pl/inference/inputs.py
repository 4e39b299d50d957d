"""Read pose files of any supported format for prediction."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskclr_pl.data.store.reader import Recording, Store
from maskclr_pl.inference.videos import ArrayVideo, TrackedVideo, Video
from maskclr_pl.reading import check_no_device, read_arrays
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.sources.convert import detect_source_format
from maskclr_pl.sources.format_detection import detect_format
from maskclr_pl.sources.ntu.source import read_actors
from maskclr_pl.sources.options import parse_frame_size
from maskclr_pl.sources.poses.files import clip_name, is_single_image
from maskclr_pl.sources.poses.tables import is_table, read_video_names
from maskclr_pl.sources.poses.video import ESTIMATOR_LAYOUTS, read_poses
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.sources.units import CoordinateFormat
from maskclr_pl.text import one_line
from maskclr_pl.types import InputError

LAYOUTS_3D = {25: "ntu25", 20: "kinect20"}
"""Joint layout by number of joints for 3D poses; 2D poses use `ESTIMATOR_LAYOUTS`."""
SUFFIXES = (".json", ".csv", ".tsv", ".skeleton", ".npz", ".pkl", ".pickle", ".h5", ".hdf5")
"""Files that are read in a folder; others are ignored."""


class ReadOptions(NamedTuple):
    """How to read files."""

    pixels: bool
    """True for a model of 2D poses: raw NTU files hold 2D and 3D joints."""
    layout: Skeleton
    """Layout of the training data, assumed for arrays with the same number of joints."""
    skeleton: str | None = None
    """Layout of the files; None: from the file or its number of joints."""
    frame_size: Sequence[int] | None = None
    """(height, width) in pixels, for files that do not give it."""
    split: str | None = None
    """Read only this split of a pickle or a store."""
    units: str | None = None
    """Unit of the coordinates; None: detected from their values."""


class VideoEntry(NamedTuple):
    """A video that has not been read yet."""

    name: str
    file: Path
    read: Callable[[], Video]


def find_inputs(paths: Any) -> list[Path]:
    """Expand files and folders to a list of files, and of folders that hold one video each.

    A folder is one video if it has only .json files of one image each (decided by the first one);
    otherwise its entries are separate inputs.

    Args:
        paths: A file or folder, or a list of them.

    Raises:
        InputError: If a path does not exist or a folder has no pose files.
    """
    paths = list(paths) if isinstance(paths, list | tuple) else [paths]
    if not paths or not all(isinstance(path, str | Path) for path in paths):
        raise InputError(f"input={paths}: expected a file, a folder, or a list of them")
    return [file for path in paths for file in _expand(Path(path))]


def _expand(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    entries = [
        entry
        for entry in sorted(path.iterdir())
        if not entry.name.startswith(".") and (entry.is_dir() or entry.suffix.lower() in SUFFIXES)
    ]
    if not entries:
        raise InputError(f"{path}: no pose files in this folder ({', '.join(SUFFIXES)})")
    all_json = all(entry.suffix.lower() == ".json" and entry.is_file() for entry in entries)
    return [path] if all_json and is_single_image(entries[0]) else entries


def list_videos(path: Path, options: ReadOptions) -> list[VideoEntry]:
    """List the videos in a file, or the one in a folder.

    The suffix decides: `.pkl` (pyskl, read without running code), `.h5` (a store), `.npz`,
    `.skeleton` (raw NTU), `.csv` (a table, see `sources.poses.tables`); everything else is read as
    JSON of a pose estimator, see `read_poses`.

    Raises:
        InputError: If the file cannot be read.
    """
    check_no_device(path)
    suffix, name = path.suffix.lower(), clip_name(path.name)
    if path.is_dir():
        return [VideoEntry(name, path, partial(_read_estimator, path, options, None))]
    if suffix in (".pkl", ".pickle"):
        return _list_pickle(path, options)
    if suffix in (".h5", ".hdf5"):
        return _list_store(path, options)
    if is_table(path):
        return [
            VideoEntry(video or name, path, partial(_read_estimator, path, options, video))
            for video in read_video_names(path)
        ]
    if suffix == ".npz":
        return [VideoEntry(path.stem, path, partial(_read_arrays, path, options))]
    if suffix == ".skeleton":
        return [VideoEntry(path.stem, path, partial(_read_ntu, path, options))]
    return [VideoEntry(name, path, partial(_read_estimator, path, options, None))]


def _list_pickle(path: Path, options: ReadOptions) -> list[VideoEntry]:
    source = PysklSource(path, options.frame_size)
    form = detect_source_format(source, path, options.units, options.pixels)
    names = [source.name(i) for i in range(len(source))]
    members = _split_members(path, options.split, source.splits)
    return [
        VideoEntry(name, path, partial(_read_pickled, source, i, path, options, form))
        for i, name in enumerate(names)
        if members is None or name in members
    ]


def _split_members(
    path: Path, split: str | None, splits: Mapping[str, Sequence[str]]
) -> set[str] | None:
    if split is None:
        return None
    if split not in splits:
        raise InputError(
            f"{path}: no split {split!r}; available splits: {', '.join(splits) or 'none'}"
        )
    return set(splits[split])


def _read_pickled(
    source: PysklSource, index: int, path: Path, options: ReadOptions, form: CoordinateFormat
) -> Video:
    return _array_video(form.to_stored(source[index]), path, options, form.notes())


def _list_store(path: Path, options: ReadOptions) -> list[VideoEntry]:
    store = Store(path)
    rows = range(len(store)) if options.split is None else store.rows(options.split).tolist()
    skeleton = load_skeleton(options.skeleton) if options.skeleton else store.skeleton

    def read(row: int) -> Video:
        recording = store.recording(row)
        return ArrayVideo(recording.name, skeleton, (), recording)

    return [VideoEntry(store.name(row), path, partial(read, row)) for row in rows]


def _read_estimator(path: Path, options: ReadOptions, video: str | None) -> Video:
    poses = read_poses(path, options.frame_size, options.skeleton, video, options.units)
    return TrackedVideo(video or clip_name(path.name), poses.skeleton, poses.form.notes(), poses)


def _read_ntu(path: Path, options: ReadOptions) -> Video:
    keypoint, score, frame_size = read_actors(str(path), options.pixels)
    skeleton = load_skeleton(options.skeleton) if options.skeleton else SKELETONS["ntu25"]
    return ArrayVideo(path.stem, skeleton, (), Recording(path.stem, 0, keypoint, score, frame_size))


def _read_arrays(path: Path, options: ReadOptions) -> Video:
    """Read `keypoint` (M, T, V, 2 or 3), and optional `score` (M, T, V) and `frame_size` (2,)."""
    arrays = read_arrays(path, ("keypoint",), ("score", "frame_size"))
    size = options.frame_size
    if "frame_size" in arrays:
        size = _frame_size(arrays["frame_size"], path)
    keypoint, score = arrays["keypoint"], arrays.get("score")
    recording = Recording(path.stem, 0, keypoint, score, parse_frame_size(size))
    form = detect_format([recording], path, options.units, options.pixels)
    return _array_video(form.to_stored(recording), path, options, form.notes())


def _frame_size(array: np.ndarray, path: Path) -> list[int]:
    if array.dtype.kind not in "iuf" or array.size != 2 or not np.isfinite(array).all():
        raise InputError(
            f"{path}: frame_size is {one_line(array.ravel()[:4], 60)}, expected two whole numbers, "
            "(height, width) in pixels"
        )
    return [int(side) for side in array.ravel()]


def _array_video(
    recording: Recording, path: Path, options: ReadOptions, notes: Sequence[str]
) -> Video:
    skeleton = choose_skeleton(path, recording.keypoint, options)
    return ArrayVideo(recording.name, skeleton, notes, recording)


def choose_skeleton(path: Path | str, keypoint: np.ndarray, options: ReadOptions) -> Skeleton:
    """Choose the joint layout of an array (M, T, V, C).

    `options.skeleton` if set; else the model's layout if the number of joints fits; else the usual
    layout with that number.

    Raises:
        InputError: If no layout has this number of joints.
    """
    if keypoint.ndim != 4:
        raise InputError(
            f"{path}: keypoints have shape {keypoint.shape}, expected (persons, frames, joints, "
            "2 or 3)"
        )
    joints, layout = keypoint.shape[2], options.layout
    usual = ESTIMATOR_LAYOUTS if keypoint.shape[3] == 2 else LAYOUTS_3D
    if options.skeleton is None and joints == len(layout):
        return layout
    if options.skeleton is None and joints not in usual:
        raise InputError(
            f"{path}: {joints} joints, but the model expects the {len(layout)} of {layout.name}; "
            "pass skeleton=NAME, or a YAML file with joints and edges"
        )
    skeleton = load_skeleton(options.skeleton or usual[joints])
    if len(skeleton) != joints:
        raise InputError(
            f"{path}: {joints} joints, but skeleton {skeleton.name} has {len(skeleton)}; pass the "
            "layout of the file as skeleton=..."
        )
    return skeleton
