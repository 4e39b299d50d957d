"""Drawing of training and test splits where none are defined, and windows of long clips."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from maskclr_pl.sources.options import check_number
from maskclr_pl.types import InputError

TEST_SHARE = 0.3
"""Default share of each class in the test split."""


class Segment(NamedTuple):
    """Frames [start, end) of a row's clip; None means its first and its last frame."""

    row: int
    split: str
    start: int | None
    end: int | None


class Span(NamedTuple):
    """A segment with both ends known."""

    row: int
    split: str
    start: int
    end: int

    def split_in_time(self) -> list["Span"]:
        """Return the beginning as training span and the rest as test span."""
        cut = self.end - round(TEST_SHARE * (self.end - self.start))
        halves = self._replace(split="train", end=cut), self._replace(split="test", start=cut)
        return [half for half in halves if half.end > half.start]

    def windows(self, length: int, stride: int) -> Iterator["Span"]:
        """Yield windows of that length, the last one at the end; a shorter span stays whole."""
        last = max(self.start, self.end - length)
        for start in [*range(self.start, last, stride), last]:
            yield self._replace(start=start, end=min(start + length, self.end))

    def has_person(self, frames: np.ndarray) -> bool:
        """Check if any of the sorted frames that show a person is in the span."""
        return bool(np.ptp(np.searchsorted(frames, (self.start, self.end))))


