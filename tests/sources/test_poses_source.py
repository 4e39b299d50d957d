import json
import pickle
import shutil
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.sources.base import Source
from maskclr_pl.sources.convert import convert
from maskclr_pl.sources.poses.labels import LabelRow, index_names, read_labels
from maskclr_pl.sources.poses.source import PosesSource
from maskclr_pl.sources.poses.video import read_poses
from maskclr_pl.sources.splitting import Span, draw_test_groups, window_length
from maskclr_pl.types import InputError
from tests.helpers.pose_tools import alphapose, openpifpaf_video, openpose, truth

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "estimator_samples"


def folder_of(root: Path, clips: dict[str, int], joints: int = 17) -> Path:
    """A folder with an AlphaPose file of that many frames for each clip."""
    for i, (name, frames) in enumerate(clips.items()):
        poses = {  # each clip is another
            frame: [pose * [1 + i / 50, 1, 1] for pose in result]
            for frame, result in truth(joints, frames).items()
        }
        file = alphapose(root / "made", poses)
        (root / "poses").mkdir(exist_ok=True)
        file.rename(root / "poses" / f"{name}.json")
    return root / "poses"


def csv_of(root: Path, *lines: str, name: str = "labels.csv") -> Path:
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / name


def source_of(root: Path, clips: dict[str, int], *lines: str, **options) -> PosesSource:
    return PosesSource(folder_of(root, clips), csv_of(root, *lines), **options)


def names_of(source: PosesSource) -> list[str]:
    return [source.name(i) for i in range(len(source))]


def frames_of(name: str) -> set[tuple[str, int]]:
    """The frames in `clip@start-end`."""
    clip, _, frames = name.partition("@")
    start, end = map(int, frames.split("-"))
    return {(clip, frame) for frame in range(start, end)}


# --- recordings -----------------------------------------------------------------------------------


def test_each_clip_is_a_recording(tmp_path):
    clips = {f"{what}_{i}": 7 + i for what in ("walk", "run") for i in range(10)}
    source = source_of(tmp_path, clips, "clip,label", *(f"{n},{n[:-2]}" for n in clips))
    assert isinstance(source, Source)
    assert names_of(source) == list(clips)
    assert source.class_names == ["run", "walk"]
    assert source.skeleton.name == "coco17"
    assert pickle.loads(pickle.dumps(source)).name(3) == "walk_3"
    for i, (name, frames) in enumerate(clips.items()):
        recording = source[i]
        keypoint, score = read_poses(tmp_path / "poses" / f"{name}.json").clip()
        assert recording.label == name.startswith("walk")
        assert (recording.keypoint.shape[1], recording.subject) == (frames, -1)
        np.testing.assert_array_equal(recording.keypoint, keypoint)
        np.testing.assert_array_equal(recording.score, score)
    assert {split: len(names) for split, names in source.splits.items()} == {"train": 14, "test": 6}
    tested = Counter(name[:-2] for name in source.splits["test"])
    assert tested == {"walk": 3, "run": 3}
    [note] = source.notes
    assert note.endswith(
        "6 of 20 rows were drawn for split test, whole clips; the others are split train"
    )
    again = PosesSource(tmp_path / "poses", tmp_path / "labels.csv")
    assert (again.splits, again.hash) == (source.splits, source.hash)


def test_splits_subjects_and_segments_are_read(tmp_path):
    source = source_of(
        tmp_path,
        {"a": 12, "b": 12},
        "END;Start;Subject;Split;Label;Clip",
        "4;;anna;train;10;a.mp4",
        "9;6;;train;9;a",
        ";8;bert;dev;10;poses/a.json",
        ";;anna;train;9;b",
        window=100,
    )
    # a window longer than the parts cuts nothing
    assert names_of(source) == ["a@0-4", "a@6-9", "a@8-12", "b@0-12"]
    assert source.splits == {"train": ["a@0-4", "a@6-9", "b@0-12"], "dev": ["a@8-12"]}
    assert source.class_names == ["9", "10"]
    recordings = [source[i] for i in range(4)]
    assert [r.label for r in recordings] == [1, 0, 1, 0]
    subjects = [r.subject for r in recordings]
    assert subjects[0] == subjects[3] >= 0
    assert subjects[1] == -1
    assert subjects[2] not in subjects[:2]
    part, _ = read_poses(tmp_path / "poses/a.json").clip(8, 12)
    np.testing.assert_array_equal(recordings[2].keypoint, part)


