"""What trains and what tests, where nobody has said; and long clips cut into windows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from maskclr_pl.sources.options import check_number
from maskclr_pl.types import InputError

TEST_SHARE = 0.3
"""Part of a class that tests."""


class Part(NamedTuple):
    """Frames [start, end) of the clip of a row; None stands for its first and its last frame."""

    row: int
    split: str
    start: int | None
    end: int | None


class Span(NamedTuple):
    """Like `Part`, with numbers."""

    row: int
    split: str
    start: int
    end: int

    def in_time(self) -> list["Span"]:
        """The beginning to train and the rest to test on."""
        cut = self.end - round(TEST_SHARE * (self.end - self.start))
        halves = self._replace(split="train", end=cut), self._replace(split="test", start=cut)
        return [half for half in halves if half.end > half.start]

    def windows(self, length: int, stride: int) -> Iterator["Span"]:
        """Windows of that length, the last one at the end; the whole span if it is shorter."""
        last = max(self.start, self.end - length)
        for start in [*range(self.start, last, stride), last]:
            yield self._replace(start=start, end=min(start + length, self.end))


def window_length(spans: Sequence[Span]) -> int:
    """64 frames, or less so that what trains gives three windows with a stride of half of it."""
    lengths = [span.end - span.start for span in spans if span.split != "test"]
    return int(np.clip(min(lengths, default=64) // 2, 8, 64))


@dataclass(frozen=True)
class Splitter:
    """How clips without splits are divided into those to train and those to test on.

    Args:
        by: `subject`: whole subjects are drawn; `class`: clips of each class; `none`: nothing; or
            a regular expression: clips in whose names it finds the same text are drawn together
            (the text of its groups, if it has any). None: subjects where all are known, or else
            clips.
        share: Part of each class that tests, in (0, 1).
        seed: Seed of the draw.

    Raises:
        InputError: If a value is out of range or no regular expression.
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
        """Raise an InputError if it was given for clips that have splits."""
        if self != Splitter():
            raise InputError(
                "test_share= and split_seed= are for clips without splits, and these have some; "
                "pass split=class or split=subject to divide them anew, or leave both out"
            )

    def groupings(
        self, names: Sequence[str], subjects: Sequence[str], clips: Mapping[str, Sequence[str]]
    ) -> dict[str, Sequence[str]]:
        """Ways to group recordings, best first; a group is on one side of the division.

        Args:
            names: Name of each recording.
            subjects: Who is seen, "" if unknown.
            clips: Groupings that do not depend on who is seen.

        Raises:
            InputError: If subjects are asked for but not known, or no name matches.
        """
        if self.by in (None, "subject") and all(subjects):
            whole = {"subjects": subjects}
            return whole if self.by else {**whole, **clips}
        if self.by in (None, "class"):
            return dict(clips)
        if self.by == "subject":
            raise InputError(
                f"split=subject, but {subjects.count('')} of {len(subjects)} clips have no "
                "subject; pass split=class, or a regular expression that finds it in their names"
            )
        found = [re.search(str(self.by), name) for name in names]
        if not any(found):
            raise InputError(
                f"split={self.by}: expected subject, class, none, or a regular expression that "
                f"matches names of clips such as {names[0]!r}"
            )
        # a clip that does not match is a group of its own
        texts = [
            " ".join(map(str, match.groups() or (match[0],))) if match else f"\0{name}"
            for match, name in zip(found, names, strict=True)
        ]
        return {f"groups by {self.by}": texts}

    def draw(
        self, labels: Sequence[int], groupings: Mapping[str, Sequence[str]]
    ) -> tuple[np.ndarray, str]:
        """`draw_test_groups` with the first grouping that leaves something to test on.

        Returns:
            (rows,) bool, and the name of the grouping; all False and "" if none does.
        """
        for name, groups in groupings.items():
            test = draw_test_groups(labels, groups, self.share, self.seed)
            if test.any():
                return test, name
        return np.zeros(len(labels), dtype=bool), ""

    def divide(self, table: Mapping[str, Sequence[Any]]) -> tuple[dict[str, list[str]], list[str]]:
        """Divide recordings; copies of one recording stay together.

        Args:
            table: Columns `name`, `label`, `subject` (-1 is unknown) and `digest` (hash of the
                poses, 0 is unknown).

        Returns:
            splits: Split -> names.
            notes: What was done, a line each.

        Raises:
            InputError: If nothing can be divided in the way that is asked for.
        """
        names = list(table["name"])
        if self.by == "none":
            return {"all": names}, ["all clips are in one split, all"]
        subjects = ["" if one < 0 else str(one) for one in table["subject"]]
        groupings = self.groupings(names, subjects, {"clips": names})
        joined = {key: _joined(group, table["digest"]) for key, group in groupings.items()}
        test, used = self.draw(table["label"], joined)
        if not used and self.by is not None:
            raise InputError(
                f"split={self.by} test_share={self.share:g} leaves no clip to test on: no class "
                f"has enough {next(iter(groupings))}"
            )
        if not used:
            return {"all": names}, ["no class has enough clips to draw some for a split test"]
        splits = {
            split: [name for name, tests in zip(names, test, strict=True) if tests == drawn]
            for split, drawn in (("train", False), ("test", True))
        }
        whole = "" if used == "clips" else f", whole {used}"
        note = (
            f"{test.sum()} of {len(test)} clips are drawn for split test{whole}, about "
            f"{100 * self.share:g} % of each class; the others are split train"
        )
        labels = np.array(table["label"])
        untested = len(np.setdiff1d(labels, labels[test]))
        few = f"{untested} of the classes have too few {used} to test on"
        return splits, [note, *([few] if untested else []), *shared_subject_notes(subjects, test)]


