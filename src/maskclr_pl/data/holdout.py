"""Validation clips held out from the training split."""

from collections.abc import Sequence

import numpy as np

from maskclr_pl.types import InputError

_SHOWN = 5
"""Class names listed in a note."""


def check_fraction(value: object) -> None:
    """Validate `data.val_fraction`.

    Raises:
        InputError: If it is not a number in [0, 1).
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= float(value) < 1:  # type: ignore[arg-type]
        raise InputError(
            f"data.val_fraction={value}: expected the share of the training split to hold out for "
            "validation, in [0, 1)"
        )


def hold_out(
    labels: np.ndarray, subjects: np.ndarray | None, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split a training split into training and validation parts; every class stays in training.

    With at least three known subjects, whole subjects are held out until the fraction is reached,
    except subjects that a class depends on. If no such subject has at most half of the clips, or
    subjects are unknown, the same share of each class with several clips is held out.

    Args:
        labels: (n,) classes.
        subjects: (n,) subject ids, -1 for unknown, or None.
        fraction: Share to hold out, in (0, 1).
        seed: Seed of the choice.

    Returns:
        Positions of the training part and of the validation part; sorted and disjoint.
    """
    rng = np.random.default_rng((seed, 1))
    held = np.zeros(len(labels), dtype=bool)
    known = _known(subjects)
    if subjects is not None and len(known) >= 3:
        for subject in _subjects_held(labels, subjects, known, fraction, rng):
            held |= subjects == subject
    if not held.any():
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            count = min(max(1, round(fraction * len(members))), len(members) - 1)
            held[members[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _known(subjects: np.ndarray | None) -> np.ndarray:
    """Return the subject ids if those of all clips are known, otherwise none."""
    known = np.empty(0, int) if subjects is None else np.unique(subjects)
    return known if len(known) and known[0] >= 0 else known[:0]


def _subjects_held(
    labels: np.ndarray,
    subjects: np.ndarray,
    known: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
) -> list[int]:
    """Choose subjects to hold out; none if a class depends on each of them."""
    classes, column = np.unique(labels, return_inverse=True)
    clips = np.zeros((len(known), len(classes)), int)
    np.add.at(clips, (np.searchsorted(known, subjects), column), 1)
    sizes, left, held = clips.sum(1), clips.sum(0), []
    # a subject may own most of the data: skip those that overshoot by more than half, unless all do
    room = max(1.5 * fraction * len(labels), sizes.min())
    count = 0
    for row in np.searchsorted(known, rng.permutation(known)[:-1]):
        fits = count + sizes[row] <= room and count < fraction * len(labels)
        if fits and (left > clips[row]).all():
            held.append(int(known[row]))
            left, count = left - clips[row], count + sizes[row]
    if held:
        return held
    able = [row for row in range(len(known)) if (left > clips[row]).all()]
    able = [row for row in able if 2 * sizes[row] <= len(labels)]
    return [int(known[min(able, key=lambda row: sizes[row])])] if able else []


def hold_out_notes(
    labels: np.ndarray,
    subjects: np.ndarray | None,
    kept: np.ndarray,
    held: np.ndarray,
    class_names: Sequence[str],
) -> list[str]:
    """List the limits of a validation part: shared subjects and missing classes.

    Args:
        labels: (n,) classes.
        subjects: (n,) subject ids, -1 for unknown, or None.
        kept: Positions of the training part.
        held: Positions of the validation part.
        class_names: Names of all classes.
    """
    notes = []
    known = _known(subjects)
    by_subject = subjects is not None and not np.isin(subjects[held], subjects[kept]).any()
    if len(known) > 1 and not by_subject:
        reason = "there are only two subjects"
        if len(known) >= 3:
            reason = "a class depends on each subject, or it has more than half of the clips"
        notes.append(f"validation and training clips share subjects: {reason}")
    if len(absent := np.setdiff1d(labels[kept], labels[held])):
        alone = [
            label
            for label in absent
            if by_subject and subjects is not None and len(np.unique(subjects[labels == label])) < 2
        ]
        reason = ""
        if alone:
            some = "" if len(alone) == len(absent) else f"{len(alone)} of them "
            reason = f", {some}performed by one subject only"
        notes.append(f"no validation clips of {_classes(absent, class_names)}{reason}")
    return notes


def _classes(labels: Sequence[int] | np.ndarray, names: Sequence[str]) -> str:
    shown = ", ".join(names[label] for label in labels[:_SHOWN])
    more = ", ..." if len(labels) > _SHOWN else ""
    return f"{len(labels)} class{'es' if len(labels) > 1 else ''} ({shown}{more})"
