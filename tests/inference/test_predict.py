"""predict: every form of file, equality with the test of a run, the Python interface, refusals."""

import csv
import itertools
import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskclr_pl import predict
from maskclr_pl.data import Recording, Store
from maskclr_pl.inference.inputs import find_inputs
from maskclr_pl.inference.predictor import Predictor, softmax
from maskclr_pl.inference.results import format_time
from maskclr_pl.skeletons.skeleton import SKELETONS, conversion_matrix
from maskclr_pl.sources.poses.video import read_poses
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process, refused
from tests.helpers.pose_tools import FORMATS, alphapose, openpose, stgcn, table, truth
from tests.reference.ntu_skeleton import person, write

SAMPLES = Path(__file__).parents[3] / "shared/samples"
Command = Callable[..., str]


@pytest.fixture(scope="module")
def predictor(toy_run: Path) -> Predictor:
    return predict.load(toy_run / "run", device="cpu")


@pytest.fixture
def command(tmp_path: Path, toy_run: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """`predict` with the toy run, in an empty folder, into `out`."""
    fixed = [f"ckpt_path={toy_run / 'run'}", "device=cpu", "output_dir=out"]
    return lambda *args: in_process("predict", *fixed, *args, cwd=tmp_path, capsys=capsys)


@pytest.fixture
def line(tmp_path: Path, toy_run: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The line that `predict` ends with."""
    fixed = [f"ckpt_path={toy_run / 'run'}", "device=cpu", "output_dir=out"]
    return lambda *args: refused("predict", *fixed, *args, cwd=tmp_path, capsys=capsys)


def answers(folder: Path) -> list[dict[str, Any]]:
    videos: list[dict[str, Any]] = json.loads((folder / "out/predictions.json").read_text())[
        "videos"
    ]
    return videos


def shares(answer: dict[str, Any]) -> dict[str, float]:
    return {one["action"]: one["probability"] for one in answer["top"]}


# --- the same as the test of the run --------------------------------------------------------------


@pytest.mark.parametrize("file", ["poses.pkl", "poses.h5"])
def test_equal_to_the_predictions_of_the_run(tmp_path, toy_run, command, file):
    command(f"input={toy_run / file}", "split=test")
    tested = np.load(toy_run / "run/predictions.npz")
    found = {video["video"]: shares(video["answers"][0]) for video in answers(tmp_path)}
    assert sorted(found) == sorted(tested["name"].tolist())
    for name, logits in zip(tested["name"].tolist(), tested["logits"], strict=True):
        # the same code on the same numbers: only the size of the batch differs
        expected = dict(zip(["0", "1"], softmax(logits).tolist(), strict=True))
        assert found[name] == pytest.approx(expected, abs=1e-5)


# --- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("writer", "joints"), FORMATS)
def test_formats_of_estimators(tmp_path, command, predictor, writer, joints):
    poses = truth(joints)
    path = writer(tmp_path / "clips", poses)
    size = ["frame_size=[720,1280]"] if writer is stgcn else []
    printed = command(f"input={path}", *size)
    [video] = answers(tmp_path)
    [answer] = video["answers"]
    assert (answer["start"], answer["end"], len(answer["persons"])) == (0, 12, 2)
    # what the poses say when they are converted by a matrix and given as an array
    layout = read_poses(path, [720, 1280] if size else None).skeleton
    weights, missing = conversion_matrix(layout, SKELETONS["coco17"])
    assert not missing
    video_poses = read_poses(path, [720, 1280] if size else None)
    keypoint, score = video_poses.clip(max_persons=2)
    built = np.einsum("vw,mtwc->mtvc", weights, keypoint)
    parts = [np.flatnonzero(row) for row in weights]
    weakest = np.stack([score[..., part].min(-1) for part in parts], -1)
    expected = predictor(
        (built * (weakest > 0)[..., None]).astype(np.float32), weakest, video_poses.frame_size
    )
    found = shares(answer)
    assert found == pytest.approx(dict(zip(["0", "1"], expected.tolist(), strict=True)), abs=1e-5)
    assert video["joints_not_found"] > 0
    assert ("as in training" in printed) == (joints == 17)


def test_arrays_and_skeleton_files(tmp_path, command, predictor):
    keypoint, score = read_poses(alphapose(tmp_path / "made", truth(17))).clip()
    folder = tmp_path / "files"
    folder.mkdir()
    np.savez(folder / "a.npz", keypoint=keypoint, score=score, frame_size=[720, 1280])
    (folder / "b.skeleton").write_bytes(write({7: person(range(6), values=5)}, frames=6))
    (folder / "notes.txt").write_text("nothing to read")
    command(f"input={folder}", "max_missing=0.3")
    arrays, sensed = answers(tmp_path)
    expected = predictor(keypoint, score, (720, 1280))
    found = shares(arrays["answers"][0])
    assert found == pytest.approx(dict(zip(["0", "1"], expected.tolist(), strict=True)), abs=1e-6)
    assert sensed["frames"] == [0, 6]
    assert sensed["joints"].startswith("ntu25 -> coco17")
    assert "missing: left_eye, right_eye, left_ear, right_ear" in sensed["joints"]


def test_a_table_of_two_videos(tmp_path, command):
    path = table(tmp_path / "all.csv", {"a": truth(17), "b": truth(17, frames=4, first=7)})
    command(f"input={path}")
    a, b = answers(tmp_path)
    assert (a["video"], a["frames"]) == ("a", [0, 12])
    assert (b["video"], b["frames"]) == ("b", [7, 11])


@pytest.mark.slow
@pytest.mark.skipif(not (SAMPLES / "estimator_samples").is_dir(), reason="real data not here")
def test_every_real_sample(tmp_path, command, line):
    """Predictions from all but the listing that is no JSON, which is named."""
    folder = SAMPLES / "estimator_samples"
    printed = command(f"input={folder}", "on_error=skip", "frame_size=[480,640]")
    videos = answers(tmp_path)
    assert {Path(video["file"]).name for video in videos} == {
        *(path.name for path in folder.iterdir())
    } - {"alphapose_poseflow_sample.json"}
    assert all(video["answers"] for video in videos)
    assert sum(video["file"].endswith(".csv") for video in videos) == 30
    [left_out] = [row for row in printed.splitlines() if row.startswith("left out")]
    assert "alphapose_poseflow_sample.json: not JSON, or cut short" in left_out
    # without the size of the image its fractions mean nothing
    told = line(f"input={folder / 'urfd_pose_3classes.csv'}", "output_dir=other")
    assert "pass frame_size=[HEIGHT,WIDTH] of the videos" in told


# --- windows, persons, times, files ---------------------------------------------------------------


def test_long_videos_are_cut_and_persons_asked_about(tmp_path, command):
    """Longer than the training clips (at most 19 frames): windows as long as a typical one."""
    poses = truth(17, frames=60)
    printed = command(f"input={alphapose(tmp_path / 'made', poses)}", "fps=10", "gif=true")
    [video] = answers(tmp_path)
    ends = [(answer["start"], answer["end"]) for answer in video["answers"]]
    length = ends[0][1]
    assert 10 <= length <= 19
    assert ends[-1] == (60 - length, 60)
    # the last window ends with the video, wherever the others would go on
    assert {b[0] - a[0] for a, b in itertools.pairwise(ends[:-1])} == {length // 2}
    assert video["answers"][1]["start_seconds"] == pytest.approx(length // 2 / 10)
    assert f"00:00.0-{format_time(length, 10)}" in printed
    assert "were cut into windows" in printed
    rows = list(csv.DictReader((tmp_path / "out/predictions.csv").open()))
    assert [(int(row["start"]), int(row["end"])) for row in rows] == ends
    for row, answer in zip(rows, video["answers"], strict=True):
        assert float(row["probability_1"]) >= float(row["probability_2"])
        assert row["action_1"] == answer["top"][0]["action"]
    with Image.open(tmp_path / "out/00_alphapose-results.gif") as picture:
        assert picture.n_frames > 20
        assert max(picture.size) < 600


def test_each_person_alone(tmp_path, command, predictor):
    path = alphapose(tmp_path / "made", truth(17))
    printed = command(f"input={path}", "per_person=true", "gif=true")
    [video] = answers(tmp_path)
    spans = {a["persons"][0]: (a["start"], a["end"]) for a in video["answers"]}
    assert spans == {0: (0, 12), 1: (3, 12)}  # the second comes at frame 3
    assert printed.count("person 1") == 1
    keypoint, score = read_poses(path).clip()
    slot = int((keypoint[:, 0] != 0).any((1, 2)).argmin())
    alone = predictor(keypoint[slot : slot + 1, 3:], score[slot : slot + 1, 3:])
    found = shares(next(a for a in video["answers"] if a["persons"] == [1]))
    assert found == pytest.approx(dict(zip(["0", "1"], alone.tolist(), strict=True)), abs=1e-5)
    assert (tmp_path / "out/00_alphapose-results.gif").stat().st_size > 1000


def test_a_folder_is_one_video_or_many(tmp_path):
    images = openpose(tmp_path / "images", truth(18))
    assert find_inputs(str(images)) == [images]
    both = tmp_path / "both"
    one, other = alphapose(both / "a", truth(17)), alphapose(both / "b", truth(17))
    assert find_inputs(str(both)) == [both / "a", both / "b"]
    one.rename(both / "one.json")
    other.rename(both / "two.json")
    (both / "a").rmdir()
    (both / "b").rmdir()
    assert find_inputs(str(both)) == [both / "one.json", both / "two.json"]
    assert find_inputs([str(both), str(images)]) == [both / "one.json", both / "two.json", images]


def test_bad_files_stop_or_are_skipped(tmp_path, command, line):
    good = alphapose(tmp_path / "made", truth(17))
    folder = tmp_path / "all"
    folder.mkdir()
    good.rename(folder / "good.json")
    (folder / "bad.json").write_text("[{")
    (folder / "evil.pkl").write_bytes(pickle.dumps(partial(print, "never")))
    assert "bad.json: not JSON" in line(f"input={folder}")
    assert not (tmp_path / "out").exists()
    printed = command(f"input={folder}", "on_error=skip")
    left_out = [row for row in printed.splitlines() if row.startswith("left out")]
    assert len(left_out) == 2
    [video] = answers(tmp_path)
    assert video["video"] == "good"
    assert "holds results already" in line(f"input={folder}", "on_error=skip")
    (folder / "good.json").unlink()
    told = line(f"input={folder}", "on_error=skip", "output_dir=new")
    assert "none of the files can be used" in told


# --- refusals -------------------------------------------------------------------------------------


def arrays(path: Path, joints: int, channels: int) -> Path:
    rng = np.random.default_rng(0)
    high = 100 if channels == 2 else 2  # pixels, metres
    np.savez(path, keypoint=rng.uniform(0.1, high, (1, 8, joints, channels)))
    return path


@pytest.mark.parametrize(
    ("joints", "channels", "args", "told"),
    [
        (17, 3, [], "three coordinates, so 3D joints, but the model was trained on 2D poses"),
        (13, 2, [], "13 joints, but the model expects the 17 of coco17; pass skeleton=NAME"),
        (13, 2, ["skeleton=coco17"], "13 joints, but skeleton coco17 has 17"),
        (20, 2, ["skeleton=kinect20", "max_missing=0.1"], "kinect20 lacks 4 of the 17 joints"),
        (17, 2, ["window=0"], "window=0: expected a whole number from 1"),
        (17, 2, ["gif=yes please"], "gif=yes please: expected true or false"),
        (17, 2, ["skeleton=coco71"], "no skeleton named 'coco71' (did you mean coco17?)"),
        (17, 2, ["device=nowhere"], "pass device=cpu"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, line, joints, channels, args, told):
    path = arrays(tmp_path / "a.npz", joints, channels)
    assert told in line(f"input={path}", *args)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"poses": np.zeros(3)}, "holds 'poses'; expected an array `keypoint`"),
        ({"keypoint": np.zeros((3, 17, 2))}, "expected (persons, frames, joints, 2 or 3)"),
        ({"keypoint": np.full((1, 2, 17, 2), np.nan)}, "coordinates are NaN or infinite"),
        ({"keypoint": np.linspace(0.2, 0.8, 68).reshape(1, 2, 17, 2)}, "fractions of the image"),
        (
            {"keypoint": np.full((1, 2, 17, 2), 9.0), "score": np.ones((1, 3, 17))},
            "scores have shape (1, 3, 17), expected (1, 2, 17)",
        ),
        ({"keypoint": np.zeros((1, 2, 17, 2))}, "no person is visible"),
        ({"keypoint": np.full((1, 2, 17, 2), "x")}, "not an array of numbers"),
    ],
)
def test_arrays_that_are_refused(tmp_path, line, content, told):
    np.savez(tmp_path / "a.npz", **content)
    assert told in line(f"input={tmp_path / 'a.npz'}")


def test_no_file(tmp_path, toy_run, line):
    assert "nowhere.json: no such file or folder" in line("input=nowhere.json")
    (tmp_path / "empty").mkdir()
    assert "no pose files in this folder" in line("input=empty")
    for file in ("poses.h5", "poses.pkl"):
        assert "no split 'dev'; available splits:" in line(f"input={toy_run / file}", "split=dev")


# --- from Python ----------------------------------------------------------------------------------


def test_from_python(toy_run, predictor):
    assert predictor.class_names == ["0", "1"]
    assert predictor.skeleton.name == "coco17"
    store = Store(toy_run / "poses.h5")
    recording = store.recording(20)
    probabilities = predictor(recording)
    assert probabilities.shape == (2,)
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    score = recording.score
    assert score is not None
    same = predictor(recording.keypoint, score, recording.frame_size)
    np.testing.assert_array_equal(same, probabilities)
    # clips are moved to the persons: the size of the image hardly matters
    np.testing.assert_allclose(predictor(recording.keypoint, score), probabilities, atol=1e-4)
    (first, p), (_, q) = predictor.top(recording)
    assert p == probabilities.max()
    assert p >= q
    assert first == str(int(probabilities.argmax()))
    assert len(predictor.top(recording, k=1)) == 1


def test_other_layouts_from_python(predictor):
    keypoint = np.random.default_rng(0).uniform(0, 500, (2, 9, 26, 2)).astype(np.float32)
    halpe = predictor(keypoint, frame_size=(500, 500))
    named = predictor(keypoint, frame_size=(500, 500), skeleton="halpe26")
    coco = predictor(keypoint[:, :, :17], frame_size=(500, 500), skeleton=SKELETONS["coco17"])
    np.testing.assert_allclose(halpe, named, atol=0)
    np.testing.assert_allclose(halpe, coco, atol=1e-5)  # its first 17 joints are COCO's


def test_python_refusals(predictor, toy_run):
    with pytest.raises(InputError, match="no such checkpoint"):
        predict.load(toy_run / "nothing")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        predict.load(toy_run / "poses.pkl", device="cpu")
    with pytest.raises(InputError, match="three coordinates"):
        predictor(np.ones((1, 4, 17, 3)))
    ragged = Recording("a", 0, np.full((1, 4, 17, 2), 9.0), np.ones((1, 5, 17)))
    with pytest.raises(InputError, match=r"scores have shape \(1, 5, 17\)"):
        predictor(ragged)


def test_3d_models_refuse_pixels(predictor, monkeypatch):
    monkeypatch.setattr(predictor, "coordinates", "metres")
    with pytest.raises(InputError, match="2D poses in pixels, but the model was trained on 3D"):
        predictor(np.ones((1, 4, 17, 2)))
