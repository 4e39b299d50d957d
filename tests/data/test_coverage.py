"""What a set lacks is said: classes, persons, splits; and clips without splits are divided."""

import pickle
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.data.coverage import empty_clip_notes, store_notes, training_notes
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources.splitting import Splitter
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process, refused

CASES = Path(__file__).parents[3] / "shared/cases/make_cases.py"
ACTIONS = ("wave", "squat", "jump", "walk")


def clip(name, label=0, seed=0, subject=-1, seen=True):
    rng = np.random.default_rng((seed, len(name)))
    keypoint = rng.uniform(50, 400, (1, 12, 17, 2)).astype(np.float32)
    score = np.full((1, 12, 17), float(seen), np.float16)
    return Recording(name, label, keypoint, score, (480, 640), subject=subject)


def pickled(path, clips, splits=None):
    """A pyskl pickle; without splits the older list of annotations."""
    made = [
        {
            "frame_dir": one.name,
            "label": one.label,
            "img_shape": one.frame_size,
            "keypoint": one.keypoint,
            "keypoint_score": one.score,
            **({} if one.subject < 0 else {"subject": one.subject}),
        }
        for one in clips
    ]
    content = made if splits is None else {"split": splits, "annotations": made}
    path.write_bytes(pickle.dumps(content))
    return path


def grid(classes=4, subjects=5, first=0):
    """A clip of each class by each subject."""
    return [
        clip(f"{ACTIONS[label]}_p{subject}", label + first, 10 * label + subject, subject)
        for subject in range(subjects)
        for label in range(classes)
    ]


@pytest.fixture
def prepare(tmp_path, capsys):
    """Prepare a pickle of the folder; its lines, and the store."""

    def run(*words, name="poses.pkl"):
        words = [f"input={name}", "output=s.h5", "skeleton=coco17", "overwrite=true", *words]
        return in_process("prepare", *words, cwd=tmp_path, capsys=capsys)

    return run


# --- the cases as users bring them ----------------------------------------------------------------

needs_cases = pytest.mark.skipif(not CASES.is_file(), reason="no ../shared/cases")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    run = "import sys; sys.path.insert(0, sys.argv[1]); import make_cases, pathlib; "
    run += "make_cases.pickles(pathlib.Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", run, CASES.parent, folder], check=True)
    return folder


@needs_cases
def test_labels_that_count_from_one_are_shifted_when_asked(cases, prepare, tmp_path):
    """Kind: labels 1 to 4 made 5 classes, the first of them empty, in silence."""
    shown = prepare(name=cases / "counted_from_one.pkl")
    assert (
        "note: the lowest label is 1, so class 0 has no clip; if labels start at 1, pass " in shown
    )
    assert "pass first_label=1" in shown
    assert len(Store(tmp_path / "s.h5").class_names) == 5
    shown = prepare("first_label=1", name=cases / "counted_from_one.pkl")
    assert "note" not in shown
    store = Store(tmp_path / "s.h5")
    assert store.class_names == ["0", "1", "2", "3"]
    assert [ACTIONS[label] for label in store.label] == [
        store.name(i).split("_")[0] for i in range(24)
    ]


@needs_cases
def test_a_clip_without_a_person_is_named_and_kept(cases, prepare, tmp_path, capsys):
    """Kind: a clip without a person went into training in silence."""
    shown = prepare(name=cases / "nobody.pkl")
    assert "note: no person in 1 of 24 clips (1 in train): wave_3; kept because" in shown
    assert len(Store(tmp_path / "s.h5").rows("train")) == 16
    in_process("prepare", "check=true", "input=s.h5", cwd=tmp_path, capsys=capsys)
    assert "wave_3: no person" in (tmp_path / "s_check/report.txt").read_text()


@needs_cases
def test_clips_without_splits_are_divided(cases, prepare, tmp_path):
    """Kind: a list of annotations had one split, which nothing can be trained on."""
    shown = prepare(name=cases / "no_split.pkl")
    assert "8 of 24 clips are drawn for split test, about 30 % of each class" in shown
    assert "data.train_split=train data.test_split=test" in shown
    store = Store(tmp_path / "s.h5")
    assert Counter(store.label[store.rows("test")].tolist()) == dict.fromkeys(range(4), 2)
    both = np.concatenate([store.rows("train"), store.rows("test")])
    assert sorted(both) == list(range(24))
    first = store.rows("test").tolist()
    prepare(name=cases / "no_split.pkl")
    assert Store(tmp_path / "s.h5").rows("test").tolist() == first  # reproducible