def shared_subject_notes(subjects: Sequence[str], test: Sequence[bool] | np.ndarray) -> list[str]:
    """A line about the persons on both sides of a division, if there are any.

    Args:
        subjects: Who is seen in each recording, "" if unknown.
        test: Whether it tests.
    """
    pairs = {(bool(tests), subject) for subject, tests in zip(subjects, test, strict=True)}
    both = sorted(name for tests, name in pairs if tests and name and (False, name) in pairs)
    if not both:
        return []
    known = {subject for subject in subjects if subject}
    more = ", ..." if len(both) > 5 else ""
    return [
        f"{len(both)} of {len(known)} subjects are in train and in test ({', '.join(both[:5])}"
        f"{more}): the test does not tell how well people are recognized who were never trained on"
    ]


def _joined(groups: Sequence[str], digests: Sequence[int]) -> list[str]:
    """Groups, of which those that share a recording with the same poses become one."""
    parent: dict[str, str] = {}

    def top(group: str) -> str:
        while parent.get(group, group) != group:
            group = parent[group]
        return group

    first: dict[int, str] = {}
    for group, digest in zip(groups, digests, strict=True):
        if digest and first.setdefault(digest, group) != group:
            parent[top(group)] = top(first[digest])
    return [top(group) for group in groups]


def draw_test_groups(
    labels: Sequence[int], groups: Sequence[str], share: float = TEST_SHARE, seed: int = 0
) -> np.ndarray:
    """Draw the rows to test on: whole groups, in each class about the same share of its groups.

    No class loses its last group to the test, so that each can be trained.

    Args:
        labels: Class of each row.
        groups: Group of each row, such as the person or the video.
        share: Part of the groups of a class, rounded.
        seed: Seed of the draw.

    Returns:
        (rows,) bool.
    """
    classes: dict[str, set[int]] = {}
    for label, group in zip(labels, groups, strict=True):
        classes.setdefault(group, set()).add(label)
    among = np.bincount([label for found in classes.values() for label in found])
    left = np.minimum(np.round(share * among), among - 1).astype(int)
    chosen = set()
    names = sorted(classes)
    for i in np.random.default_rng(seed).permutation(len(names)):
        mine = list(classes[names[i]])
        if (left[mine] > 0).all():
            left[mine] -= 1
            chosen.add(names[i])
    return np.array([group in chosen for group in groups])


def has_person(span: Span, seen: np.ndarray) -> bool:
    """Whether somebody is in the frames of a part, given the sorted frames with somebody."""
    return bool(np.ptp(np.searchsorted(seen, (span.start, span.end))))
