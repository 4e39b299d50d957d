import json
import math
import pickle
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from maskclr_pl.data import write_store
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources.convert import convert
from maskclr_pl.sources.stgcn import StgcnJsonSource
from maskclr_pl.sources.units import CoordinateFormat
from maskclr_pl.types import InputError
from tests.reference.kinetics import openpose_clip

SAMPLES = Path(__file__).parents[3] / "shared/samples/kinetics_skeleton_sample"


def person(seed=0, missing=()):
    rng = np.random.default_rng(seed)
    pose = rng.integers(1, 1000, 36) / 1000  # three decimals, as published
    score = rng.integers(1, 900, 18) / 1000
    for joint in missing:
        score[joint] = 0
        pose[2 * joint : 2 * joint + 2] = 0
    return {"pose": pose.tolist(), "score": score.tolist()}


def clip(persons=(1, 2, 0, 1), label="yoga", index=399, **values):
    """Build a clip with this number of persons in each frame."""
    data = [
        {"frame_index": t + 1, "skeleton": [person(10 * t + k, (k, 17)) for k in range(count)]}
        for t, count in enumerate(persons)
    ]
    return {"data": data, "label": label, "label_index": index, **values}


def entry(label="yoga", index=399, has_skeleton=True):
    return {"has_skeleton": has_skeleton, "label": label, "label_index": index}


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def published(folder):
    """Write both splits; `gone` has a file, but no skeleton in it."""
    save(folder / "kinetics_train" / "a.json", clip((1, 3), "abseiling", 0))
    save(folder / "kinetics_train" / "gone.json", clip((0, 0), "abseiling", 0))
    save(folder / "kinetics_val" / "b.json", clip())
    train = {"a": entry("abseiling", 0), "gone": entry("abseiling", 0, has_skeleton=False)}
    save(folder / "kinetics_train_label.json", train)
    save(folder / "kinetics_val_label.json", {"b": entry(), "c": entry("yoga", 399, False)})
    return folder


def names(source):
    return [source.name(i) for i in range(len(source))]


def assert_read(result, content, size=(256, 340), most=5):
    """Half precision has 11 bits: a relative error of 2^-11, twice for coordinates."""
    assert result.frame_size == size
    result = CoordinateFormat("fractions").to_stored(result)  # as on the way into a store
    keypoint, score = openpose_clip(content, *size, most)
    assert result.keypoint.dtype == result.score.dtype == np.float16
    assert result.keypoint.shape == keypoint.shape
    np.testing.assert_allclose(result.keypoint, keypoint, rtol=2**-10 + 2**-22, atol=0)
    np.testing.assert_allclose(result.score, score, rtol=2**-11, atol=0)
    assert result.frame_size == size


# --- forms ----------------------------------------------------------------------------------------


def test_published_folder_is_read(tmp_path):
    source = StgcnJsonSource(published(tmp_path))
    assert names(source) == ["a", "b"]
    assert source.splits == {"train": ["a"], "val": ["b"]}
    assert list(source.notes) == ["1 clips have no skeleton: left out"]
    assert source.class_names is not None
    assert len(source.class_names) == 400
    assert source.class_names[0] == "abseiling"
    assert source.class_names[399] == "yoga"
    assert source.class_names[7] == "7"  # a class that no label file uses
    assert [source[i].label for i in range(2)] == [0, 399]
    assert_read(source[0], clip((1, 3)))
    assert_read(source[1], clip())


def test_source_is_picklable(tmp_path):
    source = pickle.loads(pickle.dumps(StgcnJsonSource(published(tmp_path))))
    assert source.parallel
    assert np.array_equal(source[1].keypoint, StgcnJsonSource(tmp_path)[1].keypoint)


@pytest.mark.parametrize("form", ["beside", "within", "none"])
def test_folder_of_clips_is_read(tmp_path, form):
    folder = tmp_path / "kinetics_val"
    save(folder / "b.json", clip())
    save(folder / "unnamed.json", clip(label="zumba", index=3))
    where = {"beside": tmp_path, "within": folder}
    if form in where:
        save(where[form] / "kinetics_val_label.json", {"b": entry()})
    source = StgcnJsonSource(folder)
    assert names(source) == ["b", "unnamed"]
    assert source.splits == ({} if form == "none" else {"val": ["b"]})
    assert (source.class_names is None) == (form == "none")
    assert [source[i].label for i in range(2)] == [399, 3]