@needs_cases
def test_right_files_raise_no_notes(cases, prepare):
    assert "note" not in prepare(name=cases / "right.pkl")


# --- labels ---------------------------------------------------------------------------------------


def test_class_names_belong_to_the_first_label_on(prepare, tmp_path, capsys):
    """Kind: names for labels that count from 1 led to an error without a way out."""
    pickled(tmp_path / "poses.pkl", grid(first=1))
    (tmp_path / "names.txt").write_text("\n".join(ACTIONS))
    words = ["input=poses.pkl", "output=s.h5", "skeleton=coco17", "class_names=names.txt"]
    line = refused("prepare", *words, cwd=tmp_path, capsys=capsys)
    assert "its label 4 is out of range of 4 class names; if labels start at 1, pass " in line
    prepare("class_names=names.txt", "first_label=1")
    store = Store(tmp_path / "s.h5")
    assert {
        (store.name(i).split("_")[0], store.class_names[store.label[i]]) for i in range(20)
    } == {(action, action) for action in ACTIONS}
    line = refused(
        "prepare", *words, "overwrite=true", "first_label=2", cwd=tmp_path, capsys=capsys
    )
    assert "its label is 1, but first_label=2" in line


def store_of(tmp_path, clips, splits, names=None):
    coco = SKELETONS["coco17"]
    return write_store(tmp_path / "s.h5", clips, skeleton=coco, splits=splits, class_names=names)


def test_gaps_and_classes_that_are_only_tested_are_said(tmp_path):
    """Kind: classes without clips, without training clips, in silence."""
    clips = [clip(name, label, label) for name, label in (("a", 0), ("b", 3), ("c", 0), ("d", 5))]
    store = store_of(tmp_path, clips, {"train": ["a", "b"], "test": ["c", "d"]})
    assert store_notes(store) == [
        "no clip of 3 of 6 classes: 1, 2, 4; check class_names and the labels",
        "1 class in test but not in train: 5; check the splits",
    ]
    only, unused = training_notes(store.label[:2], store.label[2:], store)
    assert only.startswith("1 test clip of 1 class without training clips (5) will count as wrong")
    assert unused.startswith("3 of 6 classes have no training or test clips (1, 2, 4); the model")
    assert "first_label" not in unused
    assert training_notes(store.label[:2], store.label[:2], store)[0].startswith("4 of 6 classes")
    [none] = training_notes(store.label[:1], store.label[3:], store)
    assert "no class of the test clips occurs in training" in none


def test_a_class_with_a_name_of_its_own_is_no_sign_of_another_count(tmp_path):
    store = store_of(tmp_path, [clip("a", 1), clip("b", 2, 1)], {}, ["drink", "eat", "read"])
    assert store_notes(store) == [
        "no clip of 1 of 3 classes: drink; check class_names and the labels"
    ]


def test_empty_and_overlapping_splits_are_said(tmp_path):
    """Kind: a training split that holds test clips was said by training only."""
    clips = [clip("a", 0), clip("b", 1, 1), clip("c", 0, 2)]
    splits = {"x_train": ["a", "b"], "x_test": ["b", "c"], "rest": []}
    notes = store_notes(store_of(tmp_path, clips, splits))
    assert notes == ["split rest has no clips", "1 clip in both x_train and x_test: b"]


# --- persons --------------------------------------------------------------------------------------


def test_clips_without_a_person_are_counted_in_every_form(tmp_path, prepare):
    """Kind: no persons at all, zeros, and joints without a score are all nobody."""
    clips = [*grid(2, 2), clip("unscored", 0, seen=False), clip("zeros", 1), clip("none", 1)]
    clips[-2].keypoint[:] = 0
    clips[-2].score[:] = 0
    clips[-1] = Recording("none", 1, clips[-1].keypoint[:0], clips[-1].score[:0], (480, 640))
    names = [one.name for one in clips]
    pickled(tmp_path / "poses.pkl", clips, {"train": names[:5], "test": names[5:]})
    shown = prepare()
    assert "no person in 3 of 7 clips (2 in test, 1 in train): unscored, zeros, none" in shown
    store = Store(tmp_path / "s.h5")
    assert store.recording(6).keypoint.shape == (1, 12, 17, 2)
    rows = {"training": store.rows("train"), "test": store.rows("test")}
    [note] = empty_clip_notes(store, rows)
    assert note.startswith("no person in 1 of 5 training clips and 2 of 2 test clips: unscored")
    assert empty_clip_notes(store, {"training": np.arange(4)}) == []


