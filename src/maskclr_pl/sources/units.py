"""Units of coordinates, and the conversion of those in a file to pixels and meters of the store.

Every file passes here on its way into a store or to a model. Its first recordings decide for all
of them (`detect_format`), and each is checked against the decision before it is converted, so that
a file that mixes units is refused.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskclr_pl.data.store.reader import Recording, apply_scores
from maskclr_pl.sources.statistics import CoordinateStats, as_floats, is_clip, measure
from maskclr_pl.types import InputError
from maskclr_pl.visibility import visible_joints

UNITS = ("pixels", "fractions", "normalized", "metres", "millimetres")
_SPELLINGS = {"normalised": "normalized", "meters": "metres", "millimeters": "millimetres"}
NOMINAL = 1000
"""Sides in pixels of the image assumed for normalized poses without an image size."""
SMALL = 3.0
"""Extent that fractions of an image never exceed, and a person in pixels always does."""
BODY = (0.1, 3.0)
"""Size of a body in meters, from a hand to a tall person with stretched arms."""
MAX_SCORE = 1.1
"""Largest score: those of HRNet exceed 1 by a few percent."""


@dataclass(frozen=True)
class CoordinateFormat:
    """Meaning of the numbers in a file.

    Args:
        unit: One of `UNITS`; None if the sample shows nobody: pixels or meters are expected.
        scored: The third channel is the score.
        flat: The third channel is 0 everywhere and is dropped.
        turned: The axes are (frames, persons, ...) instead of (persons, frames, ...).
        score_use: Scores of 3D joints: "none", "all zero" or "zeros" (0 marks a missing joint).
        any_size: Accept every unit, and use the smallest image that holds the joints where no
            image size is known (for a report on a file that would be refused).
        remark: Reason to doubt a unit that the user stated.
    """

    unit: str | None = None
    scored: bool = False
    flat: bool = False
    turned: bool = False
    score_use: str = "none"
    any_size: bool = False
    remark: str = ""

    @property
    def is_stored_format(self) -> bool:
        """Check if the numbers can be stored without conversion."""
        stored_unit = self.unit in (None, "pixels", "metres")
        return stored_unit and not (self.scored or self.flat or self.turned)

    def notes(self) -> list[str]:
        """Describe conversions and dropped values in one line, if there are any."""
        parts = [
            ("axes are (frames, persons, joints): swapped", self.turned),
            ("the third channel is read as the score of (x, y)", self.scored),
            ("the third channel is 0 everywhere: dropped", self.flat),
            (
                "coordinates are fractions of the image: converted to pixels",
                self.unit == "fractions",
            ),
            (
                "coordinates are normalized to -1..1, x and y by one length: converted to pixels "
                f"(of a {NOMINAL} x {NOMINAL} image where no image size is given)",
                self.unit == "normalized",
            ),
            ("coordinates are millimetres: converted to metres", self.unit == "millimetres"),
            (
                "3D joints with score 0 count as missing, other scores are not used",
                self.score_use == "zeros",
            ),
            ("all scores of the 3D joints are 0: not used", self.score_use == "all zero"),
            (self.remark, bool(self.remark)),
        ]
        text = "; ".join(part for part, applies in parts if applies)
        return [text] if text else []

    def to_stored(self, recording: Recording) -> Recording:
        """Convert a recording of the file to pixels or meters.

        Converted coordinates stay in half precision, or are in single precision.

        Raises:
            InputError: If its numbers have another format than the file, or a required image size
                is not known.
        """
        if not is_clip(recording.keypoint):
            return recording  # `check_recording` reports it
        if self.turned:
            recording = _swap_axes(recording)
        stats = measure(recording)
        problem = "" if stats is None or self.any_size else self._contradiction(stats)
        if problem:
            raise InputError(f"clip {recording.name!r}: {problem}")
        if recording.keypoint.shape[3] == 3 and self.flat:
            recording = replace(recording, keypoint=recording.keypoint[..., :2])
        elif recording.keypoint.shape[3] == 3 and self.scored:
            recording = _split_score(recording)
        if recording.keypoint.shape[3] == 3:
            return self._to_meters(recording)
        recording = self._to_pixels(recording)
        return fill_frame_size(recording) if self.any_size else recording

    def _contradiction(self, stats: CoordinateStats) -> str:
        """Explain why a recording does not have this format; empty if it does."""
        channels = stats.points.shape[1]
        unit = self.unit or ("pixels" if channels == 2 else "metres")
        if unit == "pixels":  # all joints of an image within three pixels of its corner
            wrong = stats.extent <= SMALL and stats.body_2d > 0.02
        elif unit in ("fractions", "normalized"):
            wrong = stats.extent > SMALL
        elif unit == "metres":
            wrong = stats.body_3d > 10 * BODY[1] and not self.remark
        else:
            wrong = stats.body_3d < 10 * BODY[1]
        if wrong:
            expected = f"{unit} of the first clips" if self.unit else f"expected {unit}"
            return (
                f"its coordinates ({stats.ranges()}) are not the {expected}; a file must have one "
                "unit; pass units=, or make a store for each unit"
            )
        if stats.frames_first:
            return "its axes look like (frames, persons, joints), unlike those of the first clips"
        if self.scored and channels == 3 and not is_score(stats.third):
            return (
                f"its third channel goes from {stats.third.min():g} to {stats.third.max():g}, "
                "but is the score in the first clips"
            )
        return ""

    def _to_meters(self, recording: Recording) -> Recording:
        if self.unit == "millimetres":
            keypoint = recording.keypoint
            meters = (as_floats(keypoint) / 1000).astype(_precision(keypoint))
            recording = replace(recording, keypoint=meters)
        if self.score_use == "zeros":
            return apply_scores(recording)
        return replace(recording, score=None) if self.score_use == "all zero" else recording

    def _to_pixels(self, recording: Recording) -> Recording:
        if self.unit not in ("fractions", "normalized"):
            return recording
        size, keypoint = recording.frame_size, as_floats(recording.keypoint)
        if self.unit == "normalized":
            size = size or (NOMINAL, NOMINAL)
            pixels = (keypoint + 1) * (max(size) / 2)
        elif size is None:
            raise InputError(
                f"clip {recording.name!r}: its coordinates are fractions of the image; pass "
                "frame_size=[HEIGHT,WIDTH] of the videos"
            )
        else:
            pixels = keypoint * (size[1], size[0])
        # zeros mark a missing joint where there are no scores
        pixels[~np.any(keypoint != 0, axis=-1)] = 0
        with np.errstate(over="ignore"):  # infinities are refused when a store is written
            return replace(
                recording, keypoint=pixels.astype(_precision(recording.keypoint)), frame_size=size
            )


def fill_frame_size(recording: Recording) -> Recording:
    """Set a missing image size to the smallest image that holds all visible joints.

    The exact size matters little, since clips are normalized to the persons.
    """
    if recording.frame_size is not None:
        return recording
    points = recording.keypoint[visible_joints(recording.keypoint, recording.score)]
    points = points[np.isfinite(points).all(-1)]
    if not len(points):
        return replace(recording, frame_size=(1, 1))
    width, height = (max(1, int(side) + 1) for side in points.max(axis=0))
    return replace(recording, frame_size=(height, width))


def parse_unit(unit: Any) -> str | None:
    """Return a unit in the spelling of `UNITS`; None stays None.

    Raises:
        InputError: If it is another value.
    """
    name = _SPELLINGS.get(unit, unit) if isinstance(unit, str) else unit
    if name is not None and name not in UNITS:
        raise InputError(f"units={unit}: expected one of {', '.join(UNITS)}")
    return name


def is_score(third: np.ndarray) -> bool:
    """Check if a third channel can be scores, or the visibility flags 0, 1, 2 of COCO."""
    low, high = third.min(), third.max()
    is_flag = high == 2 and np.isin(third, (0, 1, 2)).all()
    return bool(low >= 0 and (high <= MAX_SCORE or is_flag))


def _swap_axes(recording: Recording) -> Recording:
    score = recording.score
    return replace(
        recording,
        keypoint=recording.keypoint.swapaxes(0, 1),  # (T, M, V, C) -> (M, T, V, C)
        score=score.swapaxes(0, 1) if score is not None and score.ndim > 1 else score,
    )


def _split_score(recording: Recording) -> Recording:
    """Use the third channel as the score; COCO's flag 2, a visible joint, becomes 1."""
    keypoint, score = recording.keypoint, recording.keypoint[..., 2]
    if score.size and score.max() > MAX_SCORE:
        score = np.minimum(score, 1)
    return replace(recording, keypoint=keypoint[..., :2], score=score)


def _precision(keypoint: np.ndarray) -> np.dtype:
    """Return the type of converted coordinates: half precision stays, all else is single."""
    return np.dtype(np.float16 if keypoint.dtype == np.float16 else np.float32)
