"""Linking of persons, joint by joint."""

import math

import numpy as np


def person_size(keypoint: np.ndarray, score: np.ndarray) -> float:
    """Longer side of the box of the joints found, at least a pixel."""
    xs = [x for (x, _), s in zip(keypoint, score, strict=True) if s > 0]
    ys = [y for (_, y), s in zip(keypoint, score, strict=True) if s > 0]
    return max(max(xs) - min(xs), max(ys) - min(ys), 1.0)


def link_cost(
    keypoint_a: np.ndarray, score_a: np.ndarray, keypoint_b: np.ndarray, score_b: np.ndarray
) -> float:
    """Mean distance of the joints found in both, in sizes of the larger person."""
    steps = [
        math.dist(a, b)
        for a, sa, b, sb in zip(keypoint_a, score_a, keypoint_b, score_b, strict=True)
        if sa > 0 and sb > 0
    ]
    if not steps:
        return math.inf
    size = max(person_size(keypoint_a, score_a), person_size(keypoint_b, score_b))
    return sum(steps) / len(steps) / size


def link(
    frame: np.ndarray, keypoint: np.ndarray, score: np.ndarray, gap: int, reach: float
) -> list[int]:
    """Track number of each row: all pairs of a frame, nearest first."""
    track: list[int] = [-1] * len(frame)
    newest: dict[int, int] = {}  # track -> row
    for now in sorted(set(frame.tolist())):
        rows = [row for row in range(len(frame)) if frame[row] == now]
        pairs = sorted(
            (link_cost(keypoint[old], score[old], keypoint[row], score[row]), number, row)
            for number, old in newest.items()
            if now - frame[old] <= gap
            for row in rows
        )
        taken = set()
        for cost, number, row in pairs:
            if cost <= reach and track[row] < 0 and number not in taken:
                track[row] = number
                taken.add(number)
        for row in rows:
            if track[row] < 0:
                track[row] = max(newest, default=-1) + 1
            newest[track[row]] = row
    return track
