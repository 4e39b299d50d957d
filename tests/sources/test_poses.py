import json
import math
import random
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from maskclr_pl.skeletons.skeleton import SKELETONS, conversion_matrix
from maskclr_pl.sources.poses import files as pose_files
from maskclr_pl.sources.poses.video import ESTIMATOR_LAYOUTS, link, read_poses
from maskclr_pl.types import InputError
from tests.helpers.pose_tools import (
    FORMATS,
    alphapose,
    alphapose_open,
    coco,
    flat,
    stgcn,
    truth,
    write,
)
from tests.reference.poses import link as oracle_link

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"


@pytest.mark.parametrize(
    ("tool", "joints"), FORMATS, ids=lambda value: getattr(value, "__name__", value)
)
def test_all_formats_give_the_same_poses(tmp_path, tool, joints):
    poses = truth(joints)
    video = read_poses(tool(tmp_path / "clip", poses), frame_size=(720, 1280))
    assert video.skeleton is SKELETONS[ESTIMATOR_LAYOUTS[joints]]
    assert (video.first, video.end, video.frame_size) == (0, 12, (720, 1280))
    keypoint, score = video.clip()
    assert keypoint.dtype == score.dtype == np.float32
    assert keypoint.shape == (2, 12, joints, 2)
    assert score.shape == (2, 12, joints)
    expected = np.zeros((2, 12, joints, 3))
    for i, ps in poses.items():
        for person, pose in enumerate(ps):
            expected[person, i] = pose
    # the one seen longer comes first, in all of these
    # float32 of coordinates below 1000 is exact to 1e-4
    np.testing.assert_allclose(keypoint, expected[..., :2], atol=1e-4)
    np.testing.assert_allclose(score, expected[..., 2], atol=1e-6)


def test_joints_without_scores_are_read(tmp_path):
    body = [[0.1 + i / 100, 0.5] for i in range(17)]
    frames = [{"joints": [[0.0, 0.0], *([x + t / 100, y] for x, y in body)]} for t in range(3)]
    video = read_poses(write(tmp_path / "a.json", frames), frame_size=[200, 400])
    keypoint, score = video.clip()
    assert keypoint.shape == (1, 3, 18, 2)
    np.testing.assert_allclose(keypoint[0, :, 1], [[40, 100], [44, 100], [48, 100]], atol=1e-4)
    assert not keypoint[:, :, 0].any()
    assert (score == (keypoint != 0).any(-1)).all()


def test_joint_with_a_score_is_visible(tmp_path):
    """OpenPifPaf places missing joints at (0, -3); other joints may be at (0, 0)."""
    pose = np.tile([[50.0, 60.0, 0.5]], (17, 1))
    pose[0], pose[1], pose[2] = (0, -3, 0), (0, 0, 0.4), (70, 80, 1.7)
    person = {"keypoints": flat(pose)}
    video = read_poses(write(tmp_path / "a.jpg.predictions.json", [person]))
    keypoint, score = video.clip()
    assert keypoint[0, 0, :3].tolist() == [[0, 0], [0, 0], [70, 80]]
    np.testing.assert_allclose(score[0, 0, :4], [0, 0.4, 1, 0.5], atol=1e-7)


def test_nan_joints_are_missing(tmp_path):
    pose = np.tile([[50.0, 60.0, 0.5]], (17, 1))
    pose[0, 0], pose[1, 1], pose[2, 2] = math.nan, math.inf, -math.inf
    text = json.dumps([{"keypoints": flat(pose)}])
    assert "NaN" in text
    video = read_poses(write(tmp_path / "a.json", text))
    assert video.score[0].tolist() == [0, 0, 0, *[0.5] * 14]
    assert not video.keypoint[0, :3].any()


