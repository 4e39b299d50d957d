"""Recordings as clips of one size, and batches of them."""

import copy
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from maskclr_pl.data.samplers import Key
from maskclr_pl.data.store.reader import Recording, Store, scores_as_zeros
from maskclr_pl.transforms import (
    find_identity_swaps,
    image_normalize,
    jittered_frames,
    uniform_frames,
)
from maskclr_pl.types import Batch
from maskclr_pl.visibility import visible_in_clip, visible_joints

Sampling = Literal["resample", "whole"]
"""`resample`: frames are picked so that every clip has the same length. `whole`: all frames, and a
transform on the device brings batches to the same length (the 3D pipelines)."""

MAX_FRAMES = 300
"""Longest clip that `whole` passes on, as in NTU's published arrays; longer ones are thinned."""


class ClipDataset(Dataset[dict[str, Any]]):
    """Recordings of a split as clips with the same number of persons.

    The clip has the joints of the store; 2D coordinates are in image units ([-1, 1] over the longer
    side), and a joint without confidence is all zeros.

    Args:
        store: Where the recordings are.
        rows: Which recordings, in order.
        frames: Length of a clip, if resampled.
        persons: Persons per clip. Recordings with more keep those seen best.
        train: Draw the frames afresh at each access; otherwise evenly spaced ones.
        seed: The draws depend on (seed, epoch, index) alone.
        sampling: See `Sampling`.
        released: See `clip_item`.
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
        """False: clips of no frames, for a method that knows the features of all of them."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """Class of each clip."""
        return self.store.label[self.rows]

    @property
    def lengths(self) -> np.ndarray:
        """Frames of the recording of each clip."""
        return self.store.frames[self.rows]

    @property
    def names(self) -> list[str]:
        """Name of each clip."""
        return [self.store.name(int(row)) for row in self.rows]

    def as_tested(self) -> "ClipDataset":
        """The same clips as they are at test time: with poses, evenly spaced frames."""
        other = copy.copy(self)
        other.train, other.poses = False, True
        return other

    def without_poses(self) -> "ClipDataset":
        """The same clips, of which only label and index are read."""
        other = copy.copy(self)
        other.poses = False
        return other

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """One clip, unbatched, as NumPy arrays; a plain index means epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not self.poses:
            return self._nothing(index)
        recording = self.store.recording(int(self.rows[index]))
        frame = self._frames(recording.keypoint.shape[1], epoch, index)
        return clip_item(recording, frame, self.persons, index, self.released)

    def _nothing(self, index: int) -> dict[str, Any]:
        """A clip of no frames."""
        row, joints = int(self.rows[index]), len(self.store.skeleton)
        return {
            "clip": np.zeros((3, self.persons, 0, joints), np.float32),
            "present": np.zeros(self.persons, bool),
            "frame": np.zeros(0, np.int64),
            "label": int(self.store.label[row]),
            "index": index,
        }

    def _frames(self, length: int, epoch: int, index: int) -> np.ndarray:
        """Which frames of a recording make the clip."""
        if self.train and self.sampling == "resample":
            draws = np.random.default_rng((self.seed, epoch, index)).random(self.frames)
            return jittered_frames(length, self.frames, draws)
        return frames_as_tested(length, self.frames, self.sampling, self.released)


def frames_as_tested(
    length: int, frames: int, sampling: Sampling, released: bool = False
) -> np.ndarray:
    """Which frames of a recording make its clip, evenly spaced.

    Args:
        length: Frames of the recording.
        frames: Length of a clip, if resampled.
        sampling: See `Sampling`.
        released: See `clip_item`.
    """
    if sampling == "whole":
        return uniform_frames(length, min(length, MAX_FRAMES))
    return uniform_frames(length, frames, released)


# a damaged store may hold what is not a number; such a clip has no answer, and counts as wrong
@np.errstate(invalid="ignore", over="ignore")
def clip_item(
    recording: Recording, frame: np.ndarray, persons: int, index: int, released: bool = False
) -> dict[str, Any]:
    """A recording as a clip, unbatched, as `collate` takes it.

    Args:
        recording: Pixels or metres, in the layout of the store.
        frame: Frames that make the clip.
        persons: Persons per clip, those seen best.
        index: Its number, which is passed on.
        released: 2D clips as the released code of MotionBERT and MaskCLR makes them, but in single
            precision (compat=released): joints without confidence keep their coordinates (pixel
            0 is -1), confidences do not follow persons whose identities are exchanged, and a
            person who is absent for a while takes part in the tracking.
    """
    size = recording.frame_size
    if size is None:  # (x, y, z): there is no room for a confidence
        clip = _metric_clip(recording, frame, persons)
    else:
        clip = _image_clip(recording, frame, persons, size, released)
    seen = visible_in_clip(np.moveaxis(clip, 0, -1), "metres" if size is None else "pixels")
    return {
        "clip": clip,
        "present": seen.any((1, 2)),
        "frame": frame,
        "label": recording.label,
        "index": index,
    }


def seen_best(weight: np.ndarray, persons: int) -> np.ndarray:
    """The persons with the largest sums of weights (M, T, V), in their order."""
    return np.sort(np.argsort(-weight.sum((1, 2), dtype=np.float32), kind="stable")[:persons])


def _metric_clip(recording: Recording, frame: np.ndarray, persons: int) -> np.ndarray:
    """(3, M, T, V) metres."""
    keypoint = scores_as_zeros(recording).keypoint  # stores of earlier versions have scores in 3D
    if len(keypoint) > persons:
        keypoint = keypoint[seen_best(visible_joints(keypoint), persons)]
    clip = np.zeros((3, persons, len(frame), keypoint.shape[2]), np.float32)
    clip[:, : len(keypoint)] = np.moveaxis(keypoint[:, frame], -1, 0)
    return clip


def _image_clip(
    recording: Recording, frame: np.ndarray, persons: int, size: tuple[int, int], released: bool
) -> np.ndarray:
    """(3, M, T, V): x, y in image units, confidence; persons keep their identity."""
    keypoint, score = recording.keypoint, recording.score
    if score is None:
        score = visible_joints(keypoint)
    if len(keypoint) > persons:
        best = seen_best(score, persons)
        keypoint, score = keypoint[best], score[best]
    clip = np.zeros((3, persons, len(frame), keypoint.shape[2]), np.float32)
    there = clip[:, : len(keypoint)]
    there[:2] = np.moveaxis(image_normalize(keypoint[:, frame], size), -1, 0)
    there[2] = np.maximum(score[:, frame], 0)
    if not released:
        there[:2] *= there[2] > 0
    if len(keypoint) == 2:
        swapped = find_identity_swaps(keypoint.astype(np.float32), None if released else score)[
            frame
        ]
        exchanged = there[:2] if released else there
        exchanged[:, :, swapped] = exchanged[:, ::-1, swapped]
    return clip


def collate(items: list[dict[str, Any]]) -> Batch:
    """A batch from clips; the channels of `clip` are planes in memory, short clips end in zeros."""
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
