"""Statistics of a store, and the roles of its splits."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

_PART = re.compile(r"(?<![a-z])(train|training|val|valid|validation|test|testing)(?![a-z])", re.I)


@dataclass(frozen=True)
class Inspection:
    """Statistics of a store: n clips, K classes, V joints, C coordinates.

    `visible_joints` defines visible joints; NaN and infinite coordinates are not visible. A body is
    a person in one frame with at least one visible joint.
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
    """(name, reason) of clips skipped by `prepare`."""
    names: tuple[str, ...]
    label: Int[np.ndarray, " n"]
    frames: Int[np.ndarray, " n"]
    digest: UInt64[np.ndarray, " n"] | None
    """Hash of the poses, 0 where all are zero; None in stores of older versions."""
    persons: Int[np.ndarray, " n"]
    """Persons with at least one visible joint in the clip."""
    empty: Int[np.ndarray, " n"]
    """Frames without a body."""
    visible: Int[np.ndarray, " n"]
    """Visible joints, over all persons and frames."""
    outside: Int[np.ndarray, " n"]
    """Visible joints outside the image (0 for meters)."""
    swapped: Bool[np.ndarray, " n"]
    """True if many joints are outside, and hardly any after exchanging height and width."""
    not_finite: Int[np.ndarray, " n"]
    """Joints with a NaN or infinite coordinate or score."""
    frozen: Bool[np.ndarray, " n"]
    """True if there are several frames and nothing moves."""
    returns: Int[np.ndarray, " n"]
    """Number of times a person leaves and returns."""
    size: Float[np.ndarray, " n"]
    """Longest side of the box around a body in its coordinates, mean over bodies; NaN if none."""
    drop: Float[np.ndarray, " n"]
    """y of the feet minus y of the head, mean over bodies; NaN if a body never shows both."""
    missing: Float[np.ndarray, " V"]
    """Share of the bodies in which the joint is not visible, in [0, 1]; NaN without bodies."""
    low: Float[np.ndarray, " C"]
    """Smallest coordinates of visible joints; `high` the largest (inf and -inf if none)."""
    high: Float[np.ndarray, " C"]
    score: tuple[float, float] | None
    """Smallest and largest score; None if there are none."""
    remarks: tuple[str, ...] = ()
    """Suspicious units and image sizes, one line each."""

    def counts(self, split: str | None = None) -> Int[np.ndarray, " K"]:
        """Count the clips of each class, in a split or in the whole store."""
        labels = self.label if split is None else self.label[self.splits[split]]
        return np.bincount(labels, minlength=len(self.class_names))

    def original(self) -> Int[np.ndarray, " n"]:
        """Return the first clip with the same poses as each clip, possibly itself."""
        own = np.arange(len(self.names))
        if self.digest is None:
            return own
        _, first, group = np.unique(self.digest, return_index=True, return_inverse=True)
        return np.where(self.digest == 0, own, first[group])

    @property
    def y_down(self) -> bool:
        """True if y points down: in most clips, the feet have larger y than the head."""
        drops = self.drop[np.isfinite(self.drop)]
        return bool(np.median(drops) > 0) if len(drops) else self.coordinates == "pixels"


def protocols(splits: Iterable[str]) -> dict[str, list[str]]:
    """Group splits by protocol, training first: {"xsub": ["xsub_train", "xsub_val"], ...}."""
    groups: dict[str, list[str]] = {}
    for split in sorted(splits, key=lambda split: not _part(split).startswith("train")):
        name = _PART.sub("", split, count=1).strip("_- .") if _part(split) else split
        groups.setdefault(name, []).append(split)
    return groups


def exclusive_splits(splits: Iterable[str], first: str = "train") -> list[tuple[str, str]]:
    """List the (training, test) pairs of splits that must not share clips.

    Only splits of one protocol are paired, since folds of a cross-validation may overlap.

    Args:
        splits: Names of splits.
        first: `train`, or `val` for (validation, test) pairs.
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
    """List (training, test) pairs of splits: shortest name first, test before validation.

    Example:
        >>> paired_splits(["a_train", "a_test", "train", "val", "test", "rest"])
        [('train', 'test'), ('train', 'val'), ('a_train', 'a_test')]
    """
    return sorted(
        exclusive_splits(splits), key=lambda pair: (len(pair[0]), pair[0], _part(pair[1]), pair[1])
    )


def _part(split: str) -> str:
    match = _PART.search(split)
    return match[1].lower() if match else ""
