"""Clips of equal size cut from recordings, and batches of them."""

import copy
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from maskclr_pl.data.samplers import Key
from maskclr_pl.data.store.reader import Recording, Store, apply_scores
from maskclr_pl.transforms import (
    find_identity_swaps,
    image_normalize,
    jittered_frames,
    uniform_frames,
)
from maskclr_pl.types import Batch
from maskclr_pl.visibility import visible_in_clip, visible_joints

Sampling = Literal["resample", "whole"]
"""`resample`: choose frames so that every clip has the same length. `whole`: keep all frames; a
transform on the device then brings batches to one length (3D pipelines)."""

MAX_FRAMES = 300
"""Longest clip that `whole` returns, as in the published arrays of NTU; longer ones are thinned."""


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips of a split, with the joints of the store and a fixed number of persons.

    2D coordinates are in image units ([-1, 1] over the longer side); a joint without confidence is
    all zeros.

    Args:
        store: Store of the recordings.
        rows: Indices of the recordings, in order.
        frames: Length of a clip, if resampled.
        persons: Persons per clip. Recordings with more keep the most visible ones.
        train: Draw the frames at each access; otherwise, space them evenly.
        seed: Draws depend on (seed, epoch, index) only.
        sampling: See `Sampling`.
        released: See `make_clip`.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        frames: int,
        persons: int,
        train: bool,
        seed: int = 0,
        sampling: Sampling = "resample",
        released: bool = False,
    ):
        self.store, self.rows = store, rows
        self.frames, self.persons, self.train, self.seed = frames, persons, train, seed
        self.sampling, self.released = sampling, released
        self.poses = True
        """False: clips without frames, for methods that cache the features of all clips."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """Class of each clip, (n,)."""
        return self.store.label[self.rows]

    @property
    def lengths(self) -> np.ndarray:
        """Frames of the recording of each clip, (n,)."""
        return self.store.frames[self.rows]

    @property
    def names(self) -> list[str]:
        """Name of each clip, (n,)."""
        return [self.store.name(int(row)) for row in self.rows]

    def eval_view(self) -> "ClipDataset":
        """Copy the data set as it is at test time: with poses and evenly spaced frames."""
        other = copy.copy(self)
        other.train, other.poses = False, True
        return other

    def labels_only(self) -> "ClipDataset":
        """Copy the data set without poses: only label and index are read."""
        other = copy.copy(self)
        other.poses = False
        return other

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """Return one unbatched clip as NumPy arrays; a plain index means epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not self.poses:
            return self._empty_clip(index)
        recording = self.store.recording(int(self.rows[index]))
        frame = self._frames(recording.keypoint.shape[1], epoch, index)
        return make_clip(recording, frame, self.persons, index, self.released)

    def _empty_clip(self, index: int) -> dict[str, Any]:
        """Return a clip without frames."""
        row, joints = int(self.rows[index]), len(self.store.skeleton)
        return {
            "clip": np.zeros((3, self.persons, 0, joints), np.float32),
            "present": np.zeros(self.persons, bool),
            "frame": np.zeros(0, np.int64),
            "label": int(self.store.label[row]),
            "index": index,
        }

    def _frames(self, length: int, epoch: int, index: int) -> np.ndarray:
        """Choose the frames of a recording that make its clip."""
        if self.train and self.sampling == "resample":
            draws = np.random.default_rng((self.seed, epoch, index)).random(self.frames)
            return jittered_frames(length, self.frames, draws)
        return eval_frames(length, self.frames, self.sampling, self.released)


def eval_frames(length: int, frames: int, sampling: Sampling, released: bool = False) -> np.ndarray:
    """Choose evenly spaced frames of a recording.

    Args:
        length: Frames of the recording.
        frames: Length of a clip, if resampled.
        sampling: See `Sampling`.
        released: See `make_clip`.
    """
    if sampling == "whole":
        return uniform_frames(length, min(length, MAX_FRAMES))
    return uniform_frames(length, frames, released)


