"""Units of coordinates, and the way from those of a file to pixels and metres of the store.

Every file passes here on its way into a store or to a model. Its first recordings decide for all
of them (`detect_format`), and each is checked against the decision before it is converted, so that
a file that mixes units is refused.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskclr_pl.data.store.reader import Recording, scores_as_zeros
from maskclr_pl.sources.statistics import Values, as_floats, is_clip, measure
from maskclr_pl.types import InputError
from maskclr_pl.visibility import visible_joints

UNITS = ("pixels", "fractions", "normalised", "metres", "millimetres")
NOMINAL = 1000
"""Sides of the image, in pixels, of normalised poses whose image is not known."""
SMALL = 3.0
"""No person is three pixels large, and no fraction of an image is as large."""
BODY = (0.1, 3.0)
"""Size of a body in metres, from a hand to a tall person who stretches."""
SCORE = 1.1
"""Largest score: HRNet's exceed 1 by a few percent."""


@dataclass(frozen=True)
class CoordinateFormat:
    """What the numbers of a file mean.

    Args:
        unit: One of `UNITS`; None if nobody was in the sample: pixels or metres are expected.
        scored: The third channel is the score.
        flat: The third channel is 0 everywhere and is left out.
        turned: The axes are (frames, persons, ...) instead of (persons, frames, ...).
        score_use: Scores of 3D joints: "none", "all zero" or "zeros" (0 marks a missing joint).
        any_size: Poses whose image size is not known get the smallest image that holds them (a
            report on a file that would be refused).
        remark: What makes the unit doubtful, for a unit that was stated.
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
        """Whether the numbers are what a store holds."""
        plain = self.unit in (None, "pixels", "metres")
        return plain and not (self.scored or self.flat or self.turned)

    def notes(self) -> list[str]:
        """What is converted or left out: one line, or none."""
        parts = [
            ("axes are (frames, persons, joints): exchanged", self.turned),
            ("the third channel is read as the score of (x, y)", self.scored),
            ("the third channel is 0 everywhere: left out", self.flat),
            ("coordinates are fractions of the image: stored as pixels", self.unit == "fractions"),
            (
                "coordinates are normalised to -1..1, x and y by one length: stored as pixels "
                f"(of a {NOMINAL} x {NOMINAL} image where no image size is given)",
                self.unit == "normalised",
            ),
            ("coordinates are millimetres: stored as metres", self.unit == "millimetres"),
            (
                "3D joints with score 0 count as missing, other scores are not used",
                self.score_use == "zeros",
            ),
            ("all scores of the 3D joints are 0: not used", self.score_use == "all zero"),
            (self.remark, bool(self.remark)),
        ]
        text = "; ".join(part for part, holds in parts if holds)
        return [text] if text else []

    def to_stored(self, recording: Recording) -> Recording:
        """A recording of the file as the store holds it: pixels or metres.

        Converted coordinates stay in half precision, or are in single precision.

        Raises:
            InputError: If its numbers mean something else than those of the file, or the size of
                the image is needed and not known.
        """
        if not is_clip(recording.keypoint):
            return recording  # `check_recording` complains
        if self.turned:
            recording = _exchanged(recording)
        values = measure(recording)
        if values is not None:
            problem = self._contradiction(values)
            if problem:
                raise InputError(f"clip {recording.name!r}: {problem}")
        if self.flat and recording.keypoint.shape[3] == 3:
            recording = replace(recording, keypoint=recording.keypoint[..., :2])
        if self.scored and recording.keypoint.shape[3] == 3:
            recording = _with_score(recording)
        if recording.keypoint.shape[3] == 3:
            return self._metric(recording)
        recording = self._pixels(recording)
        return fill_frame_size(recording) if self.any_size else recording

    def _contradiction(self, values: Values) -> str:
        """Why a recording is not of this form; empty if it is."""
        if self.any_size:
            return ""
        channels = values.points.shape[1]
        unit = self.unit or ("pixels" if channels == 2 else "metres")
        first = "of the first clips" if self.unit else "that are expected; pass units="
        if unit == "pixels":  # all joints of an image within three pixels of its corner
            wrong = values.far <= SMALL and values.body > 0.02
        elif unit in ("fractions", "normalised"):
            wrong = values.far > SMALL
        elif unit == "metres":
            wrong = values.body3 > 10 * BODY[1] and not self.remark
        else:
            wrong = values.body3 < 10 * BODY[1]
        if wrong:
            return (
                f"its coordinates ({values.ranges()}) are not the {unit} {first}; a file must have "
                "one unit; convert it, or make a store for each"
            )
        if values.turned:
            return "its axes look like (frames, persons, joints), unlike those of the first clips"
        if self.scored and channels == 3 and not is_score(values.third):
            return (
                f"its third channel goes from {values.third.min():g} to {values.third.max():g}, "
                "but is the score in the first clips"
            )
        return ""

    def _metric(self, recording: Recording) -> Recording:
        if self.unit == "millimetres":
            keypoint = recording.keypoint
            metres = (as_floats(keypoint) / 1000).astype(_precision(keypoint))
            recording = replace(recording, keypoint=metres)
        if self.score_use == "zeros":
            return scores_as_zeros(recording)
        return replace(recording, score=None) if self.score_use == "all zero" else recording

    def _pixels(self, recording: Recording) -> Recording:
        if self.unit not in ("fractions", "normalised"):
            return recording
        size, keypoint = recording.frame_size, as_floats(recording.keypoint)
        if self.unit == "normalised":
            size = size or (NOMINAL, NOMINAL)
            pixels = (keypoint + 1) * (max(size) / 2)
        elif size is None:
            raise InputError(
                f"clip {recording.name!r}: its coordinates are fractions of the image, whose size "
                "is not known; pass frame_size=[HEIGHT,WIDTH] of the videos"
            )
        else:
            pixels = keypoint * (size[1], size[0])
        # a joint that was not found stays at the origin, which says so where there are no scores
        pixels[~np.any(keypoint != 0, axis=-1)] = 0
        with np.errstate(over="ignore"):  # infinities are refused with those of other files
            return replace(
                recording, keypoint=pixels.astype(_precision(recording.keypoint)), frame_size=size
            )


def fill_frame_size(recording: Recording) -> Recording:
    """A recording of pixels whose image has a size: by default the smallest that holds its joints.

    Clips are moved to the persons before a model sees them, so it matters little.
    """
    if recording.frame_size is not None:
        return recording
    found = recording.keypoint[visible_joints(recording.keypoint, recording.score)]
    found = found[np.isfinite(found).all(-1)]
    if not len(found):
        return replace(recording, frame_size=(1, 1))
    width, height = (max(1, int(side) + 1) for side in found.max(axis=0))
    return replace(recording, frame_size=(height, width))


def check_unit(stated: Any) -> None:
    """Refuse a unit that is none.

    Raises:
        InputError: If it is neither None nor one of `UNITS`.
    """
    if stated is not None and stated not in UNITS:
        raise InputError(f"units={stated}: expected one of {', '.join(UNITS)}")


def is_score(third: np.ndarray) -> bool:
    """Whether the values can be scores, or COCO's flags 0, 1, 2."""
    low, high = third.min(), third.max()
    return bool(low >= 0 and (high <= SCORE or (high == 2 and np.isin(third, (0, 1, 2)).all())))


def _exchanged(recording: Recording) -> Recording:
    score = recording.score
    return replace(
        recording,
        keypoint=recording.keypoint.swapaxes(0, 1),
        score=score.swapaxes(0, 1) if score is not None and score.ndim > 1 else score,
    )


def _with_score(recording: Recording) -> Recording:
    """Take the third channel for the score; COCO's flag 2 is a joint that is seen, score 1."""
    keypoint, score = recording.keypoint, recording.keypoint[..., 2]
    if score.size and score.max() > SCORE:
        score = np.minimum(score, 1)
    return replace(recording, keypoint=keypoint[..., :2], score=score)


def _precision(keypoint: np.ndarray) -> np.dtype:
    """Of converted coordinates: what a half has after a product is one rounding more."""
    return np.dtype(np.float16 if keypoint.dtype == np.float16 else np.float32)