@pytest.mark.parametrize("joints", ESTIMATOR_LAYOUTS)
def test_default_image_size_holds_all_joints(tmp_path, joints):
    poses = truth(joints)
    video = read_poses(alphapose(tmp_path, poses))
    x, y = np.concatenate([p[p[:, 2] > 0, :2] for ps in poses.values() for p in ps]).max(axis=0)
    assert video.frame_size == (int(y) + 1, int(x) + 1)


def test_body25_contains_coco_joints():
    """The order of BODY_25 in OpenPose's documentation."""
    weights, missing = conversion_matrix(SKELETONS["body25"], SKELETONS["coco17"])
    order = [0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11]
    assert not missing
    np.testing.assert_array_equal(weights, np.eye(25)[order])


def test_image_size_of_the_file_is_preferred(tmp_path):
    assert read_poses(coco(tmp_path, truth()), frame_size=[9, 9]).frame_size == (720, 1280)


def test_frame_numbers_are_kept(tmp_path):
    poses = {7: truth()[4], 30: truth()[4], 31: truth()[4]}
    video = read_poses(alphapose(tmp_path, poses))
    assert (video.first, video.end) == (7, 32)
    _, score = video.clip()
    assert score.shape[:2] == (2, 25)
    assert np.flatnonzero(score.any(axis=(0, 2))).tolist() == [0, 23, 24]
    _, part = video.clip(8, 31)
    np.testing.assert_array_equal(part, score[:, 1:24])
    assert video.clip(31, 99)[0].shape == (2, 1, 17, 2)
    assert video.clip(8, 30)[0].shape == (0, 22, 17, 2)  # nobody there
    assert video.clip(99, 120)[0].shape[:2] == (0, 0)


def test_best_persons_are_kept(tmp_path):
    poses = {
        i: [
            np.column_stack([np.full((17, 2), 200.0 * k + 1) + np.eye(17, 2) * 50, s])
            for k, s in ps
        ]
        for i, ps in enumerate(
            [
                [(0, np.full(17, 0.9)), (1, np.full(17, 0.3)), (2, np.full(17, 0.5))],
                [(2, np.full(17, 0.5)), (1, np.full(17, 0.3))],
            ]
        )
    }
    video = read_poses(alphapose(tmp_path, poses))
    for persons in (1, 2, 3, 9):
        keypoint, score = video.clip(max_persons=persons)
        # summed scores: 1.0, 0.9 and 0.6 times 17
        assert keypoint[:, 0, 5, 0].tolist() == [401, 1, 201][:persons]
        assert score.shape[0] == min(persons, 3)


def test_crowds_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(pose_files, "MAX_PERSONS", 2)
    poses = [np.column_stack([np.eye(17, 2) * 9 + 100 * k, np.full(17, k / 10)]) for k in (3, 1, 4)]
    video = read_poses(alphapose(tmp_path, {0: poses}))
    np.testing.assert_allclose(sorted(video.score[:, 0]), [0.3, 0.4], atol=1e-6)


# --- tracks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([[4, 9], [9, 4]], [[0, 1], [1, 0]]),  # tracks: the persons change places
        ([[0, 0], [0, 0]], [[0, 1], [0, 1]]),  # AlphaPose without tracker
        ([[4, 9], [9, -1]], [[0, 1], [0, 1]]),  # OpenPose's -1
        ([[[[3.0], [5.0]], [7]], [[7], [3]]], [[0, 1], [1, 0]]),  # AlphaPose's merged persons
        ([["a", None], [True, {}]], [[0, 1], [0, 1]]),
    ],
)
def test_track_ids_of_the_file_are_used(tmp_path, ids, expected):
    places = [np.column_stack([np.eye(17, 2) * 60 + 300 * k + 1, np.full(17, 0.5)]) for k in (0, 1)]
    people = [
        {"image_id": f"{i}.jpg", "keypoints": flat(places[k]), "idx": ids[i][k]}
        for i in (0, 1)
        for k in (0, 1)
    ]
    track = read_poses(write(tmp_path / "a.json", people)).track.reshape(2, 2)
    assert (track[0, 0] == track[1]).tolist() == [slot == expected[0][0] for slot in expected[1]]
    assert len(np.unique(track)) == 2