# a damaged store may contain NaN; such a clip has no prediction and counts as wrong
@np.errstate(invalid="ignore", over="ignore")
def make_clip(
    recording: Recording, frame: np.ndarray, persons: int, index: int, released: bool = False
) -> dict[str, Any]:
    """Make an unbatched clip for `collate` from a recording.

    Args:
        recording: Recording in pixels or meters, in the layout of the store.
        frame: Frames that make the clip.
        persons: Persons per clip; the most visible ones are kept.
        index: Index of the clip, passed on.
        released: Make 2D clips as the released code of MotionBERT and MaskCLR does, but in single
            precision (compat=released): joints without confidence keep their coordinates (pixel
            0 is -1), confidences do not follow persons whose identities are exchanged, and a
            person who is absent for a while takes part in the tracking.

    Returns:
        clip (3, M, T, V), present (M,), frame (T,), label, and index.
    """
    size = recording.frame_size
    if size is None:  # (x, y, z) leaves no channel for a confidence
        clip = _metric_clip(recording, frame, persons)
    else:
        clip = _image_clip(recording, frame, persons, size, released)
    visible = visible_in_clip(np.moveaxis(clip, 0, -1), "metres" if size is None else "pixels")
    return {
        "clip": clip,
        "present": visible.any((1, 2)),
        "frame": frame,
        "label": recording.label,
        "index": index,
    }


def most_visible(weight: np.ndarray, persons: int) -> np.ndarray:
    """Return the indices of the persons with the largest sums of weights (M, T, V), ascending."""
    return np.sort(np.argsort(-weight.sum((1, 2), dtype=np.float32), kind="stable")[:persons])


def _metric_clip(recording: Recording, frame: np.ndarray, persons: int) -> np.ndarray:
    """Return a clip (3, M, T, V) in meters."""
    keypoint = apply_scores(recording).keypoint  # stores of earlier versions have scores in 3D
    if len(keypoint) > persons:
        keypoint = keypoint[most_visible(visible_joints(keypoint), persons)]
    clip = np.zeros((3, persons, len(frame), keypoint.shape[2]), np.float32)
    clip[:, : len(keypoint)] = np.moveaxis(keypoint[:, frame], -1, 0)
    return clip


def _image_clip(
    recording: Recording, frame: np.ndarray, persons: int, size: tuple[int, int], released: bool
) -> np.ndarray:
    """Return (x, y, confidence) as (3, M, T, V) in image units; persons keep their identity."""
    keypoint, score = recording.keypoint, recording.score
    if score is None:
        score = visible_joints(keypoint)
    if len(keypoint) > persons:
        best = most_visible(score, persons)
        keypoint, score = keypoint[best], score[best]
    clip = np.zeros((3, persons, len(frame), keypoint.shape[2]), np.float32)
    filled = clip[:, : len(keypoint)]
    filled[:2] = np.moveaxis(image_normalize(keypoint[:, frame], size), -1, 0)
    filled[2] = np.maximum(score[:, frame], 0)
    if not released:
        filled[:2] *= filled[2] > 0
    if len(keypoint) == 2:
        swapped = find_identity_swaps(keypoint.astype(np.float32), None if released else score)[
            frame
        ]
        exchanged = filled[:2] if released else filled
        exchanged[:, :, swapped] = exchanged[:, ::-1, swapped]
    return clip


def collate(items: list[dict[str, Any]]) -> Batch:
    """Batch clips; channels are contiguous planes in memory, and short clips end in zeros."""
    present = torch.from_numpy(np.stack([item["present"] for item in items]))
    length = max(len(item["frame"]) for item in items)
    first = items[0]["clip"]
    clip = np.zeros((len(first), len(items), first.shape[1], length, first.shape[3]), np.float32)
    frame = np.full((len(items), length), -1)
    for i, item in enumerate(items):
        frames = len(item["frame"])
        clip[:, i, :, :frames] = item["clip"]
        frame[i, :frames] = item["frame"]
    return {
        "clip": torch.from_numpy(clip).movedim(0, -1),
        "present": present,
        "sequence": present.flatten().nonzero().squeeze(1),
        "frame": torch.from_numpy(frame),
        "label": torch.tensor([item["label"] for item in items]),
        "index": torch.tensor([item["index"] for item in items]),
    }
