"""Detection of the coordinate format of a file from its first recordings."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from maskclr_pl.data.store.reader import Recording, Store
from maskclr_pl.sources.statistics import CoordinateStats, measure, pool
from maskclr_pl.sources.units import BODY, SMALL, UNITS, CoordinateFormat, is_score, parse_unit
from maskclr_pl.types import InputError

_IMAGE_UNITS = UNITS[:3]
_SAMPLED, _SEARCHED = 32, 1024  # recordings with a person that decide; recordings searched
_MIN_PIXELS = 10.0  # larger bodies are not in meters
_HIGH_SCORE = 0.8  # some scores of a file exceed it
_MAX_METERS = 10 * BODY[1]  # bodies of noisy poses
_MILLIMETERS = (700.0, 3000.0)  # bodies, from a sitting child
_NEGATIVE = (0.05, 0.2)  # share of x and y: fractions have fewer, normalized poses more


def detect_format(
    recordings: Iterable[Recording], path: Any, unit: str | None = None, flat: bool | None = None
) -> CoordinateFormat:
    """Detect the coordinate format of a file from its first recordings.

    Args:
        recordings: In the order of the file; the first 32 that show a person decide.
        path: Name of the file, for errors.
        unit: Unit stated by the user; None to detect it.
        flat: True if 2D poses are expected, False for 3D, None if unknown.

    Raises:
        InputError: If the format is ambiguous, or contradicts the stated unit; the message names
            the option to pass.
    """
    unit = parse_unit(unit)
    stats_of_all = (measure(recording) for recording in islice(recordings, _SEARCHED))
    sample = list(islice((stats for stats in stats_of_all if stats is not None), _SAMPLED))
    if not sample:
        return CoordinateFormat(unit)
    channels = sample[0].points.shape[1]
    stats = pool([item for item in sample if item.points.shape[1] == channels])
    if channels == 3:
        result = _detect_3d(stats, path, unit, flat)
    elif unit in ("metres", "millimetres"):
        raise InputError(
            f"{path}: two coordinates ({stats.ranges()}), but units={unit} needs three; pass "
            "units=pixels, fractions or normalized"
        )
    else:
        result = CoordinateFormat(_detect_image_unit(stats, path, unit))
    if result.unit == "fractions" and not stats.has_frame_size:
        raise InputError(
            f"{path}: its coordinates ({stats.ranges()}) are fractions of the image; pass "
            "frame_size=[HEIGHT,WIDTH] of the videos"
        )
    return replace(result, turned=stats.frames_first)


def find_format_problem(store: Store) -> str:
    """Explain why a store cannot hold the pixels or meters that it claims; empty if it can.

    Stores of earlier versions may hold fractions as pixels and millimeters as meters.
    """
    try:
        actual = detect_format((store.recording(row) for row in range(len(store))), store.path)
    except InputError:  # unusual numbers, whose unit the user may have stated
        return ""
    if actual.is_stored_format:
        return ""
    if actual.turned or actual.scored or actual.flat:
        note = actual.notes()[0]
        return f"{note}, but not in this store of an earlier version; run prepare again"
    return f"its coordinates are {actual.unit}, not {store.coordinates}; run prepare again"


def _detect_image_unit(stats: CoordinateStats, path: Any, unit: str | None) -> str:
    """Return the unit of x and y in an image."""
    small = stats.extent <= SMALL
    if unit is not None and (unit == "pixels") == small:
        possible = "fractions of the image or normalized" if small else "pixels"
        raise InputError(
            f"{path}: units={unit}, but the coordinates ({stats.ranges()}) can only be {possible}; "
            "leave out units=, or correct the file"
        )
    if unit is not None:
        return unit
    if not small:
        return "pixels"
    few, many = _NEGATIVE
    if few < stats.negative_share < many:
        raise InputError(
            f"{path}: coordinates ({stats.ranges()}), {stats.negative_share:.0%} of them negative, "
            "may be fractions of the image or normalized to -1..1; pass units=fractions or "
            "units=normalized"
        )
    return "normalized" if stats.negative_share >= many else "fractions"


def _detect_3d(
    stats: CoordinateStats, path: Any, unit: str | None, flat: bool | None
) -> CoordinateFormat:
    if unit in _IMAGE_UNITS and not is_score(stats.third):
        raise InputError(
            f"{path}: units={unit} needs (x, y, score), but the third channel goes from "
            f"{stats.third.min():g} to {stats.third.max():g}; pass units=metres or millimetres, or "
            "store x and y alone"
        )
    if unit in _IMAGE_UNITS or (unit is None and _has_score_channel(stats, path, flat)):
        return _detect_scored(stats, path, unit)
    use = "none"
    if stats.score is not None:
        use = "zeros" if stats.score.any() else "all zero"
    metric_unit, remark = _detect_metric_unit(stats, path, unit)
    return CoordinateFormat(metric_unit, score_use=use, remark=remark)


def _has_score_channel(stats: CoordinateStats, path: Any, flat: bool | None) -> bool:
    """Decide if three channels are (x, y, score) rather than (x, y, z)."""
    if not is_score(stats.third):
        return False
    if stats.body_2d > _MIN_PIXELS:
        return True
    if flat is False:
        return False
    ambiguous = stats.extent <= 2 and stats.third.max() >= _HIGH_SCORE and stats.score is None
    if not ambiguous or flat or stats.has_frame_size:
        return ambiguous
    raise InputError(
        f"{path}: three coordinates ({stats.ranges()}) may be (x, y, score) of an image or "
        "(x, y, z); pass units=fractions or units=normalized for a score, units=metres for z"
    )


def _detect_scored(stats: CoordinateStats, path: Any, unit: str | None) -> CoordinateFormat:
    image_unit = _detect_image_unit(stats, path, unit)
    if not stats.third.any():
        return CoordinateFormat(image_unit, flat=True)
    if stats.score is not None and not np.allclose(stats.score, stats.third, atol=2e-3):
        raise InputError(
            f"{path}: a third channel from {stats.third.min():g} to {stats.third.max():g} differs "
            "from the scores; store x and y alone"
        )
    return CoordinateFormat(image_unit, scored=True)


def _detect_metric_unit(stats: CoordinateStats, path: Any, unit: str | None) -> tuple[str, str]:
    """Return meters or millimeters, and a remark if the bodies have an unusual size."""
    body, (low, high) = stats.body_3d, BODY
    size = f"{path}: three coordinates ({stats.ranges()}) and bodies {body:.3g} large"
    if unit == "millimetres":
        if body < 10 * high:
            raise InputError(
                f"{size} cannot be millimetres; leave out units=, or pass units=metres"
            )
        return unit, ""
    if low <= body <= high:
        return "metres", ""
    if unit == "metres" or body < _MAX_METERS:  # in other units bodies would be far larger
        return "metres", f"bodies are {body:.3g} large, expected {low:g} to {high:g} m: not scaled"
    smallest, largest = _MILLIMETERS
    # a camera has its origin in the middle, an image in the corner: pixels are not negative
    if smallest <= body <= largest and stats.negative_share >= 0.01:
        return "millimetres", ""
    raise InputError(
        f"{size}, expected metres (bodies of {low:g} to {high:g}); pass units=millimetres if they "
        "are, units=metres to store them without scaling (pixels with a depth), or scale them first"
    )