def test_folders_are_clips(tmp_path):
    openpose(tmp_path / "poses/one", truth(25))
    openpifpaf_video(tmp_path / "poses", truth(17)).rename(
        tmp_path / "poses/two.mp4.openpifpaf.json"
    )
    labels = csv_of(tmp_path, "clip,label,split", "one,a,train", "two.mp4,b,test", "one/,a,test")
    with pytest.raises(
        InputError, match=r"line 4: clip 'one' again, as in line 2; expected one row"
    ):
        PosesSource(tmp_path / "poses", labels)
    labels = csv_of(tmp_path, "clip,label,split", "one,a,train", "two.mp4,b,test")
    source = PosesSource(tmp_path / "poses", labels, window=50)
    assert names_of(source) == ["one@0-12", "two@0-12"]
    assert source.skeleton.name == "body25"
    assert source[0].keypoint.shape == (2, 12, 25, 2)
    with pytest.raises(
        InputError, match=r"two\S+json: 17 joints \(coco17\), but the first clip has 25"
    ):
        source[1]


def test_files_without_row_are_left_out(tmp_path):
    folder = folder_of(tmp_path, dict.fromkeys("abcdefgh", 12))
    labels = csv_of(tmp_path, "clip,label", "a,x", "b,x", "c,x")
    notes = PosesSource(folder, labels).notes
    assert notes[0].startswith("5 of 8 clips have no row in")
    assert notes[0].endswith("and are left out: d, e, f, g, h")
    labels = csv_of(tmp_path, "clip,label,start,end", "b,x,0,4", "b,y,4,8", "b,x,8,12")
    source = PosesSource(folder / "b.json", labels, window=2, stride=2)
    assert {"b@4-6", "b@5-7"} <= set(source.splits["train"])
    assert "b@7-8" in source.splits["test"]
    assert set().union(*map(frames_of, names_of(source))) == {("b", i) for i in range(12)}


# --- what trains and what tests -------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcdefghij")), min_size=1, max_size=60),
    st.integers(0, 5),
)
@example([(0, "a")], 0)
def test_draw_keeps_groups_and_classes(rows, seed):
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    test = draw_test_groups(labels, groups, seed=seed)
    sides: dict[str, set[bool]] = {}
    for group, side in zip(groups, test, strict=True):
        sides.setdefault(group, set()).add(bool(side))
    assert all(len(result) == 1 for result in sides.values())
    for label in set(labels):
        members = {group for other, group in rows if other == label}
        tested = sum(sides[group] == {True} for group in members)
        assert tested <= round(0.3 * len(members))
        assert tested < len(members)
    # if every group has one class, each class has its full share
    if all(len({label for label, g in rows if g == group}) == 1 for group in groups):
        for label in set(labels):
            members = {group for other, group in rows if other == label}
            assert sum(sides[group] == {True} for group in members) == round(0.3 * len(members))


def test_subjects_are_not_on_both_sides(tmp_path):
    clips = {f"c{i}": 6 for i in range(12)}
    lines = [f"{name},{i % 2},p{i // 2}" for i, name in enumerate(clips)]
    source = source_of(tmp_path, clips, "clip,label,subject", *lines)
    subject = {source[i].name: source[i].subject for i in range(12)}
    train, test = ({subject[name] for name in source.splits[split]} for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 2)
    assert not train & test
    assert "whole subjects" in source.notes[0]


def test_shared_subjects_are_noted(tmp_path):
    """Whole subjects cannot be drawn if all are needed for training, or one is unknown."""
    note_text = "subjects are in train and in test"
    clips = dict.fromkeys("abcdef", 6)
    only = [f"{name},x,{'anna' if name < 'd' else 'bert'}" for name in "abc"]
    source = source_of(tmp_path / "1", clips, "clip,label,subject", *only)
    assert [note.partition(":")[0] for note in source.notes if note_text in note] == [
        "1 of 1 subjects are in train and in test (anna)"
    ]
    some = [*only, "d,y,bert", "e,y,bert", "f,y,"]
    source = source_of(tmp_path / "2", clips, "clip,label,subject", *some)
    subjects = {
        split: {some["abcdef".index(name)].split(",")[2] for name in names} - {""}
        for split, names in source.splits.items()
    }
    assert sum(note_text in note for note in source.notes) == bool(
        subjects["train"] & subjects["test"]
    )
    # divided in time: each is on both sides
    clips = {"a": 60, "b": 60}
    source = source_of(tmp_path / "3", clips, "clip,label,subject", "a,x,anna", "b,y,bert")
    [note] = [note for note in source.notes if note_text in note]
    assert note.startswith("2 of 2 subjects are in train and in test (anna, bert): ")
    # splits defined by the user are not checked
    lines = ["clip,label,subject,split", "a,x,anna,train", "b,y,anna,test"]
    assert not any(note_text in note for note in source_of(tmp_path / "4", clips, *lines).notes)