def test_single_clip_is_read(tmp_path):
    path = save(tmp_path / "--33Lscn6sk.json", clip())
    source = StgcnJsonSource(path, frame_size=[100, 200], persons=1)
    assert (names(source), source.splits, source.class_names) == (["--33Lscn6sk"], {}, None)
    assert_read(source[0], clip(), (100, 200), 1)


def test_clips_without_a_file_are_noted(tmp_path):
    save(tmp_path / "b.json", clip())
    labels = {name: entry() for name in ("b", "x", "y")}
    save(tmp_path / "kinetics_val_label.json", {**labels, "z": entry(has_skeleton=False)})
    (note,) = StgcnJsonSource(tmp_path).notes
    assert note.startswith("2 clips of the label files have no file")
    assert note.endswith("the first is x")


def test_hash_depends_on_files(tmp_path):
    first = StgcnJsonSource(published(tmp_path)).hash
    assert StgcnJsonSource(tmp_path).hash == first
    save(tmp_path / "kinetics_val_label.json", {"b": entry()})
    assert StgcnJsonSource(tmp_path).hash != first


def test_published_folder_becomes_a_store(tmp_path):
    source = StgcnJsonSource(published(tmp_path / "in"))
    store = write_store(
        tmp_path / "s.h5",
        (source[i] for i in range(len(source))),
        skeleton=SKELETONS["openpose18"],
        splits=source.splits,
        class_names=source.class_names,
    )
    assert store.coordinates == "pixels"
    assert store.label.tolist() == [0, 399]
    assert store.frame_size.tolist() == [[256, 340]] * 2


# --- numbers --------------------------------------------------------------------------------------

counts = st.lists(st.integers(0, 8), min_size=1, max_size=9).filter(any)


@settings(max_examples=60)
@given(counts, st.integers(1, 6), st.randoms(use_true_random=False))
@example([0, 0, 8], 5, None)
@example([1, 0, 0], 5, None)
def test_persons_match_published_loader(tmp_path_factory, persons, most, random):
    """Surplus persons are dropped and the others sorted; frames may be in any order."""
    content = clip(persons)
    if random is not None:
        random.shuffle(content["data"])
    path = tmp_path_factory.getbasetemp() / "readout.json"
    source = StgcnJsonSource(save(path, content), persons=most)
    assert_read(source[0], content, most=most)


def test_persons_with_equal_scores_keep_their_order(tmp_path):
    content = clip((3,))
    for item in content["data"][0]["skeleton"]:
        item["score"] = [0.5] * 18
    assert_read(StgcnJsonSource(save(tmp_path / "a.json", content))[0], content)


def test_gaps_and_empty_frames_are_kept(tmp_path):
    content = clip((0, 1, 0, 0, 1, 0))
    del content["data"][2]
    result = StgcnJsonSource(save(tmp_path / "a.json", content))[0]
    assert result.keypoint.any((0, 2, 3)).tolist() == [False, True, False, False, True, False]
    assert_read(result, content)


def test_joint_without_score_has_no_position(tmp_path):
    content = clip((1,))
    content["data"][0]["skeleton"][0]["score"][4] = 0.0
    assert content["data"][0]["skeleton"][0]["pose"][8] > 0
    result = StgcnJsonSource(save(tmp_path / "a.json", content))[0]
    assert not result.keypoint[0, 0, 4].any()


def test_clip_without_scores_gets_score_1(tmp_path):
    content = clip((2, 1))
    for frame in content["data"]:
        for item in frame["skeleton"]:
            item["score"] = [0.0] * 18
    result = StgcnJsonSource(save(tmp_path / "a.json", content))[0]
    joints = {(0, 0), (0, 17), (1, 1), (1, 17)}  # those without a position
    for k, t in ((0, 0), (1, 0), (0, 1)):
        assert result.score[k, t].tolist() == [float((k, v) not in joints) for v in range(18)]
    assert not result.score[1, 1].any()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no ../shared/samples")
