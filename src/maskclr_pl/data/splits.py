"""Which clips of the splits have a label, and which classes are new at test time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from maskclr_pl.types import InputError


def check_labelled(value: object) -> None:
    """Refuse a `data.labelled` that is neither a share, nor the name of a file, nor None.

    Raises:
        InputError: If it is none of them.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or isinstance(value, str) or (number and 0 < float(value) <= 1):  # type: ignore[arg-type]
        return
    raise InputError(
        f"data.labelled={value}: expected a share above 0 and up to 1, or a file with a clip a line"
    )


def labelled_share(
    labels: Int[np.ndarray, " n"], share: float, seed: int
) -> Int[np.ndarray, " labelled"]:
    """Draw the labelled clips of a semi-supervised protocol, the same share of each class.

    round(share * clips) of each class, and at least one (AimCLR draws per class as well, but may
    leave a class without a clip; MAMP draws without regard to class, and on several GPUs another
    subset on each). A larger share of the same seed contains the smaller one.

    Args:
        labels: Classes of the training clips.
        share: In (0, 1].
        seed: All that the draw depends on, with the labels.

    Returns:
        Positions, ascending.
    """
    rng = np.random.default_rng((seed, 2))
    order = rng.permutation(len(labels))
    chosen = [
        members[: max(1, round(share * len(members)))]
        for label in np.unique(labels)
        for members in [order[labels[order] == label]]
    ]
    return np.sort(np.concatenate(chosen)) if chosen else order


def own_list(labelled: Any, run: Path) -> Any:
    """`data.labelled` of a run that exists: instead of a file, which may be gone, its own list."""
    own = run / "labelled.txt"
    return str(own) if isinstance(labelled, str) and own.is_file() else labelled


def named_clips(file: str, names: Sequence[str], split: str) -> Int[np.ndarray, " labelled"]:
    """Positions (ascending) of the clips that a file names, one a line.

    Args:
        file: Such as the labelled.txt of a run folder.
        names: Names of the clips of the split.
        split: Its name, for the message.

    Raises:
        InputError: If the file cannot be read, is empty, or names a clip that is not in the split.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise InputError(f"data.labelled={file} cannot be read ({why})") from None
    wanted = {line.strip() for line in lines if line.strip()}
    if not wanted:
        raise InputError(f"data.labelled={file} names no clips; expected a name a line")
    unknown = wanted.difference(names)
    if unknown:
        raise InputError(
            f"data.labelled={file}: {len(unknown)} of its {len(wanted)} names are no clips of "
            f"split {split!r}, the first is {min(unknown)!r}"
        )
    return np.flatnonzero(np.isin(np.array(names), list(wanted)))


def draw_novel(
    train: Int[np.ndarray, " n"], test: Int[np.ndarray, " m"], share: float, seed: int
) -> Int[np.ndarray, " novel"]:
    """Draw the classes of a one-shot protocol that are not trained on.

    Args:
        train: Classes of the training clips, one of which becomes the exemplar of a new class.
        test: Classes of the test clips; a new class has clips in either part.
        share: New classes, of those in the training clips.
        seed: All that the draw depends on, with the classes.

    Returns:
        Classes, ascending; at least one.

    Raises:
        InputError: If the share is none, or fewer than two classes would be left to train on.
    """
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or not 0 < share < 1:
        raise InputError(f"data.novel_classes={share}: expected a share between 0 and 1")
    classes, shared = np.unique(train), np.intersect1d(train, test)
    count = max(1, round(share * len(classes)))
    if count > len(shared) or len(classes) - count < 2:
        raise InputError(
            f"data.novel_classes={share}: {count} new classes of {len(classes)}, of which "
            f"{len(shared)} have test clips, leave fewer than two to train on; pass another share"
        )
    return np.sort(np.random.default_rng((seed, 3)).permutation(shared)[:count])


def check_novel(
    train: Int[np.ndarray, " n"],
    exemplars: Int[np.ndarray, " e"],
    test: Int[np.ndarray, " m"],
    names: Sequence[str],
) -> None:
    """Whether the classes of a one-shot protocol fit together.

    Args:
        train: Classes of the auxiliary clips.
        exemplars: Classes of the exemplars.
        test: Classes of the test clips.
        names: Names of all classes.

    Raises:
        InputError: If a class of the exemplars is trained on, or a test clip has none.
    """
    seen = np.intersect1d(train, np.union1d(exemplars, test))
    if len(seen):
        raise InputError(
            f"one-shot: {len(seen)} classes of the exemplars or test clips are also trained on, "
            f"the first is {names[seen[0]]!r}; they would not be new"
        )
    without = np.setdiff1d(test, exemplars)
    if len(without):
        raise InputError(
            f"one-shot: {len(without)} classes of the test clips have no exemplar, the first is "
            f"{names[without[0]]!r}"
        )
