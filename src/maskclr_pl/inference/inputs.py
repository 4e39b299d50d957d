"""Files that a trained model is asked about: whatever form they have, videos with poses in them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskclr_pl.data.store.reader import Recording, Store
from maskclr_pl.reading import check_no_device, read_arrays
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.sources.convert import detect_source_format
from maskclr_pl.sources.format_detection import detect_format
from maskclr_pl.sources.ntu.source import read_actors
from maskclr_pl.sources.options import parse_frame_size
from maskclr_pl.sources.poses.files import clip_name, is_single_image
from maskclr_pl.sources.poses.tables import is_table, read_video_names
from maskclr_pl.sources.poses.video import ESTIMATOR_LAYOUTS, PoseVideo, read_poses
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.sources.units import CoordinateFormat
from maskclr_pl.types import InputError

IN_METRES = {25: "ntu25", 20: "kinect20"}
"""Joint layout by number of joints for 3D poses; 2D poses use `ESTIMATOR_LAYOUTS`."""
SUFFIXES = (".json", ".csv", ".tsv", ".skeleton", ".npz", ".pkl", ".pickle", ".h5", ".hdf5")
"""Files that are looked for in a folder."""


class ReadOptions(NamedTuple):
    """How files are to be read."""

    pixels: bool
    """Whether the model is one of 2D poses: raw NTU files hold both."""
    layout: Skeleton
    """Of the data the model was trained on: arrays with as many joints are taken to have it."""
    skeleton: str | None = None
    """Layout of the files, where they do not say or would be misunderstood."""
    frame_size: Sequence[int] | None = None
    """(height, width) in pixels, for files that do not say."""
    split: str | None = None
    """Only the recordings of this split, of a pickle or a store."""
    units: str | None = None
    """Unit of the coordinates; None: their values tell."""


class Video(NamedTuple):
    """The poses of one video."""

    name: str
    poses: PoseVideo | Recording
    """Persons that were found in frames; or arrays, (M, T, V, 2) pixels or (M, T, V, 3) metres."""
    skeleton: Skeleton
    notes: Sequence[str] = ()
    """What was converted, see `CoordinateFormat.notes`."""


class VideoEntry(NamedTuple):
    """A video that has not been read yet."""

    name: str
    file: Path
    read: Callable[[], Video]


def find_inputs(given: Any) -> list[Path]:
    """The files, and folders of one video each, that the user named.

    A folder is one video if it has nothing but .json files that hold one image each (the first is
    looked at); otherwise what is in it is looked at one by one.

    Args:
        given: A file or folder, or a list of them.

    Raises:
        InputError: If there is no such file, or nothing in a folder.
    """
    named = list(given) if isinstance(given, list | tuple) else [given]
    if not named or not all(isinstance(one, str | Path) for one in named):
        raise InputError(f"input={given}: expected a file, a folder, or a list of them")
    return [path for one in named for path in _inside(Path(one))]


def _inside(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if not one.name.startswith("."))
    known = [one for one in found if one.is_dir() or one.suffix.lower() in SUFFIXES]
    files = [one for one in known if not one.is_dir()]
    if not known:
        raise InputError(f"{path}: no pose files in this folder ({', '.join(SUFFIXES)})")
    if len(files) == len(known) and all(one.suffix.lower() == ".json" for one in files):
        return [path] if is_single_image(files[0]) else files
    return known


def list_videos(path: Path, how: ReadOptions) -> list[VideoEntry]:
    """The videos in a file, or the one in a folder.

    Recognised by the ending: `.pkl` (pyskl, read without running code), `.h5` (a store), `.npz`,
    `.skeleton` (raw NTU), `.csv` (a table, see `pose_tables`); everything else is JSON of a pose
    estimator, see `read_poses`.

    Raises:
        InputError: If the file cannot be read.
    """
    check_no_device(path)
    ending, name = path.suffix.lower(), clip_name(path.name)
    if path.is_dir():
        return [VideoEntry(name, path, partial(_estimated, path, how, None))]
    if ending in (".pkl", ".pickle"):
        source = PysklSource(path, how.frame_size)
        form = detect_source_format(source, path, how.units, how.pixels)
        rows = _rows(path, how.split, source.splits, [source.name(i) for i in range(len(source))])
        return [
            VideoEntry(source.name(i), path, partial(_annotated, source, i, path, how, form))
            for i in rows
        ]
    if ending in (".h5", ".hdf5"):
        store = Store(path)
        indices = range(len(store)) if how.split is None else store.rows(how.split).tolist()
        return [VideoEntry(store.name(i), path, partial(_stored, store, i, how)) for i in indices]
    if is_table(path):
        videos = read_video_names(path)
        return [
            VideoEntry(video or name, path, partial(_estimated, path, how, video))
            for video in videos
        ]
    read = {".npz": _arrays, ".skeleton": _sensed}.get(ending)
    if read is not None:
        return [VideoEntry(path.stem, path, partial(read, path, how))]
    return [VideoEntry(name, path, partial(_estimated, path, how, None))]


def _rows(
    path: Path, split: str | None, splits: dict[str, list[str]], names: list[str]
) -> Sequence[int]:
    if split is None:
        return range(len(names))
    if split not in splits:
        raise InputError(f"{path}: no split {split!r}; it has: {', '.join(splits) or 'none'}")
    members = set(splits[split])
    return [i for i, name in enumerate(names) if name in members]


def _estimated(path: Path, how: ReadOptions, video: str | None) -> Video:
    poses = read_poses(path, how.frame_size, how.skeleton, video, how.units)
    return Video(video or clip_name(path.name), poses, poses.skeleton, poses.form.notes())


def _annotated(
    source: PysklSource, index: int, path: Path, how: ReadOptions, form: CoordinateFormat
) -> Video:
    recording = form.to_stored(source[index])
    skeleton = choose_skeleton(path, recording.keypoint, how)
    return Video(recording.name, recording, skeleton, form.notes())


def _stored(store: Store, index: int, how: ReadOptions) -> Video:
    recording = store.recording(index)
    given = load_skeleton(how.skeleton) if how.skeleton else store.skeleton
    return Video(recording.name, recording, given)


def _sensed(path: Path, how: ReadOptions) -> Video:
    keypoint, score, size = read_actors(str(path), how.pixels)
    skeleton = load_skeleton(how.skeleton) if how.skeleton else SKELETONS["ntu25"]
    return Video(path.stem, Recording(path.stem, 0, keypoint, score, size), skeleton)


def _arrays(path: Path, how: ReadOptions) -> Video:
    """`keypoint` (M, T, V, 2 or 3); `score` (M, T, V) and `frame_size` (height, width) if known."""
    found = read_arrays(path, ("keypoint",), ("score", "frame_size"))
    size = _size(found["frame_size"], path) if "frame_size" in found else how.frame_size
    given = Recording(path.stem, 0, found["keypoint"], found.get("score"), parse_frame_size(size))
    form = detect_format([given], path, how.units, how.pixels)
    recording = form.to_stored(given)
    return Video(path.stem, recording, choose_skeleton(path, recording.keypoint, how), form.notes())


def _size(given: np.ndarray, path: Path) -> list[int]:
    """The numbers of an array `frame_size`."""
    if given.dtype.kind not in "iuf" or given.size != 2 or not np.isfinite(given).all():
        shown = " ".join(str(given.ravel()[:4]).split())[:60]
        raise InputError(
            f"{path}: frame_size is {shown}, expected two whole numbers, (height, width) in pixels"
        )
    return [int(side) for side in given.ravel()]


def choose_skeleton(path: Path | str, keypoint: np.ndarray, how: ReadOptions) -> Skeleton:
    """The layout of an array.

    What was given; else the model's, if it has as many joints; else the usual one with that number.

    Raises:
        InputError: If there is none, or the given one has another number.
    """
    joints = keypoint.shape[2] if keypoint.ndim == 4 else -1
    if joints < 0:
        raise InputError(
            f"{path}: keypoints of shape {keypoint.shape}, expected (persons, frames, joints, 2 or "
            "3)"
        )
    if how.skeleton is None and joints == len(how.layout):
        return how.layout
    usual = ESTIMATOR_LAYOUTS if keypoint.shape[3] == 2 else IN_METRES
    if how.skeleton is None and joints not in usual:
        raise InputError(
            f"{path}: {joints} joints, the model was trained on the {len(how.layout)} of "
            f"{how.layout.name}; type skeleton=NAME, or a YAML file with joints and edges"
        )
    skeleton = load_skeleton(how.skeleton or usual[joints])
    if len(skeleton) != joints:
        raise InputError(
            f"{path}: {joints} joints, but skeleton {skeleton.name} has {len(skeleton)}; type the "
            "skeleton=... that the file was made with"
        )
    return skeleton
