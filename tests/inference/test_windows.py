"""Videos as windows and persons: arithmetic against loops over frames."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from maskclr_pl.data import Recording
from maskclr_pl.inference.windows import cut_windows, found_share, poses_at
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources.poses.video import PoseVideo, read_poses
from tests.helpers.pose_tools import alphapose, truth


def video_of(seen: np.ndarray, first: int = 0) -> PoseVideo:
    """(persons, frames) bool: who is seen when. Person p has score (p + 1) / 10."""
    rows = np.argwhere(seen.T)
    frame, track = rows[:, 0] + first, rows[:, 1]
    keypoint = np.ones((len(rows), 17, 2), np.float32) * (10 * track + 1)[:, None, None]
    keypoint[..., 1] = frame[:, None]
    score = np.full((len(rows), 17), 1, np.float32) * ((track + 1) / 10)[:, None]
    end = first + seen.shape[1]
    coco = SKELETONS["coco17"]
    return PoseVideo(frame, track, keypoint, score.astype(np.float32), coco, (100, 100), first, end)


def array_of(seen: np.ndarray) -> Recording:
    """The same as an array."""
    keypoint = np.zeros((*seen.shape, 17, 2), np.float32)
    score = np.zeros((*seen.shape, 17), np.float32)
    for person, frame in np.argwhere(seen):
        keypoint[person, frame] = 10 * person + 1, frame
        score[person, frame] = (person + 1) / 10
    return Recording("a", 0, keypoint, score, (100, 100))


@st.composite
def who_when(draw: st.DrawFn) -> np.ndarray:
    persons, frames = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    bits = draw(st.lists(st.booleans(), min_size=persons * frames, max_size=persons * frames))
    seen = np.array(bits).reshape(persons, frames)
    seen[0, draw(st.integers(0, frames - 1))] = True
    return seen


def starts_of(frames: int, length: int, stride: int) -> list[int]:
    """Windows as a loop: on while there is room, then one that ends with the video."""
    if length >= frames:
        return [0]
    starts, at = [], 0
    while at + length < frames:
        starts.append(at)
        at += stride
    return [*starts, frames - length]


@given(who_when(), st.integers(1, 14), st.integers(1, 14), st.booleans(), st.integers(1, 3))
def test_pieces_are_those_of_a_loop(seen, length, stride, per_person, most):
    expected = []
    frames = seen.shape[1]
    for start in starts_of(frames, length, stride):
        end = min(start + length, frames)
        score = {p: (p + 1) * int(seen[p, start:end].sum()) for p in range(len(seen))}
        there = [p for p in score if score[p] > 0]
        best = sorted(there, key=lambda p: (-score[p], p))[:most]
        if per_person:
            for p in best:
                at = [t for t in range(start, end) if seen[p, t]]
                share = len(at) / (at[-1] + 1 - at[0])
                expected.append((at[0], at[-1] + 1, frozenset([p]), round(share, 6)))
        elif best:
            share = sum(any(seen[p, t] for p in best) for t in range(start, end)) / (end - start)
            expected.append((start, end, frozenset(best), round(share, 6)))
    for poses, first in ((video_of(seen, first=5), 5), (array_of(seen), 0)):
        found = list(cut_windows(poses, length, stride, per_person, most))
        told = [
            (p.start - first, p.end - first, frozenset(p.persons), round(p.seen, 6)) for p in found
        ]
        key = lambda one: (one[0], sorted(one[2]))  # noqa: E731  # of one window, in any order
        assert sorted(told, key=key) == sorted(expected, key=key)
        for piece in found:
            for slot, person in enumerate(piece.persons):
                body = piece.recording.keypoint[slot]
                for t in range(piece.start, piece.end):
                    value = 10 * person + 1 if seen[person, t - first] else 0
                    assert (body[t - piece.start, :, 0] == value).all()


def test_without_a_length_the_video_is_whole():
    seen = np.ones((1, 9), bool)
    [piece] = cut_windows(video_of(seen), None, None, False, 2)
    assert (piece.start, piece.end, piece.persons, piece.seen) == (0, 9, (0,), 1.0)


def test_arrays_keep_the_order_of_their_persons():
    """Of persons seen together clips take the best in their order, as from a data set."""
    seen = np.ones((3, 4), bool)
    [piece] = cut_windows(array_of(seen), None, None, False, 2)
    assert piece.persons == (1, 2)


@given(who_when())
def test_poses_of_some_frames_and_persons(seen):
    frames, persons = np.arange(0, seen.shape[1], 2), np.flatnonzero(seen.any(1))
    for poses, first in ((video_of(seen, first=3), 3), (array_of(seen), 0)):
        keypoint, visible = poses_at(poses, frames + first, persons)
        expected = seen[persons][:, frames]
        assert (visible == expected[..., None]).all()
        assert (keypoint[..., 0] == (10 * persons + 1)[:, None, None] * expected[..., None]).all()


@pytest.mark.parametrize("below", [0.15, 0.5])
def test_shares_of_joints(tmp_path, below):
    poses = truth(17)
    video = read_poses(alphapose(tmp_path, poses))
    scores = np.array([pose[:, 2] for found in poses.values() for pose in found])
    missing, low = found_share(video, below)
    assert missing == pytest.approx((scores == 0).mean())
    assert low == pytest.approx(((scores > 0) & (scores < below)).mean())
    bare = Recording("a", 0, np.array([[[[1.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]]))
    assert found_share(bare, below) == (0.5, None)  # of the only frame in which the person is