# --- dividing -------------------------------------------------------------------------------------


def table(clips, digest=None):
    return {
        "name": [one.name for one in clips],
        "label": [one.label for one in clips],
        "subject": [one.subject for one in clips],
        "digest": digest or [0] * len(clips),
    }


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(2, 9),
    st.sampled_from([None, "subject", "class", r"_p(\d)"]),
    st.floats(0.15, 0.85),
    st.integers(0, 99),
)
def test_a_division_keeps_groups_whole_and_classes_trained(classes, subjects, by, share, seed):
    """Kind: there was no way to divide a list of annotations."""
    clips = grid(classes % 4 + 1, subjects)
    division = Splitter(by, share, seed)
    expected = min(round(share * subjects), subjects - 1)
    if not expected:
        if by is None:
            assert list(division.divide(table(clips))[0]) == ["all"]
        else:
            with pytest.raises(InputError, match="leaves no clip to test on"):
                division.divide(table(clips))
        return
    splits, notes = division.divide(table(clips))
    assert division.divide(table(clips)) == (splits, notes)
    assert sorted(splits["train"] + splits["test"]) == sorted(one.name for one in clips)
    label = {one.name: one.label for one in clips}
    counts = Counter(label[name] for name in splits["test"])
    assert set(counts.values()) == {expected}
    assert set(counts) == set(label.values())
    sides = [{re.search(r"p\d", name)[0] for name in splits[part]} for part in ("train", "test")]
    if by == "class":
        shared = len(sides[0] & sides[1])
        assert any(
            f"{shared} of {subjects} subjects are in train and in test" in n for n in notes
        ) == (shared > 0)
    else:
        assert not sides[0] & sides[1]


