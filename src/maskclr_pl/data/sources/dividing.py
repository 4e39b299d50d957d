"""What trains and what tests, where nobody has said; and long clips cut into windows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

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


def draw_test(
    labels: Sequence[int], groupings: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray, str]:
    """`choose_test` with the first of several groupings that leaves something to test on.

    Returns:
        (rows,) bool, and the name of the grouping; all False and "" if none does.
    """
    for name, groups in groupings.items():
        test = choose_test(labels, groups)
        if test.any():
            return test, name
    return np.zeros(len(labels), dtype=bool), ""


def choose_test(
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


def anybody(span: Span, seen: np.ndarray) -> bool:
    """Whether somebody is in the frames of a part, given the sorted frames with somebody."""
    return bool(np.ptp(np.searchsorted(seen, (span.start, span.end))))
