"""Recognition of what the numbers of a file mean, from its first recordings."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from maskclr_pl.data.store.reader import Recording, Store
from maskclr_pl.sources.statistics import Values, measure, pooled
from maskclr_pl.sources.units import BODY, SMALL, UNITS, CoordinateFormat, check_unit, is_score
from maskclr_pl.types import InputError

_FLAT = UNITS[:3]
_SAMPLE, _SEARCHED = 32, 1024  # recordings that decide, and in how many somebody is looked for
_PIXELS = 10.0  # bodies from here on are no metres
_FULL = 0.8  # scores come near 1 somewhere
_LARGEST_BODY = 10 * BODY[1]  # in metres, of poses that are merely noisy
_MILLIMETRES = (700.0, 3000.0)  # of a body, from a child that sits
_NEGATIVE = (0.05, 0.2)  # share of x and y: fractions hardly have any, normalised poses many


def detect_format(
    recordings: Iterable[Recording], path: Any, stated: str | None = None, flat: bool | None = None
) -> CoordinateFormat:
    """Decide what the numbers of a file mean, from its first recordings.

    Args:
        recordings: In the order of the file; the first 32 with somebody in them decide.
        path: Name of the file, for errors.
        stated: The unit as the user states it; None: the values tell.
        flat: Whether 2D poses are expected (a model of such), where that is known.

    Raises:
        InputError: If the numbers cannot be understood, or contradict the stated unit; the message
            says what to pass.
    """
    check_unit(stated)
    sample = _sample(recordings)
    if not sample:
        return CoordinateFormat(stated)
    channels = sample[0].points.shape[1]
    values = pooled([one for one in sample if one.points.shape[1] == channels])
    form = (_form_2d if channels == 2 else _form_3d)(values, path, stated, flat)
    if form.unit == "fractions" and not values.sized:
        raise InputError(
            f"{path}: its coordinates ({values.ranges()}) are fractions of the image, whose size "
            "is not known; pass frame_size=[HEIGHT,WIDTH] of the videos"
        )
    return replace(form, turned=values.turned)


def _sample(recordings: Iterable[Recording]) -> list[Values]:
    """Values of the first recordings with somebody in them."""
    looked_at = map(measure, islice(recordings, _SEARCHED))
    return list(islice((one for one in looked_at if one is not None), _SAMPLE))


def find_format_problem(store: Store) -> str:
    """Why the numbers in a store cannot be the pixels or metres that it says; empty if they can.

    Stores of earlier versions may hold fractions as pixels and millimetres as metres.
    """
    try:
        form = detect_format((store.recording(row) for row in range(len(store))), store.path)
    except InputError:  # unusual numbers, which may have been stated
        return ""
    if form.is_stored_format:
        return ""
    if form.turned or form.scored or form.flat:
        return f"{form.notes()[0]} by prepare now, but not in this store; make it again"
    return f"its coordinates are {form.unit}, not {store.coordinates}; make it again with prepare"


def _form_2d(values: Values, path: Any, stated: str | None, _: bool | None) -> CoordinateFormat:
    if stated in ("metres", "millimetres"):
        raise InputError(
            f"{path}: two coordinates ({values.ranges()}), but units={stated} has three; pass "
            "units=pixels, fractions or normalised"
        )
    return CoordinateFormat(_flat_unit(values, path, stated))


def _flat_unit(values: Values, path: Any, stated: str | None) -> str:
    """The unit of x and y in an image."""
    small = values.far <= SMALL
    if stated is not None and (stated == "pixels") == small:
        seen = "pixels" if not small else "fractions of the image or normalised"
        raise InputError(
            f"{path}: units={stated}, but the coordinates ({values.ranges()}) can only be {seen}; "
            "leave out units=, or correct the file"
        )
    if stated is not None:
        return stated
    if not small:
        return "pixels"
    few, many = _NEGATIVE
    if few < values.negative < many:
        raise InputError(
            f"{path}: coordinates ({values.ranges()}), {values.negative:.0%} of them negative: "
            "fractions of the image, or normalised to -1..1; pass units=fractions or "
            "units=normalised"
        )
    return "normalised" if values.negative >= many else "fractions"


def _form_3d(values: Values, path: Any, stated: str | None, flat: bool | None) -> CoordinateFormat:
    if stated in _FLAT:
        if not is_score(values.third):
            raise InputError(
                f"{path}: units={stated} of (x, y, score), but the third channel goes from "
                f"{values.third.min():g} to {values.third.max():g}; pass units=metres or "
                "millimetres, or give x and y alone"
            )
        return _scored(values, path, stated)
    if stated is None and _is_flat(values, path, flat):
        return _scored(values, path, None)
    use = "none"
    if values.score is not None:
        use = "zeros" if values.score.any() else "all zero"
    unit, remark = _metric_unit(values, path, stated)
    return CoordinateFormat(unit, score_use=use, remark=remark)


def _is_flat(values: Values, path: Any, flat: bool | None) -> bool:
    """Whether three channels are (x, y, score) rather than (x, y, z)."""
    if not is_score(values.third):
        return False
    if values.body > _PIXELS:
        return True
    if flat is False:
        return False
    unclear = values.far <= 2 and values.third.max() >= _FULL and values.score is None
    if not unclear or flat or values.sized:
        return unclear
    raise InputError(
        f"{path}: three coordinates ({values.ranges()}): (x, y, score) of an image, or (x, y, z); "
        "pass units=fractions or units=normalised for a score, units=metres for z"
    )


def _scored(values: Values, path: Any, stated: str | None) -> CoordinateFormat:
    unit = _flat_unit(values, path, stated)
    if not values.third.any():
        return CoordinateFormat(unit, flat=True)
    if values.score is not None and not np.allclose(values.score, values.third, atol=2e-3):
        raise InputError(
            f"{path}: a third channel from {values.third.min():g} to {values.third.max():g} beside "
            "scores that differ from it; give x and y alone"
        )
    return CoordinateFormat(unit, scored=True)


def _metric_unit(values: Values, path: Any, stated: str | None) -> tuple[str, str]:
    """Metres or millimetres, and what is odd about them."""
    body, (low, high) = values.body3, BODY
    size = f"{path}: three coordinates ({values.ranges()}) and bodies {body:.3g} large"
    if stated == "millimetres":
        if body < 10 * high:
            raise InputError(
                f"{size} cannot be millimetres; leave out units=, or pass units=metres"
            )
        return stated, ""
    if low <= body <= high:
        return "metres", ""
    text = f"bodies are {body:.3g} large, expected {low:g} to {high:g} m: stored as they are"
    if stated == "metres" or body < _LARGEST_BODY:  # of another unit, they would be far from it
        return "metres", text
    shortest, longest = _MILLIMETRES
    # a camera has its origin in the middle, an image in the corner: pixels are not negative
    if shortest <= body <= longest and values.negative >= 0.01:
        return "millimetres", ""
    raise InputError(
        f"{size}, expected metres (bodies of {low:g} to {high:g}); pass units=millimetres if they "
        "are, units=metres to store them as they are (pixels with a depth), or divide them first"
    )
