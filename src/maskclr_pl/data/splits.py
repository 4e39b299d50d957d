"""Label subsets of semi-supervised protocols and novel classes of one-shot protocols."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from maskclr_pl.types import InputError

LABELED_FILES = ("labeled.txt", "labelled.txt")
"""Names of the list of labeled clips in a run folder: now, and in runs of version 0.1."""


def check_label_fraction(value: object) -> None:
    """Validate `data.label_fraction`: a share in (0, 1], a file name, or None.

    Raises:
        InputError: For any other value.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or isinstance(value, str) or (number and 0 < float(value) <= 1):  # type: ignore[arg-type]
        return
    raise InputError(
        f"data.label_fraction={value}: expected a share in (0, 1], or a file with one clip name "
        "per line"
    )


def draw_labeled(
    labels: Int[np.ndarray, " n"], share: float, seed: int
) -> Int[np.ndarray, " labeled"]:
    """Draw the labeled clips of a semi-supervised protocol, the same share of each class.

    Each class keeps round(share * clips), and at least one clip. AimCLR also draws per class but
    may leave a class empty; MAMP ignores classes, and draws another subset on each GPU. A larger
    share of the same seed contains the smaller one.

    Args:
        labels: Classes of the training clips.
        share: In (0, 1].
        seed: Together with the labels, it determines the draw.

    Returns:
        Positions, ascending.
    """
    order = np.random.default_rng((seed, 2)).permutation(len(labels))
    subsets = []
    for label in np.unique(labels):
        members = order[labels[order] == label]
        subsets.append(members[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(subsets)) if subsets else order


def saved_label_list(label_fraction: Any, run: Path) -> Any:
    """Replace a file in `data.label_fraction` by the run folder's own copy, which never moves."""
    if isinstance(label_fraction, str):
        for name in LABELED_FILES:
            if (run / name).is_file():
                return str(run / name)
    return label_fraction


def named_clips(file: str, names: Sequence[str], split: str) -> Int[np.ndarray, " labeled"]:
    """Read a list of clip names and return their positions in a split, ascending.

    Args:
        file: Text file with one name per line, such as labeled.txt of a run folder.
        names: Names of the clips of the split.
        split: Name of the split, for messages.

    Raises:
        InputError: If the file cannot be read, is empty, or names a clip outside the split.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"data.label_fraction={file} cannot be read ({reason})") from None
    listed = {line.strip() for line in lines if line.strip()}
    if not listed:
        raise InputError(f"data.label_fraction={file} is empty; expected one clip name per line")
    unknown = listed.difference(names)
    if unknown:
        raise InputError(
            f"data.label_fraction={file}: {len(unknown)} of {len(listed)} names are not in split "
            f"{split!r}, for example {min(unknown)!r}"
        )
    return np.flatnonzero(np.isin(np.array(names), list(listed)))


def draw_novel(
    train: Int[np.ndarray, " n"], test: Int[np.ndarray, " m"], share: float, seed: int
) -> Int[np.ndarray, " novel"]:
    """Draw the novel classes of a one-shot protocol, which are excluded from training.

    Args:
        train: Classes of the training clips, one of which becomes the exemplar of a novel class.
        test: Classes of the test clips; a novel class needs clips in both parts.
        share: Novel classes as a share of the training classes, in (0, 1).
        seed: Together with the classes, it determines the draw.

    Returns:
        Classes, ascending; at least one.

    Raises:
        InputError: If the share is out of range or leaves fewer than two classes for training.
    """
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or not 0 < share < 1:
        raise InputError(f"data.novel_classes={share}: expected a share between 0 and 1")
    classes, shared = np.unique(train), np.intersect1d(train, test)
    count = max(1, round(share * len(classes)))
    if count > len(shared) or len(classes) - count < 2:
        raise InputError(
            f"data.novel_classes={share} makes {count} of {len(classes)} classes novel, of which "
            f"{len(shared)} have test clips, and at least two classes must remain for training; "
            "pass another share"
        )
    return np.sort(np.random.default_rng((seed, 3)).permutation(shared)[:count])


def check_novel(
    train: Int[np.ndarray, " n"],
    exemplars: Int[np.ndarray, " e"],
    test: Int[np.ndarray, " m"],
    names: Sequence[str],
) -> None:
    """Check that the classes of a one-shot protocol are disjoint from training and complete.

    Args:
        train: Classes of the auxiliary (training) clips.
        exemplars: Classes of the exemplars.
        test: Classes of the test clips.
        names: Names of all classes.

    Raises:
        InputError: If a novel class is trained on, or a test class has no exemplar.
    """
    trained = np.intersect1d(train, np.union1d(exemplars, test))
    if len(trained):
        raise InputError(
            f"one-shot: {len(trained)} classes of the exemplars or test clips also occur in "
            f"training, for example {names[trained[0]]!r}; use disjoint classes"
        )
    missing = np.setdiff1d(test, exemplars)
    if len(missing):
        raise InputError(
            f"one-shot: {len(missing)} classes of the test clips have no exemplar, for example "
            f"{names[missing[0]]!r}"
        )
