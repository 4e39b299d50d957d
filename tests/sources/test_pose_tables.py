"""Tables of poses: what the columns mean, several videos, refusals."""

import numpy as np
import pytest

from maskclr_pl.sources.poses.source import PosesSource
from maskclr_pl.sources.poses.tables import joint_name, read_table, read_video_names
from maskclr_pl.sources.poses.video import read_poses
from maskclr_pl.types import InputError
from tests.helpers.pose_tools import COCO, table, truth


def test_table_is_read(tmp_path):
    poses, other = truth(17), truth(17, frames=5, first=40)
    path = table(tmp_path / "all.csv", {"a.mp4": poses, "b": other})
    assert read_video_names(path) == ["a", "b"]
    video = read_poses(path, video="b")
    assert (video.first, video.end, video.skeleton.joints) == (40, 45, COCO)
    video = read_poses(path, video="a")
    expected = [(frame, i) for frame in poses for i in range(len(poses[frame]))]
    assert list(zip(video.frame.tolist(), video.track.tolist(), strict=True)) == expected
    for row, (frame, person) in enumerate(expected):
        pose = poses[frame][person]
        np.testing.assert_allclose(video.keypoint[row], pose[:, :2], rtol=1e-6)
        np.testing.assert_allclose(video.score[row], pose[:, 2], rtol=1e-6)


def test_partial_layout_in_another_order_is_read(tmp_path):
    joints = ("left_wrist", "nose", "left_shoulder", "right_hip")
    path = table(tmp_path / "few.csv", {"a": truth(17)}, joints)
    _, skeleton = read_table(path)
    assert skeleton is not None
    assert skeleton.joints == joints
    # the wrist hangs on the elbow, which is not there, so on the shoulder; the hip on nothing left
    assert skeleton.parents == (2, -1, 1, 1)


def test_frame_and_person_columns_are_optional(tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("Nose.x;Nose.y;LShoulder.x;LShoulder.y\n10;20;30;\n11;21;31;41\n\n")
    result, skeleton = read_table(path)
    assert skeleton is not None
    assert skeleton.joints == ("nose", "left_shoulder")
    assert result.frame.tolist() == [0, 1]
    assert result.identity.tolist() == [-1, -1]
    video = read_poses(path)
    np.testing.assert_array_equal(video.score, [[1, 0], [1, 1]])  # an empty cell was not found


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("LShoulder", "left_shoulder"),
        ("shoulder_R", "right_shoulder"),
        ("LeftBigToe", "left_big_toe"),
        ("left ankle", "left_ankle"),
        ("NOSE", "nose"),
        ("r_wrist", "right_wrist"),
        ("neck", "neck"),
    ],
)
def test_joint_names_are_normalized(given, name):
    assert joint_name(given) == name


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("clip,label\na,b\n", "columns 'clip', 'label'; expected the poses of a video"),
        ("frame,nose_x,nose_y\n", "no rows"),
        ("frame,nose_x,nose_y\n0,1\n", "row 2: expected 3 cells"),
        ("frame,nose_x,nose_y\n0,1,two\n", "column 'nose_y'"),
        ("frame,nose_x,nose_y\n-,1,2\n", "no frame number"),
        ("frame,nose_x,nose_y\n0,1,2\n999999999,1,2\n", "expected at most"),
        ("frame,nose_x,nose_y\n" + "0,1,2\n" * 40, "40 rows for one frame"),
        ("frame,tail_x,tail_y\n0,10,20\n", "1 joints, expected 17"),
        ("frame,bbox_x,bbox_y\n0,10,20\n", "expected the poses of a video"),
        ("", "not a table of poses"),
    ],
)
def test_malformed_table_is_refused(tmp_path, text, line):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=line) as refusal:
        read_poses(path)
    assert str(refusal.value).startswith(str(path))


def test_video_name_is_required_among_several(tmp_path):
    path = table(tmp_path / "all.csv", {"a": truth(17), "b": truth(17)})
    with pytest.raises(InputError, match="2 videos in one table"):
        read_poses(path)
    with pytest.raises(InputError, match="no video 'c'"):
        read_poses(path, video="c")


def test_prepare_reads_table(tmp_path):
    """The clips of labels.csv are the videos of the table."""
    names = [f"{what}{i}" for what in ("walk", "run") for i in range(4)]
    videos = {
        name: {f: [p * [1 + i / 9, 1, 1] for p in result] for f, result in truth(17).items()}
        for i, name in enumerate(names)
    }
    path = table(tmp_path / "all.csv", videos)
    labels = tmp_path / "labels.csv"
    labels.write_text("clip,label\n" + "".join(f"{name}.mp4,{name[:-1]}\n" for name in names))
    source = PosesSource(path, labels)
    assert [source.name(i) for i in range(len(source))] == names
    assert source.skeleton is not None
    assert source.skeleton.name == "coco17"
    for i, name in enumerate(names):
        keypoint, _ = read_poses(path, video=name).clip()
        np.testing.assert_array_equal(source[i].keypoint, keypoint)