def test_class_with_one_clip_trains(tmp_path):
    source = source_of(
        tmp_path, dict.fromkeys("abcdx", 6), "clip,label", *(f"{n},1" for n in "abcd"), "x,2"
    )
    assert "x" in source.splits["train"]
    assert len(source.splits["test"]) == 1
    assert source.notes[1] == "too few clips of 2 to test on"


@given(st.integers(0, 50), st.integers(1, 300), st.integers(1, 80), st.integers(1, 90))
def test_windows_cover_the_span(start, frames, length, stride):
    span = Span(3, "train", start, start + frames)
    windows = list(span.windows(length, stride))
    assert len(set(windows)) == len(windows)
    assert {(w.row, w.split) for w in windows} == {(3, "train")}
    assert {w.end - w.start for w in windows} == {min(length, frames)}
    assert (windows[0].start, windows[-1].end) == (span.start, span.end)
    steps = np.diff([w.start for w in windows])
    assert (steps <= stride).all()
    assert (steps[:-1] == stride).all()


def test_window_length_depends_on_training_spans():
    def of(*spans):
        return window_length([Span(0, split, 0, frames) for split, frames in spans])

    assert of(("train", 300), ("train", 128), ("test", 20)) == 64
    assert of(("train", 300), ("dev", 100)) == 50
    assert of(("train", 3)) == 8
    assert of(("test", 3)) == 32