def test_copies_stay_on_one_side():
    """Kind: the same recording under two names, once trained on and once tested."""
    clips = [clip(f"c{i}", i % 2, i) for i in range(24)]
    digest = [1 + i // 4 * 2 + i % 2 for i in range(24)]  # each recording of a class twice
    splits, _ = Splitter(None, 0.4).divide(table(clips, digest))
    hashes = [{digest[int(name[1:])] for name in splits[part]} for part in ("train", "test")]
    assert hashes[0]
    assert hashes[1]
    assert not hashes[0] & hashes[1]


def test_ways_to_divide_can_be_chosen(prepare, tmp_path, capsys):
    pickled(tmp_path / "poses.pkl", grid(), {"train": ["wave_p0"], "test": ["jump_p1"]})

    def split(*words):
        shown = prepare(*words)
        store = Store(tmp_path / "s.h5")
        rows = {name: [store.name(int(i)) for i in rows] for name, rows in store.splits.items()}
        return shown, rows

    assert split()[1] == {"train": ["wave_p0"], "test": ["jump_p1"]}
    shown, rows = split("split=subject", "test_share=0.4")
    assert "split=subject replaces the splits of the files" in shown
    assert len({name[-1] for name in rows["test"]}) == 2
    shown, other = split("split=subject", "test_share=0.4", "split_seed=1")
    assert {*rows["test"]} != {*other["test"]}
    shown, rows = split("split=none")
    assert {name: len(clips) for name, clips in rows.items()} == {"all": 20}
    assert "next" not in shown  # nothing that could be pasted
    assert "pass data.train_split= and data.test_split=" in shown
    shown, rows = split('split="_p([01])$"')
    assert "whole groups by _p([01])$" in shown
    assert all(
        {name[:-1] + "0", name[:-1] + "1"} <= {*rows["test"]}
        for name in rows["test"]
        if name[-1] in "01"
    )


@pytest.mark.parametrize(
    ("division", "message"),
    [
        ({"by": "subject"}, "20 of 20 clips have no subject; pass split=class"),
        ({"by": "xyz"}, "expected subject, class, none, or a regular expression that matches"),
        ({"by": "("}, "expected subject, class, none or a regular expression"),
        ({"by": 3}, "expected subject, class, none or a regular expression"),
        ({"share": 1.5}, "test_share=1.5: expected"),
        ({"share": float("nan")}, "test_share=nan: expected"),
        ({"share": 0.0}, "test_share=0.0: expected"),
        ({"seed": -1}, "split_seed=-1: expected"),
        ({"by": "class", "share": 0.01}, "leaves no clip to test on"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(division, message):
    columns = table(grid()) | {"subject": [-1] * 20}
    with pytest.raises(InputError, match=message) as caught:
        Splitter(**division).divide(columns)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_divided_keeps_what_was_read(tmp_path, capsys):
    clips = [clip(one.name, one.label, i) for i, one in enumerate(grid())]
    pickled(tmp_path / "poses.pkl", clips)
    words = ["input=poses.pkl", "output=s.h5", "skeleton=coco17"]
    line = refused("prepare", *words, "split=subject", cwd=tmp_path, capsys=capsys)
    assert line.endswith(
        "have no subject; pass split=class, or a regular expression that matches it in their names"
    )
    shown = in_process("prepare", *words, "split=class", cwd=tmp_path, capsys=capsys)
    assert "continues  20 of 20 clips were read before" in shown


def test_a_share_that_nothing_is_divided_by_is_refused(tmp_path, capsys):
    names = [one.name for one in grid()]
    pickled(tmp_path / "poses.pkl", grid(), {"train": names[:9], "test": names[9:]})
    words = ["input=poses.pkl", "output=s.h5", "skeleton=coco17", "test_share=0.5"]
    line = refused("prepare", *words, cwd=tmp_path, capsys=capsys)
    assert "pass split=class or split=subject" in line


# --- train ----------------------------------------------------------------------------------------


def test_train_says_what_is_lacking_and_the_next_line_runs(tmp_path, prepare, capsys):
    """Kind: train counted empty classes, unseen persons and layouts without sides in silence."""
    joints = "\n".join(f"- j{i}" for i in range(17))
    edges = "\n".join(f"- [{i}, {i + 1}]" for i in range(16))
    (tmp_path / "dots.yaml").write_text(f"joints:\n{joints}\nedges:\n{edges}\n")
    clips = [*grid(3, 6, first=1), clip("empty", 1, seen=False)]
    pickled(tmp_path / "poses.pkl", clips)
    shown = prepare("skeleton=dots.yaml", "split=class")
    sides = "note: dots has no pairs of left and right joints"
    assert sides in shown
    command = re.search(r"next +python -m maskclr_pl.train (.*)", shown).group(1).split()
    quick = ["debug=fast", "backbone=dstformer_tiny", "head=action_small", "clip.frames=8"]
    quick += ["data.num_workers=0", "data.batch_size=4", "trainer.accelerator=cpu"]
    shown = in_process("train", *command, *quick, cwd=tmp_path, capsys=capsys)
    assert sides in shown
    assert re.search(
        r"note: 1 of 4 classes have no training or test clips \(0\).*first_label=1", shown
    )
    assert re.search(r"note: no person in 1 of \d+ (training|validation|test) clips: empty", shown)


def test_one_class_is_refused_in_words_of_the_store(tmp_path, capsys):
    """Kind: a set of one class was refused in words of a constructor (num_classes)."""
    clips = [clip(f"c{i}", 0, i) for i in range(6)]
    names = [one.name for one in clips]
    store_of(tmp_path, clips, {"train": names[:4], "test": names[4:]}, ["wave"])
    words = ["data=custom", "data.path=s.h5", "data.train_split=train", "data.test_split=test"]
    line = refused("train", *words, cwd=tmp_path, capsys=capsys)
    assert line.startswith("error: s.h5 has a single class (wave), but a classifier needs two")


def test_the_report_of_a_store_is_beside_it(tmp_path, capsys):
    """Kind: check=true wrote into the current folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "else").mkdir()
    clips = [clip("a", 0), clip("b", 1, 1)]
    store_of(tmp_path / "data", clips, {})
    in_process("prepare", "check=true", "input=../data/s.h5", cwd=tmp_path / "else", capsys=capsys)
    assert (tmp_path / "data/s_check/report.txt").is_file()
    assert list((tmp_path / "else").iterdir()) == []