def window_length(spans: Sequence[Span]) -> int:
    """Return 64 frames, or less so that each training span gives three half-overlapping windows."""
    lengths = [span.end - span.start for span in spans if span.split != "test"]
    return int(np.clip(min(lengths, default=64) // 2, 8, 64))


@dataclass(frozen=True)
class Splitter:
    """Random division of clips into a training and a test split.

    Args:
        by: `subject`: draw whole subjects; `class`: draw clips of each class; `none`: no division;
            or a regular expression: draw clips together if it matches the same text in their names
            (the text of its groups, if it has any). None: subjects where all are known, else clips.
        share: Share of each class in the test split, in (0, 1).
        seed: Seed of the draw.

    Raises:
        InputError: If a value is out of range or not a regular expression.
    """

    by: Any = None
    share: float = TEST_SHARE
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("test_share", self.share, 0.0, 1.0)
        if not 0 < self.share < 1:
            raise InputError(f"test_share={self.share}: expected a share above 0 and below 1")
        check_number("split_seed", self.seed, 0)
        try:
            re.compile("" if self.by is None else self.by)
        except (re.error, TypeError) as error:
            raise InputError(
                f"split={self.by}: expected subject, class, none or a regular expression ({error})"
            ) from None

    def check_unused(self) -> None:
        """Raise an InputError if options are set although the clips have splits."""
        if self != Splitter():
            raise InputError(
                "test_share= and split_seed= have no effect on clips that have splits; pass "
                "split=class or split=subject to draw new ones, or leave both out"
            )

    def groupings(
        self, names: Sequence[str], subjects: Sequence[str], clips: Mapping[str, Sequence[str]]
    ) -> dict[str, Sequence[str]]:
        """Return ways to group recordings, best first; a group is never divided.

        Args:
            names: Name of each recording.
            subjects: Subject of each recording, "" if unknown.
            clips: Groupings that do not depend on subjects.

        Raises:
            InputError: If required subjects are unknown, or no name matches.
        """
        if self.by in (None, "subject") and all(subjects):
            return {"subjects": subjects} if self.by else {"subjects": subjects, **clips}
        if self.by in (None, "class"):
            return dict(clips)
        if self.by == "subject":
            raise InputError(
                f"split=subject, but {subjects.count('')} of {len(subjects)} clips have no "
                "subject; pass split=class, or a regular expression that matches it in their names"
            )
        matches = [re.search(str(self.by), name) for name in names]
        if not any(matches):
            raise InputError(
                f"split={self.by}: expected subject, class, none, or a regular expression that "
                f"matches names of clips such as {names[0]!r}"
            )
        # a clip that does not match is its own group
        groups = [
            " ".join(map(str, match.groups() or (match[0],))) if match else f"\0{name}"
            for match, name in zip(matches, names, strict=True)
        ]
        return {f"groups by {self.by}": groups}

    def draw(
        self, labels: Sequence[int], groupings: Mapping[str, Sequence[str]]
    ) -> tuple[np.ndarray, str]:
        """Draw test rows by the first grouping that leaves something to test on.

        Returns:
            (rows,) bool, and the name of the grouping; all False and "" if there is none.
        """
        for name, groups in groupings.items():
            test = draw_test_groups(labels, groups, self.share, self.seed)
            if test.any():
                return test, name
        return np.zeros(len(labels), dtype=bool), ""

    def divide(self, table: Mapping[str, Sequence[Any]]) -> tuple[dict[str, list[str]], list[str]]:
        """Divide recordings; duplicates of a recording stay together.

        Args:
            table: Columns `name`, `label`, `subject` (-1 is unknown) and `digest` (hash of the
                poses, 0 is unknown).

        Returns:
            splits: Split -> names.
            notes: Description of the division, a line each.

        Raises:
            InputError: If the requested division is not possible.
        """
        names = list(table["name"])
        if self.by == "none":
            return {"all": names}, ["all clips are in one split, all"]
        subjects = ["" if subject < 0 else str(subject) for subject in table["subject"]]
        groupings = self.groupings(names, subjects, {"clips": names})
        merged = {key: _merge_groups(group, table["digest"]) for key, group in groupings.items()}
        test, grouping = self.draw(table["label"], merged)
        if not grouping and self.by is not None:
            raise InputError(
                f"split={self.by} test_share={self.share:g} leaves no clip to test on: no class "
                f"has enough {next(iter(groupings))}"
            )
        if not grouping:
            return {"all": names}, ["no class has enough clips to draw some for split test"]
        splits = {
            split: [name for name, drawn in zip(names, test, strict=True) if drawn == in_test]
            for split, in_test in (("train", False), ("test", True))
        }
        whole = "" if grouping == "clips" else f", whole {grouping}"
        notes = [
            f"{test.sum()} of {len(test)} clips are drawn for split test{whole}, about "
            f"{100 * self.share:g} % of each class; the others are split train"
        ]
        labels = np.array(table["label"])
        untested = len(np.setdiff1d(labels, labels[test]))
        if untested:
            notes.append(f"{untested} of the classes have too few {grouping} to test on")
        return splits, notes + shared_subject_notes(subjects, test)


def shared_subject_notes(subjects: Sequence[str], test: Sequence[bool] | np.ndarray) -> list[str]:
    """Note which subjects are in both splits, in one line, if there are any.

    Args:
        subjects: Subject of each recording, "" if unknown.
        test: True for each recording of the test split.
    """
    tested = {subject for subject, in_test in zip(subjects, test, strict=True) if in_test}
    trained = {subject for subject, in_test in zip(subjects, test, strict=True) if not in_test}
    shared = sorted((tested & trained) - {""})
    if not shared:
        return []
    total = len((tested | trained) - {""})
    more = ", ..." if len(shared) > 5 else ""
    return [
        f"{len(shared)} of {total} subjects are in train and in test ({', '.join(shared[:5])}"
        f"{more}): the test does not measure how well unknown persons are recognized"
    ]


def _merge_groups(groups: Sequence[str], digests: Sequence[int]) -> list[str]:
    """Merge groups that share a recording with the same poses (union-find)."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.get(group, group) != group:
            group = parent[group]
        return group

    first: dict[int, str] = {}
    for group, digest in zip(groups, digests, strict=True):
        if digest and first.setdefault(digest, group) != group:
            parent[root(group)] = root(first[digest])
    return [root(group) for group in groups]


def draw_test_groups(
    labels: Sequence[int], groups: Sequence[str], share: float = TEST_SHARE, seed: int = 0
) -> np.ndarray:
    """Draw whole groups to test on, about the same share of the groups of each class.

    At least one group of each class remains for training.

    Args:
        labels: Class of each row.
        groups: Group of each row, such as the person or the video.
        share: Share of the groups of a class, rounded.
        seed: Seed of the draw.

    Returns:
        (rows,) bool, True for test rows.
    """
    classes: dict[str, set[int]] = {}
    for label, group in zip(labels, groups, strict=True):
        classes.setdefault(group, set()).add(label)
    total = np.bincount([label for members in classes.values() for label in members])
    remaining = np.minimum(np.round(share * total), total - 1).astype(int)
    drawn = set()
    names = sorted(classes)
    for i in np.random.default_rng(seed).permutation(len(names)):
        group_classes = list(classes[names[i]])
        if (remaining[group_classes] > 0).all():
            remaining[group_classes] -= 1
            drawn.add(names[i])
    return np.array([group in drawn for group in groups])
