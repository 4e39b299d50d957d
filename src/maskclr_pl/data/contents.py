"""What a store contains, as numbers about its clips."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

_PART = re.compile(r"(?<![a-z])(train|training|val|valid|validation|test|testing)(?![a-z])", re.I)


@dataclass(frozen=True)
class Inspection:
    """What is in a store: n clips, K classes, V joints, C coordinates.

    A joint is visible if `visible_joints` says so; a coordinate that is NaN or infinite is not. A
    body is a person in a frame with a visible joint.
    """

    path: str
    skeleton: str
    joints: tuple[str, ...]
    coordinates: str
    """`pixels` or `metres`."""
    class_names: tuple[str, ...]
    splits: dict[str, np.ndarray]
    """Split name -> clips."""
    skipped: tuple[tuple[str, str], ...]
    """(name, reason) of clips that were left out when the store was made."""
    names: tuple[str, ...]
    label: Int[np.ndarray, " n"]
    frames: Int[np.ndarray, " n"]
    digest: UInt64[np.ndarray, " n"] | None
    """Hash of the poses, 0 where all are zero; None in a store of an older version."""
    persons: Int[np.ndarray, " n"]
    """Persons with a visible joint somewhere in the clip."""
    empty: Int[np.ndarray, " n"]
    """Frames without a body."""
    visible: Int[np.ndarray, " n"]
    """Visible joints, over all persons and frames."""
    outside: Int[np.ndarray, " n"]
    """Visible joints that are not in the image (0 for metres)."""
    swapped: Bool[np.ndarray, " n"]
    """Whether many joints are outside, and hardly any if height and width change places."""
    not_finite: Int[np.ndarray, " n"]
    """Joints with a coordinate, or a score, that is NaN or infinite."""
    frozen: Bool[np.ndarray, " n"]
    """Whether there are several frames and nothing moves."""
    returns: Int[np.ndarray, " n"]
    """How often a person leaves and comes back."""
    size: Float[np.ndarray, " n"]
    """Longest side of the box around a body in its coordinates, mean over bodies; NaN if none."""
    drop: Float[np.ndarray, " n"]
    """y of the feet minus y of the head, mean over bodies; NaN if a body never shows both."""
    missing: Float[np.ndarray, " V"]
    """Share of the bodies in which the joint is not visible, in [0, 1]; NaN if no bodies."""
    low: Float[np.ndarray, " C"]
    """Smallest coordinates of visible joints; `high` the largest (inf and -inf if none)."""
    high: Float[np.ndarray, " C"]
    score: tuple[float, float] | None
    """Smallest and largest score; None if there are none."""
    remarks: tuple[str, ...] = ()
    """What is odd about units and image sizes, a line each."""

    def counts(self, split: str | None = None) -> Int[np.ndarray, " K"]:
        """Clips of each class, in a split or in the whole store."""
        labels = self.label if split is None else self.label[self.splits[split]]
        return np.bincount(labels, minlength=len(self.class_names))

    def original(self) -> Int[np.ndarray, " n"]:
        """The first clip in the store with the same poses as each clip, which may be itself."""
        own = np.arange(len(self.names))
        if self.digest is None:
            return own
        _, first, group = np.unique(self.digest, return_index=True, return_inverse=True)
        return np.where(self.digest == 0, own, first[group])

    @property
    def y_down(self) -> bool:
        """Whether y points down: the feet have larger y than the head in most clips."""
        known = self.drop[np.isfinite(self.drop)]
        return bool(np.median(known) > 0) if len(known) else self.coordinates == "pixels"


def protocols(splits: Iterable[str]) -> dict[str, list[str]]:
    """Splits that belong together, training first: {"xsub": ["xsub_train", "xsub_val"], ...}."""
    found: dict[str, list[str]] = {}
    for split in sorted(splits, key=lambda split: not _part(split).startswith("train")):
        name = _PART.sub("", split, count=1).strip("_- .") if _part(split) else split
        found.setdefault(name, []).append(split)
    return found


def held_out(splits: Iterable[str], first: str = "train") -> list[tuple[str, str]]:
    """(training part, part to test on) pairs that must not share clips.

    Folds of a cross-validation overlap rightly: only parts of one protocol are paired.

    Args:
        splits: Names of splits.
        first: `train`, or `val` for (part to choose a checkpoint on, part to test on) pairs.
    """
    later = {"train": ("val", "test"), "val": ("test",)}[first]
    return [
        (a, b)
        for group in protocols(splits).values()
        for a in group
        for b in group
        if _part(a).startswith(first) and _part(b).startswith(later)
    ]


def paired_splits(splits: Iterable[str]) -> list[tuple[str, str]]:
    """Training splits with the splits to test on: the plainest name first, test before validation.

    Example:
        >>> paired_splits(["a_train", "a_test", "train", "val", "test", "rest"])
        [('train', 'test'), ('train', 'val'), ('a_train', 'a_test')]
    """
    return sorted(
        held_out(splits), key=lambda pair: (len(pair[0]), pair[0], _part(pair[1]), pair[1])
    )


def _part(split: str) -> str:
    found = _PART.search(split)
    return found[1].lower() if found else ""
