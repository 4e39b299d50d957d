"""Which training clips are held out for validation."""

from collections.abc import Sequence

import numpy as np

from maskclr_pl.types import InputError

_SHOWN = 5
"""Names of classes in a note."""


def check_fraction(value: object) -> None:
    """Refuse a `data.val_fraction` that is no share of a split.

    Raises:
        InputError: If it is no number in [0, 1).
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= float(value) < 1:  # type: ignore[arg-type]
        raise InputError(
            f"data.val_fraction={value}: expected the share of the training split to hold out for "
            "validation, from 0 up to, but not including, 1"
        )


def hold_out(
    labels: np.ndarray, subjects: np.ndarray | None, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a validation part from a training split; every class stays in training.

    Where the subjects are known and there are at least three, whole subjects are held out, until
    the fraction is reached, but none without whom a class would have no training clip. Otherwise,
    or if that leaves no subject that has at most half of the clips, clips are held out, the same
    share of each class that has several.

    Args:
        labels: (n,) classes.
        subjects: (n,) subject ids, -1 for unknown, or None.
        fraction: Share to hold out, in (0, 1).
        seed: Seed of the choice.

    Returns:
        Positions (sorted) of the training part and of the validation part; disjoint.
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
    """The subjects, if those of all clips are known."""
    known = np.empty(0, int) if subjects is None else np.unique(subjects)
    return known if len(known) and known[0] >= 0 else known[:0]


def _subjects_held(
    labels: np.ndarray,
    subjects: np.ndarray,
    known: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
) -> list[int]:
    """Subjects to hold out; none if each is needed for a class."""
    classes, column = np.unique(labels, return_inverse=True)
    clips = np.zeros((len(known), len(classes)), int)
    np.add.at(clips, (np.searchsorted(known, subjects), column), 1)
    sizes, left, held = clips.sum(1), clips.sum(0), []
    # a large subject could be most of the data: none that overshoots by more than half, unless
    # all do
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
    """Describe what a validation part does not measure, a line each.

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
        why = "there are only two subjects"
        if len(known) >= 3:
            why = "each subject is needed for a class, or has more than half of the clips"
        notes.append(f"validation clips are of subjects who are trained on, too: {why}")
    if len(absent := np.setdiff1d(labels[kept], labels[held])):
        alone = [
            label
            for label in absent
            if by_subject and subjects is not None and len(np.unique(subjects[labels == label])) < 2
        ]
        why = ""
        if alone:
            some = "" if len(alone) == len(absent) else f"{len(alone)} of them "
            why = f", {some}done by one subject only"
        notes.append(f"no validation clips of {_classes(absent, class_names)}{why}")
    return notes


def _classes(labels: Sequence[int] | np.ndarray, names: Sequence[str]) -> str:
    shown = ", ".join(names[label] for label in labels[:_SHOWN])
    more = ", ..." if len(labels) > _SHOWN else ""
    return f"{len(labels)} class{'es' if len(labels) > 1 else ''} ({shown}{more})"
