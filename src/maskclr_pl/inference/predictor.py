"""What a trained classifier says of poses that belong to no data set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from maskclr_pl.data import Recording
from maskclr_pl.data.dataset import Sampling, clip_item, collate, frames_as_tested
from maskclr_pl.data.store.checks import check_recording
from maskclr_pl.data.store.reader import scores_as_zeros
from maskclr_pl.finite import answered
from maskclr_pl.inference.inputs import ReadOptions, choose_skeleton
from maskclr_pl.methods import Classifier
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.sources.format_detection import detect_format
from maskclr_pl.sources.options import parse_frame_size
from maskclr_pl.sources.units import fill_frame_size
from maskclr_pl.transforms import Convert
from maskclr_pl.types import InputError
from maskclr_pl.visibility import DIMENSIONS, visible_joints

MAX_MISSING = 0.34
"""Share of the model's joints that a file's layout may lack: four of COCO's 17 are in the face."""


class Predictor:
    """A trained classifier that is asked about poses.

    Poses are converted to the layout of the data that the model was trained on, made a clip by the
    code that made its training and test clips, and given to the model's own preprocessing.

    Args:
        method: In eval mode.
        info: Metadata of its checkpoint.
        device: Where to compute.
        most_missing: Largest share of the joints that a layout may lack.
    """

    def __init__(
        self,
        method: Classifier,
        info: Mapping[str, Any],
        device: torch.device,
        most_missing: float = MAX_MISSING,
    ):
        self.method, self.device = method.to(device), device
        self.most_missing = most_missing
        self.class_names: list[str] = list(info["class_names"])
        self.skeleton = Skeleton.from_dict(info["source_skeleton"])
        """Layout of the data that the model was trained on."""
        self.coordinates: str = info["config"]["augment"]["coordinates"]
        """`pixels` or `metres`."""
        data = info["config"]["data"]
        self._frames: int = data["frames"]
        self._sampling: Sampling = data["sampling"]
        self._released: bool = data.get("released", False)
        self.persons: int = data["persons"]
        """Persons of a clip."""
        lengths = info.get("recording_frames") or {}
        self.window: int = lengths.get("median", max(64, self._frames))
        """Frames of a typical recording that the model was trained on."""
        self.longest: int = 3 * lengths.get("longest", 200) // 2
        """Frames up to which a video is taken as a whole: half more than the longest of them has.
        Checkpoints of early versions do not say."""
        self._converts: dict[tuple[str, ...], Convert] = {}

    def __call__(
        self,
        clip: Recording | Float[np.ndarray, "M T V C"],
        score: Float[np.ndarray, "M T V"] | None = None,
        frame_size: Sequence[int] | None = None,
        skeleton: str | Skeleton | None = None,
    ) -> Float[np.ndarray, " K"]:
        """Probabilities of the classes for one clip, which is taken as a whole.

        Args:
            clip: (M, T, V, C): M persons, T frames, V joints; C = 2 is (x, y) in pixels, C = 3 is
                (x, y, z) in metres. Joints that were not found are zeros. Other units are
                recognized by the values and converted, see `detect_format`. A `Recording` has score
                and frame size in it, and is in the units of a store.
            score: Confidence of each joint, 0 for one that was not found.
            frame_size: (height, width) of the image in pixels; by default the smallest that holds
                all joints, since clips are moved to the persons anyway.
            skeleton: Layout of the joints, a name or a `Skeleton`; by default the model's.

        Raises:
            InputError: If the clip is no such array, or does not fit the model.
        """
        if not isinstance(clip, Recording):
            clip = Recording("clip", 0, np.asarray(clip), score, parse_frame_size(frame_size))
            clip = detect_format([clip], "clip", flat=self.coordinates == "pixels").to_stored(clip)
        if not isinstance(skeleton, Skeleton):
            how = ReadOptions(self.coordinates == "pixels", self.skeleton, skeleton)
            skeleton = choose_skeleton(clip.name, clip.keypoint, how)
        logits = next(self.logits([self.fitted(clip, skeleton)]))
        return softmax(logits)

    def top(self, *clip: Any, k: int = 5, **options: Any) -> list[tuple[str, float]]:
        """The k most likely classes with their probabilities; arguments as of a call."""
        return top_classes(self(*clip, **options), self.class_names, k)

    def usable(self, recording: Recording, skeleton: Skeleton) -> Recording:
        """A recording that was looked at, with a size of its image if it has pixels.

        Raises:
            InputError: If its values cannot be used, or its coordinates are others than the
                model's.
        """
        self._check_coordinates(recording)
        recording = replace(recording, name=recording.name or "clip", label=0)
        # clips are moved to the persons: it does not matter whether they are inside the image
        check_recording(replace(recording, frame_size=(1, 1)), skeleton)
        metres = self.coordinates == "metres"
        return scores_as_zeros(recording) if metres else fill_frame_size(recording)

    def fitted(self, recording: Recording, skeleton: Skeleton) -> Recording:
        """A `usable` recording in the layout of the training data.

        Raises:
            InputError: If its layout lacks too many joints.
        """
        recording = self.usable(recording, skeleton)
        keypoint, score = recording.keypoint, recording.score
        if skeleton.joints == self.skeleton.joints:
            return recording
        convert = self.conversion(recording.name, skeleton)
        if self.coordinates == "metres":
            return replace(recording, keypoint=_converted(convert, keypoint))
        known = visible_joints(keypoint) if score is None else score
        clip = _converted(convert, np.concatenate([keypoint, known[..., None]], axis=-1))
        return replace(recording, keypoint=clip[..., :2], score=clip[..., 2])

    def conversion(self, name: str, skeleton: Skeleton) -> Convert:
        """The step from a layout to that of the training data.

        Raises:
            InputError: If too many joints cannot be built.
        """
        if skeleton.joints not in self._converts:
            flat = self.coordinates == "pixels"
            self._converts[skeleton.joints] = Convert(skeleton, self.skeleton, flat)
        convert = self._converts[skeleton.joints]
        if len(convert.missing) > self.most_missing * len(self.skeleton):
            raise InputError(
                f"{name}: {skeleton.name} lacks {len(convert.missing)} of the {len(self.skeleton)} "
                f"joints of {self.skeleton.name}, which the model was trained on "
                f"({_listed(convert.missing)}); type the skeleton=... of this file, or "
                "max_missing=1 to predict all the same"
            )
        return convert

    def layout_note(self, skeleton: Skeleton) -> str:
        """What becomes of the joints of a layout, in one line."""
        if skeleton.joints == self.skeleton.joints:
            return f"{skeleton.name}, as the model was trained on"
        convert = self.conversion(skeleton.name, skeleton)
        built = (convert.weights > 0).sum(0) > 1
        means = [j for j, mean in zip(self.skeleton.joints, built, strict=True) if mean]
        parts = [f"{skeleton.name} -> {self.skeleton.name}"]
        parts += [f"means of others: {_listed(means)}"] if means else []
        parts += [f"missing: {_listed(convert.missing)}"] if convert.missing else []
        return "; ".join(parts)

    def logits(
        self, recordings: Iterable[Recording], batch_size: int = 64
    ) -> Iterator[Float[np.ndarray, " K"]]:
        """Logits of recordings that are `fitted`, in their order."""
        left = iter(recordings)
        while some := list(islice(left, batch_size)):
            yield from self._ask(some)

    @torch.no_grad()
    def _ask(self, recordings: Sequence[Recording]) -> Float[np.ndarray, "B K"]:
        items = []
        for index, recording in enumerate(recordings):
            length = recording.keypoint.shape[1]
            frame = frames_as_tested(length, self._frames, self._sampling, self._released)
            items.append(clip_item(recording, frame, self.persons, index, self._released))
        batch = self.method.transfer_batch_to_device(collate(items), self.device, 0)
        logits = self.method.predict_clips(batch["clip"], batch).logits.float().cpu()
        if not (known := answered(logits)).all():
            name = recordings[int((~known).nonzero()[0])].name
            raise InputError(
                f"{name}: the model answers with values that are not numbers; its weights are for "
                "other poses, or its training went wrong; use another checkpoint"
            )
        return np.asarray(logits)

    def _check_coordinates(self, recording: Recording) -> None:
        shape = recording.keypoint.shape
        channels = DIMENSIONS[self.coordinates]
        if len(shape) != 4 or shape[3] not in (2, 3) or shape[3] == channels:
            return  # what is no such array at all is said by `check_recording`
        if channels == 3:
            raise InputError(
                f"{recording.name}: 2D poses in pixels, but the model was trained on 3D joints in "
                "metres; type the ckpt_path=... of a model of 2D poses"
            )
        raise InputError(
            f"{recording.name}: three coordinates, so 3D joints, but the model was trained on 2D "
            "poses in pixels; type the ckpt_path=... of a model of 3D joints, or give x and y "
            "alone, and scores as an array `score`"
        )


def _converted(convert: Convert, values: np.ndarray) -> np.ndarray:
    clip: np.ndarray = convert(torch.from_numpy(np.asarray(values, np.float32))).numpy()
    return clip


def softmax(logits: Float[np.ndarray, "*n K"]) -> Float[np.ndarray, "*n K"]:
    """Probabilities."""
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def top_classes(
    probabilities: Float[np.ndarray, " K"], class_names: Sequence[str], k: int
) -> list[tuple[str, float]]:
    """The k most likely classes, the most likely first."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [(class_names[i], float(probabilities[i])) for i in order]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