def test_published_samples_are_read():
    """One clip of Kinetics, and two that others made of NTU RGB+D: no scores, labels from 1."""
    source = StgcnJsonSource(SAMPLES)
    ntu = ["S004C002P003R001A055_rgb", "S004C003P003R001A007_rgb"]
    assert names(source) == ["--33Lscn6sk", *ntu]
    assert source.splits == {"train": ntu}
    assert source.class_names is not None
    assert source.class_names[:2] == ["0", "drink water"]
    assert len(source.class_names) == 130  # the class of the Kinetics clip comes on top
    assert any("label_index counts from 1" in note for note in source.notes)
    recordings = [source[i] for i in range(3)]
    assert [item.label for item in recordings] == [129, 55, 7]
    assert [item.keypoint.shape[:2] for item in recordings] == [(3, 189), (4, 76), (2, 77)]
    content = json.loads((SAMPLES / "--33Lscn6sk.json").read_text())
    assert_read(recordings[0], content)
    for item in recordings[1:]:
        assert set(np.unique(item.score)) == {0, 1}
        assert ((item.score > 0) == item.keypoint.any(3)).all()


# --- errors ---------------------------------------------------------------------------------------


def with_person(**changes):
    content = clip((1, 1))
    content["data"][1]["skeleton"][0].update(changes)
    return content


def with_frame(**changes):
    content = clip((1, 1))
    content["data"][1].update(changes)
    return content


WRONG = {
    "empty": ("", "not JSON, or cut short"),
    "half": (json.dumps(clip())[:-9], "not JSON, or cut short"),
    "deep": ("[" * 100000, "not JSON, or cut short"),
    "list": ([1], "expected a clip, an object with a list `data`"),
    "no data": ({"label": "yoga"}, "expected a clip"),
    "data of a text": ({"data": "x"}, "expected a clip"),
    "no frames": (clip(()), "it has no frames"),
    "no label": (clip(index=None), "its `label_index` is None, expected a class number"),
    "negative label": (clip(index=-1), "its `label_index` is -1"),
    "huge label": (clip(index=10**30), "its `label_index` is 1000"),
    "true": (clip(index=True), "its `label_index` is True"),
    "text": (clip(index="9" * 10**5), r"its `label_index` is '9+, expected a class"),
    "frame of a text": ({**clip(), "data": ["x"]}, "frame_index None, expected each frame once"),
    "frame 0": (with_frame(frame_index=0), "frame_index 0, expected each frame once, counted fr"),
    "frame twice": (with_frame(frame_index=1), "frame_index 1, expected each frame once"),
    "huge frame": (with_frame(frame_index=10**12), "frame_index 1000000000000"),
    "half a frame": (with_frame(frame_index=1.5), "frame_index 1.5"),
    "no list": (with_frame(skeleton={}), "frame 2 has no list `skeleton`"),
    "a person of a text": (with_frame(skeleton=["x"]), "frame 2: no list under `pose`"),
    "no score": (with_person(score=None), "frame 2: no list under `score`, expected 18 numbers"),
    "25 joints": (
        with_person(pose=[0.5] * 50),
        r"frame 2: 50 numbers under `pose`, expected 36 .*18 jo",
    ),
    "no number": (with_person(pose=["x"] * 36), "a `pose` is not a list of numbers"),
    "object": (with_person(score=[{}] * 18), "a `score` is not a list of numbers"),
    "nested": (with_person(pose=[[1]] * 36), "a `pose` is not a list of numbers"),
    "huge": (with_person(pose=[10**400] * 36), "a `pose` is not a list of numbers"),
    "nan": (with_person(pose=[math.nan] * 36), "NaN or infinite"),
    "nan score": (with_person(score=[math.nan] * 18), "NaN or infinite"),
    "infinite": (with_person(pose=[1e300] * 36), "NaN or infinite"),
    "no fractions": (with_person(pose=[*range(36)]), "are not the fractions"),
}