@given(st.integers(1, 5000))
def test_spans_are_split_in_time(frames):
    parts = Span(0, "", 10, 10 + frames).split_in_time()
    assert [frame for part in parts for frame in range(part.start, part.end)] == list(
        range(10, 10 + frames)
    )
    assert [part.split for part in parts] == ["train", "test"][: 1 + (frames >= 2)]
    assert abs(parts[0].end - 10 - 0.7 * frames) <= 0.5 + 1e-9  # rounding of the sum
    length = window_length(parts)
    assert 8 <= length <= 64
    if frames >= 24:
        assert len(list(parts[0].windows(length, length // 2))) >= 3


@pytest.mark.parametrize("frames", [(400, 300), (90, 60), (24, 24)])
def test_two_clips_are_enough(tmp_path, frames):
    clips = {"walk": frames[0], "run": frames[1]}
    source = source_of(tmp_path, clips, "clip,label", "walk,walking", "run.mp4,running")
    sides = {
        split: set().union(*(frames_of(name) for name in names))
        for split, names in source.splits.items()
    }
    assert set(sides) == {"train", "test"}
    assert not sides["train"] & sides["test"]
    assert len(sides["train"] | sides["test"]) == sum(frames)
    assert "no class has three clips" in source.notes[0]
    assert source.notes[1] == (
        "for running, walking the beginning of each clip trains, the rest tests"
    )
    check_data_module(source, tmp_path)


def check_data_module(source: PosesSource, folder: Path) -> None:
    """Check that every class trains and tests, and that validation has clips."""
    convert(
        source,
        folder / "store.h5",
        skeleton=source.skeleton,
        splits=source.splits,
        class_names=source.class_names,
    )
    data = SkeletonDataModule(str(folder / "store.h5"), "train", "test", frames=16)
    assert set(data.train.labels) == set(range(len(source.class_names)))
    assert len(data.val) >= 1
    assert set(data.test.labels) == set(range(len(source.class_names)))
    assert next(iter(data.train_dataloader()))["present"].any(1).all()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples")
@pytest.mark.parametrize(
    "other", ["alphapose_coco17_results.json", "mmpose_inferencer_rtmo/Clapping (1).json"]
)
def test_two_real_videos(tmp_path, other):
    (tmp_path / "poses").mkdir()
    shutil.copy(SAMPLES / "alphapose_results_figureskating_video.json", tmp_path / "poses/a.json")
    shutil.copy(SAMPLES / other, tmp_path / "poses/b.json")
    labels = csv_of(tmp_path, "clip,label", "a,skating", "b,other")
    check_data_module(PosesSource(tmp_path / "poses", labels), tmp_path)


def test_whole_videos_are_drawn(tmp_path):
    """One video of each class is in the test split; windows of the others train."""
    clips = {"a": 40, "b": 40, "c": 40, "d": 40}
    source = source_of(tmp_path, clips, "clip,label", "a,x", "b,x", "c,y", "d,y")
    train, test = ({n.partition("@")[0] for n in source.splits[s]} for s in ("train", "test"))
    assert not train & test
    assert len(train) == len(test) == 2
    check_data_module(source, tmp_path)


def test_windows_without_persons_are_left_out(tmp_path):
    folder = folder_of(tmp_path, {"b": 60})
    poses = truth(17, 12) | {300 + i: p for i, p in enumerate(truth(17, 12).values())}
    alphapose(tmp_path / "made", poses).rename(folder / "a.json")
    labels = csv_of(tmp_path, "clip,label,split", "a,x,train", "b,y,test")
    source = PosesSource(folder, labels, window=10, stride=10)
    assert [n for n in names_of(source) if n[0] == "a"] == [
        "a@0-10",
        "a@10-20",
        "a@300-310",
        "a@302-312",
    ]
    assert all(source[i].score.any() for i in range(len(source)))


# --- the CSV file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "clip,label\na,x\nb,y z\n",
        "\ufeffclip,label\r\na,x\r\nb,y z\r\n",
        "Label;CLIP\nx;a\ny z;b\n",
        "clip\tlabel\tnotes, of mine\na\tx\tso, so\nb\ty z\n",
        "\n\nclip , label\n\n a, x\n,\nb, y z",
        'clip,label\n"a","x"\n"b","y z"\n',
        "fps,clip,label,split,subject,start,end\n30,a,x,s,,,\n25,b,y z,s,,,\n",
    ],
)
def test_label_files_are_read(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    rows = read_labels(tmp_path / "t.csv")
    assert [(row.clip, row.label) for row in rows] == [("a", "x"), ("b", "y z")]
    assert {(row.subject, row.start, row.end) for row in rows} == {("", None, None)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ": no rows; expected a line with clip,label and a line for each clip"),
        ("clip,label\n", ": no rows; expected a line with clip,label"),
        ("a,x\nb,y\n", ": no column 'clip' among 'a', 'x'; the first line must be clip,label"),
        ("clip|label\na|x\n", ": no column 'clip' among 'clip|label'; the first line must be"),
        ("clip,action\na,x\n", ": no column 'label' among 'clip', 'action'"),
        ("clip,label,Clip\na,x,b\n", ": two columns 'clip'"),
        ("clip,label,spilt\na,x,b\n", ": unknown column 'spilt'; did you mean 'split'?"),
        ("clip,label\na\n", ", line 2: no label"),
        ("clip,label\na,x\n,y\n", ", line 3: no clip"),
        ("clip,label,split\na,x,\n", ", line 2: no split"),
        ("clip,label\na,x,y\n", ", line 2: 3 cells, but 2 columns; put a name with a comma in"),
        ("clip,label,start\na,x,1.5\n", ", line 2: start is '1.5', expected a frame number"),
        ("clip,label,start\na,x,²\n", ", line 2: start is '²', expected a frame number"),
        ("clip,label,end\na,x,-3\n", ", line 2: end is '-3', expected a frame number"),
        ("clip,label,end\na,x,0\n", ", line 2: end 0 is not after start 0; `end` is the number"),
        ("clip,label,start,end\na,x,9,9\n", ", line 2: end 9 is not after start 9"),
        ("clip,label\na," + "x" * 200_000, ": not CSV (field larger than field limit"),
    ],
)
def test_malformed_label_files_are_refused(tmp_path, text, expected):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_labels(path)
    assert str(error.value).startswith(str(path))
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "utf16.csv").write_text("clip,label\na,x\n", encoding="utf-16")
    (tmp_path / "excel.csv").write_bytes("clip,label\na,Tür\n".encode("cp1252"))
    for name, expected in {
        "utf16.csv": "not UTF-8 text; save it as CSV UTF-8",
        "excel.csv": "not UTF-8 text; save it as CSV UTF-8",
        "nothing.csv": "cannot be read (No such file or directory)",
        "": "cannot be read (Is a directory)",
    }.items():
        with pytest.raises(InputError) as error:
            read_labels(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: {expected}"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('clipabe,;\t\n\r"\0 9²\ud800'.replace("\ud800", "é")), max_size=60))
def test_random_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("csv", numbered=True) / "t.csv"
    path.write_text("clip,label,start,end\n" + text, encoding="utf-8", newline="")
    try:
        rows = read_labels(path)
    except InputError:
        return
    assert rows
    assert all(isinstance(row, LabelRow) and row.clip and row.label for row in rows)


@given(st.lists(st.integers(0, 10**6).map(str) | st.sampled_from(["01", "1"]), min_size=1))
def test_numbers_are_ordered_by_value(names):
    ordered, place = index_names(names)
    assert [ordered[i] for i in place] == names
    assert [int(name) for name in ordered] == sorted(int(name) for name in set(names))
    assert index_names(["9", "10", "x"])[0] == ["10", "9", "x"]


# --- folders and tables that do not fit together --------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "options", "expected"),
    [
        (["c,x"], {}, "line 2: no file or folder 'c' in {poses}, which contains a, b"),
        (["a,x", "a.mp4,y"], {}, "line 3: clip 'a' again, as in line 2; expected one row for each"),
        (["a,x"], {"window": 0}, "source.window=0: expected a whole number from 1"),
        (["a,x"], {"stride": -1}, "source.stride=-1: expected a whole number from 1"),
        (["a,x"], {"max_persons": 0}, "source.max_persons=0: expected a whole number from 1"),
        (["a,x"], {"skeleton": "coco"}, "no skeleton named 'coco' (did you mean coco17?)"),
        (["a,x"], {"skeleton": "ntu25", "window": 4}, "a.json: 17 joints, but skeleton ntu25 has"),
        (["a,x,40,"], {}, "line 2: no such frames; those of {poses}/a.json are 0 to 11"),
        (["a,x,0,8", "a,x,4,12"], {"window": 4}, "lines 2 and 3 share frames of clip"),
        (["a,x", "b,y"], {}, "2 recordings to train and 2 to test on are too few"),
    ],
)
def test_sources_that_are_refused(tmp_path, lines, options, expected):
    folder = folder_of(tmp_path, {"a": 12, "b": 4})
    labels = csv_of(tmp_path, "clip,label,start,end", *lines)
    with pytest.raises(InputError) as error:
        PosesSource(folder, labels, **options)
    assert expected.format(poses=folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_clip_may_be_a_broken_one(tmp_path):
    """It is left out with on_error=skip like any other; the layout is that of the next."""
    folder = folder_of(tmp_path, dict.fromkeys("abcd", 12))
    (folder / "a.json").write_text("[[")
    source = PosesSource(folder, csv_of(tmp_path, "clip,label", "a,x", "b,x", "c,x", "d,x"))
    with pytest.raises(InputError, match=r"a\.json: not JSON"):
        source[0]
    assert source[1].name == "b"
    assert len(source.skeleton) == source[1].keypoint.shape[2]


def test_two_files_of_one_clip_are_refused(tmp_path):
    folder = folder_of(tmp_path, {"a": 12, "a.mp4": 12})
    with pytest.raises(InputError, match=r"poses: a\.json and a\.mp4\.json are both clip 'a'"):
        PosesSource(folder, csv_of(tmp_path, "clip,label", "a,x"))


def test_unusable_clip_is_named(tmp_path):
    clips = dict.fromkeys("abcd", 12)
    source = source_of(tmp_path, clips, "clip,label,start", "a,x,", "b,x,", "c,x,90", "d,x,5")
    (tmp_path / "poses/b.json").write_text("[[")
    (tmp_path / "poses/d.json").write_text(json.dumps([]))
    for index, expected in {
        1: "b.json: not JSON, or cut short",
        2: "c.json: clip 'c@90-' shows nobody; the frames of the file are 0 to 11",
        3: "d.json: no person in any of its 1 frames",
    }.items():
        with pytest.raises(InputError) as error:
            source[index]
        assert str(error.value).startswith(f"{tmp_path}/poses/{expected}")
    assert source[0].name == "a"


def test_requested_division_replaces_column_split(tmp_path):
    clips = {f"{name}_{i}": 8 for name in ("jump", "wave") for i in range(4)}
    rows = [f"{name},{name[:-2]},train,p{name[-1]}" for name in clips]

    def source(**division):
        return source_of(tmp_path, clips, "clip,label,split,subject", *rows, division=division)

    assert list(source().splits) == ["train"]
    drawn = source(by="subject", share=0.5)
    assert {name[-1] for name in drawn.splits["test"]}.isdisjoint(
        name[-1] for name in drawn.splits["train"]
    )
    assert {split: len(names) for split, names in drawn.splits.items()} == {"train": 4, "test": 4}
    assert any("is ignored; 4 of 8 rows were drawn" in note for note in drawn.notes)
    assert {split: len(names) for split, names in source(by="none").splits.items()} == {"all": 8}
    with pytest.raises(InputError, match="test_share= and split_seed= have no effect"):
        source(share=0.5)
