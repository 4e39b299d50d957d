"""Windows and persons of videos, against loops over frames."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from maskclr_pl.data import Recording
from maskclr_pl.inference.videos import ArrayVideo, TrackedVideo, Video
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources.poses.video import PoseVideo, read_poses
from tests.helpers.pose_tools import alphapose, truth

COCO = SKELETONS["coco17"]


def tracked(visible: np.ndarray, first: int = 0) -> TrackedVideo:
    """A video from visibility (persons, frames); person p has score (p + 1) / 10."""
    rows = np.argwhere(visible.T)
    frame, track = rows[:, 0] + first, rows[:, 1]
    keypoint = np.ones((len(rows), 17, 2), np.float32) * (10 * track + 1)[:, None, None]
    keypoint[..., 1] = frame[:, None]
    score = (np.ones((len(rows), 17)) * ((track + 1) / 10)[:, None]).astype(np.float32)
    end = first + visible.shape[1]
    poses = PoseVideo(frame, track, keypoint, score, COCO, (100, 100), first, end)
    return TrackedVideo("a", COCO, (), poses)


def array(visible: np.ndarray) -> ArrayVideo:
    """The same video as an array."""
    keypoint = np.zeros((*visible.shape, 17, 2), np.float32)
    score = np.zeros((*visible.shape, 17), np.float32)
    for person, frame in np.argwhere(visible):
        keypoint[person, frame] = 10 * person + 1, frame
        score[person, frame] = (person + 1) / 10
    return ArrayVideo("a", COCO, (), Recording("a", 0, keypoint, score, (100, 100)))


@st.composite
def visibilities(draw: st.DrawFn) -> np.ndarray:
    persons, frames = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    bits = draw(st.lists(st.booleans(), min_size=persons * frames, max_size=persons * frames))
    visible = np.array(bits).reshape(persons, frames)
    visible[0, draw(st.integers(0, frames - 1))] = True
    return visible


def window_starts(frames: int, length: int, stride: int) -> list[int]:
    """One start per stride while there is room, then one window that ends with the video."""
    if length >= frames:
        return [0]
    return [*range(0, frames - length, stride), frames - length]


@given(visibilities(), st.integers(1, 14), st.integers(1, 14), st.booleans(), st.integers(1, 3))
def test_windows_match_a_loop(visible, length, stride, per_person, max_persons):
    expected = []
    frames = visible.shape[1]
    for start in window_starts(frames, length, stride):
        end = min(start + length, frames)
        score = {p: (p + 1) * int(visible[p, start:end].sum()) for p in range(len(visible))}
        present = [p for p in score if score[p] > 0]
        best = sorted(present, key=lambda p: (-score[p], p))[:max_persons]
        if per_person:
            for p in best:
                times = [t for t in range(start, end) if visible[p, t]]
                share = len(times) / (times[-1] + 1 - times[0])
                expected.append((times[0], times[-1] + 1, [p], round(share, 6)))
        elif best:
            share = sum(any(visible[p, t] for p in best) for t in range(start, end)) / (end - start)
            expected.append((start, end, sorted(best), round(share, 6)))
    videos: list[tuple[Video, int]] = [(tracked(visible, first=5), 5), (array(visible), 0)]
    for video, first in videos:
        windows = list(video.windows(length, stride, per_person, max_persons))
        values = [
            (w.start - first, w.end - first, sorted(w.persons), round(w.visible, 6))
            for w in windows
        ]
        key = lambda value: (value[0], value[2])  # noqa: E731  # persons of a window in any order
        assert sorted(values, key=key) == sorted(expected, key=key)
        for window in windows:
            for body, person in zip(window.recording.keypoint, window.persons, strict=False):
                times = np.arange(window.start, window.end) - first
                x = np.where(visible[person, times], 10 * person + 1, 0)
                assert (body[..., 0] == x[:, None]).all()


def test_without_a_length_the_window_is_the_whole_video():
    [window] = tracked(np.ones((1, 9), bool)).windows(None, None, False, 2)
    assert (window.start, window.end, window.persons, window.visible) == (0, 9, (0,), 1.0)


def test_arrays_keep_the_order_of_their_persons():
    """As in the clips of a data set."""
    [window] = array(np.ones((3, 4), bool)).windows(None, None, False, 2)
    assert window.persons == (1, 2)


@given(visibilities())
def test_poses_at_selects_frames_and_persons(visible):
    frames, persons = np.arange(0, visible.shape[1], 2), np.flatnonzero(visible.any(1))
    videos: list[tuple[Video, int]] = [(tracked(visible, first=3), 3), (array(visible), 0)]
    for video, first in videos:
        keypoint, seen = video.poses_at(frames + first, persons)
        expected = visible[persons][:, frames][..., None]
        assert (seen == expected).all()
        assert (keypoint[..., 0] == (10 * persons + 1)[:, None, None] * expected).all()


@pytest.mark.parametrize("threshold", [0.15, 0.5])
def test_shares_of_missing_joints_and_low_scores(tmp_path, threshold):
    poses = truth(17)
    video = TrackedVideo("a", COCO, (), read_poses(alphapose(tmp_path, poses)))
    scores = np.array([pose[:, 2] for detections in poses.values() for pose in detections])
    missing, low = video.missing_and_low(threshold)
    assert missing == pytest.approx((scores == 0).mean())
    assert low == pytest.approx(((scores > 0) & (scores < threshold)).mean())
    keypoint = np.array([[[[1.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    unscored = ArrayVideo("a", COCO, (), Recording("a", 0, keypoint))
    assert unscored.missing_and_low(threshold) == (0.5, None)  # in its one visible frame