def message_of(path, folder):
    """Return the error message for a file; other exceptions are raised."""
    try:
        source = StgcnJsonSource(path)
        recordings = (
            CoordinateFormat(source.units).to_stored(source[i]) for i in range(len(source))
        )
        write_store(folder / "s.h5", recordings, skeleton=SKELETONS["openpose18"], splits={})
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mistake", WRONG)
def test_malformed_clip_is_refused_in_one_line(tmp_path, mistake):
    content, message = WRONG[mistake]
    result = message_of(save(tmp_path / "a.json", content), tmp_path)
    with pytest.raises(InputError, match=message):
        raise InputError(result)
    assert "\n" not in result
    assert len(result) < 300 + len(str(tmp_path))


LABELS = {
    "list": ([], "expected an object with an entry for each clip"),
    "text": ({"b": "yoga"}, "entry 'b' is not an object with `label`, `label_index`"),
    "no name": ({"b": {"label_index": 3}}, "entry 'b' is not an object"),
    "has_skeleton": ({"b": entry(has_skeleton="no")}, "entry 'b' is not an object"),
    "no index": ({"b": {"label": "yoga"}}, "`label_index` of 'b' is None"),
    "huge index": ({"b": entry(index=10**9)}, "`label_index` of 'b' is 1000000000, expected"),
    "two names": ({"b": entry(), "c": entry("zumba")}, "'c' has label_index 399 and label 'zumb"),
    "other index": (
        {"b": entry(index=3)},
        "its label is 399 'yoga', but 3 'yoga' in the label file",
    ),
    "other name": (
        {"b": entry("zumba")},
        "its label is 399 'yoga', but 399 'zumba' in the label file",
    ),
    "all left out": ({"b": entry(has_skeleton=False)}, "no clips .* or none with a skeleton"),
    "half": ('{"b"', "not JSON, or cut short"),
}


@pytest.mark.parametrize("mistake", LABELS)
def test_malformed_label_file_is_refused_in_one_line(tmp_path, mistake):
    content, message = LABELS[mistake]
    save(tmp_path / "in" / "b.json", clip())
    save(tmp_path / "in" / "kinetics_val_label.json", content)
    result = message_of(tmp_path / "in", tmp_path)
    with pytest.raises(InputError, match=message):
        raise InputError(result)
    assert "\n" not in result


def test_folders_without_clips_are_refused(tmp_path):
    with pytest.raises(InputError, match="gone: no such file or folder"):
        StgcnJsonSource(tmp_path / "gone")
    with pytest.raises(InputError, match=r"no \.json files"):
        StgcnJsonSource(tmp_path)
    save(tmp_path / "kinetics_val_label.json", {"b": entry()})
    with pytest.raises(InputError, match="no clips"):
        StgcnJsonSource(tmp_path)
    save(tmp_path / "x" / "kinetics_val_label.json", {"b": entry()})
    with pytest.raises(InputError, match="a second label file of split 'val'"):
        StgcnJsonSource(tmp_path)
    (tmp_path / "x" / "kinetics_val_label.json").unlink()
    (tmp_path / "b.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="a symbolic link that leads nowhere"):
        StgcnJsonSource(tmp_path)
    (tmp_path / "b.json").unlink()
    (tmp_path / "b.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="not UTF-8"):
        StgcnJsonSource(tmp_path)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"persons": 0}, "source.persons=0: expected a whole number from 1"),
        ({"frame_size": [256]}, r"frame_size=\[256\]: expected \[HEIGHT,WIDTH\]"),
        ({"frame_size": (256, 0)}, r"frame_size=\(256, 0\)"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        StgcnJsonSource(save(tmp_path / "a.json", clip()), **options)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no ../shared/samples")
def test_sample_folder_becomes_a_store(tmp_path):
    """Its label files are of another set than one of its clips, whose class comes on top."""
    source = StgcnJsonSource(SAMPLES)
    splits = source.splits
    store = convert(
        source,
        tmp_path / "s.h5",
        skeleton=SKELETONS["openpose18"],
        splits=splits,
        class_names=source.class_names,
    )
    assert {store.name(i): int(store.label[i]) for i in range(len(store))}["--33Lscn6sk"] == 129
    assert len(store) == len(list(SAMPLES.glob("*.json"))) - 2  # the label files
    assert len(store.class_names) == 130