@st.composite
def detections(draw):
    rows, joints = draw(st.integers(1, 14)), draw(st.integers(1, 4))
    frame = np.sort(draw(hnp.arrays(np.int64, rows, elements=st.integers(0, 12))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # without ties between distances, so that the nearest pair is unique
    keypoint = rng.uniform(0, draw(st.sampled_from([3.0, 30.0, 300.0])), (rows, joints, 2))
    score = rng.uniform(0.1, 1, (rows, joints)) * (rng.random((rows, joints)) < 0.7)
    score[:, 0] += 0.1 * (score.sum(axis=1) == 0)  # rows without joints do not come this far
    return frame, keypoint, score


@settings(max_examples=150, deadline=None)
@given(detections(), st.integers(1, 8), st.sampled_from([0.2, 0.5, 1.0, 3.0]))
def test_link_matches_reference(rows, gap, reach):
    track = link(*rows, gap=gap, reach=reach)
    assert track.tolist() == oracle_link(*rows, gap=gap, reach=reach)


@settings(max_examples=100, deadline=None)
@given(detections(), st.integers(1, 8), st.floats(0, 3), st.floats(1.5, 50), st.floats(-99, 99))
def test_tracks_are_consistent(rows, gap, reach, scale, shift):
    frame, keypoint, score = rows
    track = link(frame, keypoint, score, gap, reach)
    assert len(np.unique(np.stack([frame, track]), axis=1).T) == len(frame)  # once in a frame
    numbers, appeared = np.unique(track, return_index=True)
    assert numbers.tolist() == list(range(len(numbers)))
    assert (np.diff(appeared) > 0).all()
    for number in numbers:
        assert (np.diff(frame[track == number]) <= gap).all()
    # sizes of at least a pixel only grow, so the picture may be anywhere
    if all(np.ptp(k[s > 0], axis=0).max() >= 1 for k, s in zip(keypoint, score, strict=True)):
        moved = link(frame, keypoint * scale + shift, score, gap, reach)
        assert np.array_equal(moved, track)


def test_crossing_persons_keep_their_tracks():
    frame = np.repeat(np.arange(40), 2)
    step = np.arange(40)[:, None, None]
    shape = np.random.default_rng(0).uniform(0, 80, (2, 17, 2))
    right, left = shape[0] + step * [5, 0], shape[1] + [200, 30] - step * [5, 0]
    keypoint = np.stack([right, left], axis=1).reshape(80, 17, 2)
    track = link(frame, keypoint, np.ones((80, 17)))
    assert track.tolist() == [0, 1] * 40


# --- files that cannot be read --------------------------------------------------------------------

PERSON = {"keypoints": flat(np.tile([[50.0, 60.0, 0.5]], (17, 1)))}


def person(joints: int = 17, **values: Any) -> dict[str, Any]:
    return {"keypoints": flat(np.tile([[50.0, 60.0, 0.5]], (joints, 1))), **values}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not JSON, or cut short"),
        ("{", "not JSON, or cut short"),
        ("[" * 100_000, "not JSON, or cut short"),
        (json.dumps([person()])[:-9], "not JSON, or cut short"),
        ('{"frame": 1, "predictions": []}\n{"frame": 2, "predi', "not JSON, or cut short"),
        ("1", "found '1', expected a file of OpenPifPaf"),
        ("null", "found 'None', expected a file of OpenPifPaf"),
        ({}, "a dict with nothing, expected a file of OpenPifPaf"),
        ({"x": 1, "y": 2}, "a dict with 'x', 'y', expected a file of OpenPifPaf"),
        ([1, "a"], "found a list of int, str, expected a file of OpenPifPaf"),
        ([], "no person in any of its 1 frames"),
        ([[], []], "no person in any of its 2 frames"),
        ({"people": 3}, "found '3', expected a list"),
        ([{"instances": []}, {"x": 1}], "frame 1 is a dict with 'x', expected a list of persons"),
        ({"instance_info": [7]}, "frame 0 is '7', expected a list of persons"),
        (
            [{"bbox": [1]}],
            "frame 0: a person is a dict with 'bbox', expected a dict with `keypoints`",
        ),
        ([[1.5]], "frame 0: a person is '1.5', expected a dict with `keypoints`"),
        ([{"keypoints": ["a"] * 51}], "frame 0: `keypoints` of a person is not a list of numbers"),
        ([{"keypoints": [[1], [2, 3]]}], "`keypoints` of a person is not a list of numbers"),
        ([{"keypoints": [10**400] * 51}], "`keypoints` of a person is not a list of numbers"),
        ([{"keypoints": {"nose": 1}}], "`keypoints` of a person is not a list of numbers"),
        ([{"keypoints": [1.0] * 50}], "shape (50,) and no scores, expected x, y and score"),
        ([{"keypoints": 3.0}], "shape () and no scores, expected x, y and score"),
        (
            [{"keypoints": [[1, 2, 3]] * 17, "keypoint_scores": [1] * 17}],
            "shape (17, 3) and 17 scores, expected x, y and score",
        ),
        ([person(), person(18)], "17 joints in frame 0, but 18 in frame 0; expected one joint"),
        ([person(20)], "20 joints, expected 17 (coco17), 18 (openpose18), 25 (body25), 26"),
        ([person(133)], "pass skeleton=NAME, or a YAML file with joints and edges"),
        ([{"keypoints": [0.0] * 51}], "no visible joint in any frame (all scores are 0)"),
        ([{"keypoints": [1e30] * 51}], "coordinates up to 1e+30, expected pixels of an image"),
        ([{"keypoints": [0.3, 0.7, 0.5, 0.6, 0.4, 0.5] * 8 + [0.5] * 3}], "pass frame_size=[HEI"),
        ([person(image_id="a"), person(image_id="b")], "image 'a' has no frame number in its name"),
        ([person(image_id=-1), person(image_id=2)], "image '-1' has no frame number in its name"),
        ([person(image_id=1.0), person(image_id=None)], "a person has no `image_id`"),
        (
            [person(image_id="a/1.jpg"), person(image_id="b/01.jpg")],
            "images 'a/1.jpg' and 'b/01.jpg' have the same frame number 1; expected the images of",
        ),
        (
            [person(image_id="1.jpg"), person(image_id="9" * 5000)],
            "frame numbers from 1 to 9999999999999999, expected at most 200000 frames",
        ),
        ({"images": [1], "annotations": []}, "`images` and `annotations` are not lists of dicts"),
        ({"images": 1, "annotations": []}, "are not lists of dicts (COCO)"),
        (
            {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [person(image_id=2)]},
            "`annotations` names image '2', which is not in `images`",
        ),
    ],
)
def test_malformed_content_is_refused(tmp_path, content, expected):
    path = write(tmp_path / "a.json", content)
    with pytest.raises(InputError) as error:
        read_poses(path)
    assert str(error.value).startswith(f"{path}: ")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500 + len(str(path))


