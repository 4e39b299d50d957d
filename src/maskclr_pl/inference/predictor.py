"""Class probabilities for poses from any source."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from maskclr_pl.data import Recording
from maskclr_pl.data.dataset import Sampling, collate, eval_frames, make_clip
from maskclr_pl.data.store.checks import check_recording
from maskclr_pl.data.store.reader import apply_scores
from maskclr_pl.heads import is_finite_prediction
from maskclr_pl.inference.inputs import ReadOptions, choose_skeleton
from maskclr_pl.methods import Classifier
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.format_detection import detect_format
from maskclr_pl.sources.options import parse_frame_size
from maskclr_pl.sources.units import fill_frame_size
from maskclr_pl.text import list_names
from maskclr_pl.transforms import Convert
from maskclr_pl.types import InputError
from maskclr_pl.visibility import DIMENSIONS, visible_joints

MAX_MISSING = 0.34
"""Share of the model's joints that a layout may lack: four of COCO's 17 are in the face."""


class Predictor:
    """A trained classifier for poses from any source.

    Poses are converted to the joint layout of the training data, cut to clips by the code that
    made the training and test clips, and given to the model's own preprocessing.

    Args:
        method: Classifier in eval mode.
        info: Metadata of its checkpoint.
        device: Device to compute on.
        max_missing: Largest share of the model's joints that a layout may lack.
    """

    def __init__(
        self,
        method: Classifier,
        info: Mapping[str, Any],
        device: torch.device,
        max_missing: float = MAX_MISSING,
    ):
        self.method, self.device, self.max_missing = method.to(device), device, max_missing
        self.class_names: list[str] = list(info["class_names"])
        self.skeleton = Skeleton.from_dict(info["source_skeleton"])
        """Joint layout of the training data."""
        self.coordinates: str = info["config"]["augment"]["coordinates"]
        """`pixels` or `metres`."""
        data = info["config"]["data"]
        self._frames: int = data["frames"]
        self._sampling: Sampling = data["sampling"]
        self._released: bool = data.get("released", False)
        self.persons: int = data["persons"]
        """Persons of a clip."""
        lengths = info.get("recording_frames") or {}  # missing in checkpoints of early versions
        self.window: int = lengths.get("median", max(64, self._frames))
        """Frames of a typical training recording."""
        self.longest: int = 3 * lengths.get("longest", 200) // 2
        """Longest video in frames that is taken as a whole: 1.5 times the longest recording."""
        self._converts: dict[tuple[str, ...], Convert] = {}

    def __call__(
        self,
        clip: Recording | Float[np.ndarray, "M T V C"],
        score: Float[np.ndarray, "M T V"] | None = None,
        frame_size: Sequence[int] | None = None,
        skeleton: str | Skeleton | None = None,
    ) -> Float[np.ndarray, " K"]:
        """Class probabilities for one clip, taken as a whole.

        Args:
            clip: (M, T, V, C) for M persons, T frames, V joints; C = 2 is (x, y) in pixels, C = 3
                is (x, y, z) in meters, zeros for missing joints. Other units are detected from the
                values and converted, see `detect_format`. A `Recording` includes score and frame
                size and is in the units of a store.
            score: Confidence of each joint, 0 for a missing one.
            frame_size: (height, width) of the image in pixels; by default the smallest that
                contains all joints.
            skeleton: Joint layout, a name or a `Skeleton`; the model's by default.

        Raises:
            InputError: If the clip has another shape, or does not fit the model.
        """
        if not isinstance(clip, Recording):
            clip = Recording("clip", 0, np.asarray(clip), score, parse_frame_size(frame_size))
            clip = detect_format([clip], "clip", flat=self.coordinates == "pixels").to_stored(clip)
        if not isinstance(skeleton, Skeleton):
            options = ReadOptions(self.coordinates == "pixels", self.skeleton, skeleton)
            skeleton = choose_skeleton(clip.name, clip.keypoint, options)
        return softmax(next(self.logits([self.convert(clip, skeleton)])))

    def top(self, *clip: Any, k: int = 5, **options: Any) -> list[tuple[str, float]]:
        """The k most likely classes and their probabilities; arguments as in a call."""
        return top_classes(self(*clip, **options), self.class_names, k)

    def validate(self, recording: Recording, skeleton: Skeleton) -> Recording:
        """Check a recording, and add a frame size to one in pixels.

        Raises:
            InputError: If its values are invalid or its coordinates are not of the model's kind.
        """
        self._check_coordinates(recording)
        recording = replace(recording, name=recording.name or "clip", label=0)
        # clips are centered on the persons: joints outside of the image are fine
        check_recording(replace(recording, frame_size=(1, 1)), skeleton)
        if self.coordinates == "metres":
            return apply_scores(recording)
        return fill_frame_size(recording)

    def convert(self, recording: Recording, skeleton: Skeleton) -> Recording:
        """Validate a recording and convert it to the joint layout of the training data.

        Raises:
            InputError: See `validate`; or if its layout lacks too many joints.
        """
        recording = self.validate(recording, skeleton)
        if skeleton.joints == self.skeleton.joints:
            return recording
        convert = self._conversion(recording.name, skeleton)
        keypoint, score = recording.keypoint, recording.score
        if self.coordinates == "metres":
            return replace(recording, keypoint=_apply(convert, keypoint))
        if score is None:
            score = visible_joints(keypoint)
        clip = _apply(convert, np.concatenate([keypoint, score[..., None]], axis=-1))
        return replace(recording, keypoint=clip[..., :2], score=clip[..., 2])

    def _conversion(self, name: str, skeleton: Skeleton) -> Convert:
        if skeleton.joints not in self._converts:
            flat = self.coordinates == "pixels"
            self._converts[skeleton.joints] = Convert(skeleton, self.skeleton, flat)
        convert = self._converts[skeleton.joints]
        if len(convert.missing) > self.max_missing * len(self.skeleton):
            raise InputError(
                f"{name}: {skeleton.name} lacks {len(convert.missing)} of the {len(self.skeleton)} "
                f"joints of {self.skeleton.name} that the model expects "
                f"({list_names(convert.missing)}); pass the skeleton=... of this file, or "
                "max_missing=1 to predict anyway"
            )
        return convert

    def describe_layout(self, skeleton: Skeleton) -> str:
        """Describe the conversion of a joint layout in one line."""
        if skeleton.joints == self.skeleton.joints:
            return f"{skeleton.name}, as in training"
        convert = self._conversion(skeleton.name, skeleton)
        built = (convert.weights > 0).sum(0) > 1  # (V,)
        means = [j for j, mean in zip(self.skeleton.joints, built, strict=True) if mean]
        parts = [f"{skeleton.name} -> {self.skeleton.name}"]
        parts += [f"means of others: {list_names(means)}"] if means else []
        parts += [f"missing: {list_names(convert.missing)}"] if convert.missing else []
        return "; ".join(parts)

    def logits(
        self, recordings: Iterable[Recording], batch_size: int = 64
    ) -> Iterator[Float[np.ndarray, " K"]]:
        """Logits of recordings in the layout of the training data, see `convert`."""
        remaining = iter(recordings)
        while batch := list(islice(remaining, batch_size)):
            yield from self._batch_logits(batch)

    @torch.no_grad()
    def _batch_logits(self, recordings: Sequence[Recording]) -> Float[np.ndarray, "B K"]:
        items = []
        for index, recording in enumerate(recordings):
            length = recording.keypoint.shape[1]
            frame = eval_frames(length, self._frames, self._sampling, self._released)
            items.append(make_clip(recording, frame, self.persons, index, self._released))
        batch = self.method.transfer_batch_to_device(collate(items), self.device, 0)
        logits = self.method.predict_clips(batch["clip"], batch).logits.float().cpu()
        if not (valid := is_finite_prediction(logits)).all():
            name = recordings[int((~valid).nonzero()[0])].name
            raise InputError(
                f"{name}: the model returns NaN or infinite logits; it was trained on other kinds "
                "of poses or its training diverged; use another checkpoint"
            )
        return np.asarray(logits)

    def _check_coordinates(self, recording: Recording) -> None:
        shape = recording.keypoint.shape
        channels = DIMENSIONS[self.coordinates]
        if len(shape) != 4 or shape[3] not in (2, 3) or shape[3] == channels:
            return  # other shapes are refused by `check_recording`
        if channels == 3:
            raise InputError(
                f"{recording.name}: 2D poses in pixels, but the model was trained on 3D joints in "
                "meters; pass the ckpt_path=... of a model of 2D poses"
            )
        raise InputError(
            f"{recording.name}: three coordinates, so 3D joints, but the model was trained on 2D "
            "poses in pixels; pass the ckpt_path=... of a model of 3D joints, or only x and y, "
            "with scores in an array `score`"
        )


def _apply(convert: Convert, values: np.ndarray) -> np.ndarray:
    clip: np.ndarray = convert(torch.from_numpy(np.asarray(values, np.float32))).numpy()
    return clip


def softmax(logits: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n K"]:
    """Probabilities of logits."""
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def top_classes(
    probabilities: Float[np.ndarray, " K"], class_names: Sequence[str], k: int
) -> list[tuple[str, float]]:
    """The k most likely classes and their probabilities, in descending order."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [(class_names[i], float(probabilities[i])) for i in order]