def test_invalid_paths_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "latin.json").write_bytes('["é"]'.encode("latin-1"))
    write(tmp_path / "mixed/1.json", [PERSON])
    write(tmp_path / "mixed/2.json", [[PERSON], [PERSON]])
    write(tmp_path / "broken/1.json", [PERSON])
    write(tmp_path / "broken/2.json", "[")
    write(tmp_path / "twice/a1.json", [PERSON])
    write(tmp_path / "twice/b1.json", [PERSON])
    for name, expected in {
        "nothing.json": "nothing.json: no such file",
        "link.json": "link.json: no such file",
        "empty": "empty: no .json files in this folder",
        "latin.json": "latin.json: not UTF-8 text",
        "mixed": "mixed/2.json: 2 frames in one of 2 .json files; expected a file for each image",
        "broken": "broken/2.json: not JSON",
        "twice": "twice: images 'a1.json' and 'b1.json' have the same frame number 1",
    }.items():
        with pytest.raises(InputError) as error:
            read_poses(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path}/{expected}"), name


def test_invalid_options_are_refused(tmp_path):
    path = write(tmp_path / "a.json", [PERSON])
    for size in ([480], [0, 640], [480, 640, 3], [480, 2**30]):
        with pytest.raises(InputError, match=r"frame_size=\[.*expected \[HEIGHT,WIDTH\] in pixels"):
            read_poses(path, frame_size=size)
    with pytest.raises(InputError, match="17 joints, but skeleton ntu25 has 25; pass the skeleton"):
        read_poses(path, skeleton="ntu25")
    assert read_poses(path, skeleton="h36m17").skeleton is SKELETONS["h36m17"]


@pytest.mark.parametrize("tool", dict(FORMATS), ids=lambda tool: tool.__name__)
def test_damaged_files_are_read_or_refused(tmp_path, tool):
    path = tool(tmp_path / "clip", truth(18 if tool in (stgcn, alphapose_open) else 17, frames=5))
    file = sorted(path.iterdir())[0] if path.is_dir() else path
    whole = file.read_bytes()
    rng = random.Random(1)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(damaged))
            kind = rng.randrange(4)
            if kind == 0:
                damaged[at] = rng.randrange(256)
            elif kind == 1:
                damaged[at : at + 1] = rng.choice([b"null", b"[]", b"{}", b"1e999", b'"a"', b","])
            elif kind == 2:
                del damaged[at : at + rng.randrange(1, 40)]
            else:
                damaged[at:at] = whole[at : at + rng.randrange(1, 200)]
        file.write_bytes(damaged)
        try:
            video = read_poses(path, frame_size=(720, 1280))
        except InputError as error:
            refused += "\n" not in str(error)
            continue
        keypoint, score = video.clip()
        assert np.isfinite(keypoint).all()
        assert 0 <= score.min() <= score.max() <= 1
        assert not keypoint[score == 0].any()
    assert refused > 10


# --- real files -----------------------------------------------------------------------------------


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples")
@pytest.mark.parametrize(
    ("name", "joints", "frames", "rows"),
    [
        ("estimator_samples/alphapose_coco17_results.json", 17, (1, 150), 153),
        ("estimator_samples/alphapose_results_figureskating_video.json", 17, (0, 377), 694),
        ("estimator_samples/mmpose_inferencer_rtmo/Clapping (1).json", 17, (0, 307), 307),
        ("estimator_samples/mmpose_inferencer_rtmo", 17, (0, 307), 307),
        ("estimator_samples/openpifpaf_000000081988.jpg.predictions.json", 17, (0, 1), 5),
        ("estimator_samples/openpifpaf_old_002282.png.pifpaf.json", 17, (0, 1), 16),
        ("kinetics_skeleton_sample/--33Lscn6sk.json", 18, (1, 190), 315),
        ("kinetics_skeleton_sample/S004C002P003R001A055_rgb.json", 18, (1, 77), 160),
        ("kinetics_skeleton_sample/S004C003P003R001A007_rgb.json", 18, (1, 78), 79),
    ],
)
def test_real_files_are_read(name, joints, frames, rows):
    video = read_poses(SAMPLES / name, frame_size=[256, 340])
    assert video.keypoint.shape == (rows, joints, 2)
    assert (video.first, video.end) == frames
    keypoint, score = video.clip()
    assert np.isfinite(keypoint).all()
    assert 0 <= score.min() < score.max() <= 1
    assert keypoint.max() > 100


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples")
def test_skater_is_one_track():
    """The skater is visible in all 377 frames, in front of spectators."""
    video = read_poses(SAMPLES / "estimator_samples/alphapose_results_figureskating_video.json")
    _, score = video.clip(max_persons=1)
    assert score[0].any(axis=1).all()
