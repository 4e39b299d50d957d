import gzip
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.sources.names import CLASS_NAMES, class_names
from maskclr_pl.sources.ntu.protocols import (
    MISSING,
    NTU_NAME,
    PUBLISHED,
    compare_counts,
    compare_splits,
    protocol_splits,
    sample_ids,
    sample_label,
)
from maskclr_pl.types import InputError
from tests.reference.ntu import NOVEL, SUBJECTS_60, SUBJECTS_120, in_60, splits_of

FACTS = Path(__file__).parents[3] / "shared" / "spec"


@pytest.fixture(scope="module")
def available():
    """All samples that have skeletons."""
    path = FACTS / "ntu120_available_names.txt.gz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return gzip.decompress(path.read_bytes()).decode().split()


def sample(setup=1, camera=1, subject=1, replication=1, action=1):
    return f"S{setup:03}C{camera:03}P{subject:03}R{replication:03}A{action:03}"


def sizes(names):
    return {split: len(members) for split, members in protocol_splits(names).items()}


# --- names ----------------------------------------------------------------------------------------


@given(*(st.integers(0, 999) for _ in range(5)))
def test_sample_name_gives_ids_and_label(setup, camera, subject, replication, action):
    name = sample(setup, camera, subject, replication, action)
    result = {"subject": subject, "camera": camera, "setup": setup}
    for form in (name, name + ".skeleton", name + "_rgb", "clips/" + name):
        assert sample_ids(form) == result
        if action:
            assert sample_label(form) == action - 1
    assert NTU_NAME.fullmatch(name)


OTHERS = {
    "no such name": "jump",
    "empty": "",
    "cut": "S001C001P001R001A00",
    "longer number": "S001C001P001R001A0011",
    "longer word": "XS001C001P001R001A001",
    "other digits": sample().replace("0", "\u0660"),
    "order": "S001P001C001R001A001",
    "small letters": "s001c001p001r001a001",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_names_have_no_ids(kind):
    assert sample_ids(OTHERS[kind]) == {}
    assert protocol_splits([sample(), OTHERS[kind]]) == {}
    with pytest.raises(InputError, match=r"has no action number; expected SsssCcccPpppRrrrAaaa"):
        sample_label(OTHERS[kind])


def test_action_0_is_refused():
    with pytest.raises(InputError, match="'S001C001P001R001A000' has no action"):
        sample_label(sample(action=0))


def test_missing_samples_are_listed():
    assert len(MISSING) == 535
    assert all(NTU_NAME.fullmatch(name) for name in MISSING)
    assert sum(in_60(name) for name in MISSING) == 302
    assert "S001C002P005R002A008" in MISSING


# --- protocols ------------------------------------------------------------------------------------

# the borders, and the samples of the one-shot protocol, more often than by chance
setups = st.one_of(st.sampled_from([1, 17, 18, 32]), st.integers(1, 32))
actions = st.one_of(st.sampled_from([1, 55, 60, 61, 115, 120]), st.integers(1, 120))
subjects = st.one_of(st.sampled_from([1, 8, 40, 41, 106]), st.integers(1, 106))
samples = st.builds(sample, setups, st.integers(1, 3), subjects, st.integers(1, 2), actions)
exemplars = st.sampled_from(
    [sample(s, 3, 8, r, a) for s in (1, 18) for r in (1, 2) for a in (1, 55, 61, 115)]
)
small = st.builds(sample, *(st.integers(1, last) for last in (17, 3, 40, 2, 60)))
sets = st.one_of(
    st.lists(st.one_of(samples, exemplars), min_size=1, max_size=40, unique=True),
    st.lists(small, min_size=1, max_size=40, unique=True),
)


@given(sets)
def test_protocols_match_the_reference(names):
    large = not all(in_60(name) for name in names)
    result = protocol_splits(names)
    assert len(result) == (11 if large else 4)
    for split, members in result.items():
        assert members == [name for name in names if split in splits_of(name, large)], split
    assert set().union(*(splits_of(name, large) for name in names)) <= set(result)


@given(st.lists(samples, min_size=1, max_size=40, unique=True))
def test_splits_are_a_partition(names):
    result = protocol_splits(names)
    among = {"ntu60": {name for name in names if in_60(name)}}
    for protocol in {split.removesuffix("_train") for split in result if split.endswith("_train")}:
        parts = [set(result[split]) for split in result if split.startswith(protocol + "_")]
        assert sum(map(len, parts)) == len(set().union(*parts))
        # a set within NTU RGB+D 60 has two protocols over all of its clips
        assert set().union(*parts) == (
            among["ntu60"] if protocol.startswith("ntu60") else set(names)
        )


OUTSIDE = {
    "setup": sample(setup=33),
    "setup 0": sample(setup=0),
    "camera": sample(camera=4),
    "subject": sample(subject=107),
    "replication": sample(replication=3),
    "action": sample(action=121),
    "action 0": sample(action=0),
}


@pytest.mark.parametrize("number", OUTSIDE)
def test_other_samples_have_no_protocol(number):
    assert protocol_splits([sample()])
    assert protocol_splits([sample(), OUTSIDE[number]]) == {}


def test_no_samples_give_no_protocols():
    assert protocol_splits([]) == {}


def test_training_subjects_match_the_papers():
    assert (len(SUBJECTS_60), len(SUBJECTS_120), len(NOVEL)) == (20, 53, 20)
    everyone = [sample(setup=18, subject=s, action=61) for s in range(1, 107)]
    result = [sample_ids(name)["subject"] for name in protocol_splits(everyone)["xsub_train"]]
    assert result == SUBJECTS_120
    everyone = [sample(subject=s) for s in range(1, 41)]
    result = [sample_ids(name)["subject"] for name in protocol_splits(everyone)["xsub_train"]]
    assert result == SUBJECTS_60


# --- the whole list -------------------------------------------------------------------------------


def test_ntu120_counts_are_the_published_ones(available):
    assert len(available) == len(set(available)) == 113_945
    result = sizes(available)
    assert (result["xsub_train"], result["xsub_val"]) == (63_026, 50_919)
    assert (result["xset_train"], result["xset_val"]) == (54_468, 59_477)
    assert (result["ntu60_xsub_train"], result["ntu60_xsub_val"]) == (40_091, 16_487)
    assert (result["ntu60_xview_train"], result["ntu60_xview_val"]) == (37_646, 18_932)
    assert PUBLISHED["NTU RGB+D 120"] == {"the set": 113_945, **result}


def test_ntu60_counts_are_the_published_ones(available):
    names = [name for name in available if in_60(name)]
    result = sizes(names)
    assert result == {
        **{"xsub_train": 40_091, "xsub_val": 16_487},
        **{"xview_train": 37_646, "xview_val": 18_932},
    }
    assert PUBLISHED["NTU RGB+D 60"] == {"the set": 56_578, **result}
    in_larger = protocol_splits(available)
    for split, members in protocol_splits(names).items():
        assert members == in_larger[f"ntu60_{split}"]


def test_one_shot_protocol_has_published_counts(available):
    result = protocol_splits(available)
    first = [f"S001C003P008R001A{a:03}" for a in range(1, 56, 6)]
    second = [f"S018C003P008R001A{a:03}" for a in range(61, 116, 6)]
    assert result["oneshot_exemplars"] == first + second
    assert len({sample_label(name) for name in result["oneshot_auxiliary"]}) == 100
    assert {sample_label(name) for name in result["oneshot_val"]} == {a - 1 for a in NOVEL}
    assert {sample_label(name) for name in result["oneshot_exemplars"]} == {a - 1 for a in NOVEL}


def test_available_samples_are_not_missing(available):
    assert MISSING.isdisjoint(available)
    whole = [*available, *MISSING]
    assert len(whole) == 114_480
    assert sum(in_60(name) for name in whole) == 56_880


# --- splits of a file -----------------------------------------------------------------------------

MANY = [
    sample(s, c, p, 1, a) for s in (1, 2, 18) for c in (1, 2) for p in (1, 3, 8) for a in (1, 2, 61)
]


def test_protocol_splits_give_no_notes():
    assert compare_splits(protocol_splits(MANY), MANY) == []
    shuffled = random.Random(0).sample(MANY, len(MANY))
    assert compare_splits(protocol_splits(shuffled), MANY) == []
    # other splits and absent clips are ignored
    assert compare_splits({"fold_1": MANY[:3], "xview_train": MANY}, MANY) == []
    train = protocol_splits(MANY)["xsub_train"]
    assert compare_splits({"xsub_train": [*train, sample(action=120), "jump"]}, MANY) == []
    assert compare_splits({"xsub_train": ["jump"]}, ["jump"]) == []


def test_each_differing_split_is_a_note():
    splits = protocol_splits(MANY)
    train, test = splits["xsub_train"], splits["xsub_val"]
    splits["xsub_train"] = [*train[2:], test[0]]
    splits["xset_val"] = splits["xset_val"][1:]
    splits["xset_train"] = [*splits["xset_train"], protocol_splits(MANY)["xset_val"][0]]
    assert compare_splits(splits, MANY) == [
        f"split xsub_train differs from the protocol: 2 of {len(train)} clips of the protocol are "
        f"missing, the first is {train[0]}; 1 of {len(train) - 1} clips belong to another "
        f"split, the first is {test[0]}",
        "split xset_train differs from the protocol: 1 of 37 clips belong to another split, "
        "the first is S001C001P001R001A001",
        "split xset_val differs from the protocol: 1 of 18 clips of the protocol are missing, "
        "the first is S001C001P001R001A001",
    ]


# --- sizes ----------------------------------------------------------------------------------------

# captured clips per part: the available ones plus those that the official lists take out
CAPTURED_60 = {"xsub_train": 40_320, "xsub_val": 16_560, "xview_train": 37_920, "xview_val": 18_960}
CAPTURED_120 = {"xsub_train": 63_360, "xsub_val": 51_120, "xset_train": 54_720, "xset_val": 59_760}
RIGHT = {
    "ntu60": ({"xsub_train": 40_091, "xsub_val": 16_487}, 56_578),
    "ntu60 xview": ({"xview_train": 37_646, "xview_val": 18_932}, 56_578),
    "ntu120": ({"xsub_train": 63_026, "xset_train": 54_468, "xset_val": 59_477}, 113_945),
    "ntu120 xsub": ({"xsub_train": 63_026, "xsub_val": 50_919}, 113_945),
    "other splits": ({"train": 1, "test": 2}, 56_578),
}


@pytest.mark.parametrize("case", RIGHT)
def test_published_counts_are_confirmed(case):
    splits, total = RIGHT[case]
    (line,) = compare_counts(splits, total)
    data = "NTU RGB+D 120" if "120" in case else "NTU RGB+D 60"
    assert line.startswith(f"{data}: as many clips as published: the set {total:,}")
    assert [f"{split} {n:,}" in line for split, n in splits.items()] == [
        "_" in split for split in splits
    ]


UNREMOVED = "as captured, clips with missing skeletons are included"
HALFWAY = "only those missing in NTU RGB+D 60 were left out"
WRONG = {
    "captured 60": (CAPTURED_60, 56_880, f"NTU RGB+D 60: {UNREMOVED}: the set 56,880 (100.5% of"),
    "captured 120": (CAPTURED_120, 114_480, f"NTU RGB+D 120: {UNREMOVED}: the set 114,480 (100."),
    "captured, total only": ({}, 56_880, f"NTU RGB+D 60: {UNREMOVED}: the set 56,880"),
    "list of 60": ({}, 114_178, f"NTU RGB+D 120: {HALFWAY}: the set 114,178 (100.2% of 113,945)"),
    "subset": ({}, 42_434, "NTU RGB+D 60: fewer clips than published: the set 42,434 (75.0% of"),
    "subset 120": ({}, 56_973, "NTU RGB+D 120: fewer clips than published: the set 56,973 (50."),
    "subset by split": (
        {"xset_train": 30_000, "xset_val": 27_000},
        57_000,
        "NTU RGB+D 120: fewer clips than published: the set 57,000 (50.0% of 113,945), "
        "xset_train 30,000 (55.1% of 54,468), xset_val 27,000 (45.4% of 59,477)",
    ),
    "some too many": ({}, 56_600, "NTU RGB+D 60: more clips than published: the set 56,600"),
    "one split": (
        {"xsub_train": 40_091, "xsub_val": 16_000},
        56_578,
        "NTU RGB+D 60: fewer clips than published: xsub_val 16,000 (97.0% of 16,487)",
    ),
    "toy": ({"xsub_train": 5}, 28_288, "NTU RGB+D 60: 28,288 of 56,578 clips"),
    "half": ({}, 28_289, "NTU RGB+D 60: fewer clips than published: the set 28,289 (50.0% of"),
    "toy 120": ({"xset_train": 5}, 9, "NTU RGB+D 120: 9 of 113,945 clips"),
    "nothing": ({}, 0, "NTU RGB+D 60: 0 of 56,578 clips"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_counts_are_explained(case):
    splits, total, expected = WRONG[case]
    (line,) = compare_counts(splits, total)
    assert line.startswith(expected)
    if case.startswith("captured"):
        assert all(f"{split} {n:,}" in line for split, n in splits.items())


def test_different_reasons_are_separate_notes():
    splits = {"xsub_train": 40_320, "xsub_val": 16_487, "xview_val": 18_000}
    assert compare_counts(splits, 56_807) == [
        "NTU RGB+D 60: more clips than published: the set 56,807 (100.4% of 56,578)",
        f"NTU RGB+D 60: {UNREMOVED}: xsub_train 40,320 (100.6% of 40,091)",
        "NTU RGB+D 60: fewer clips than published: xview_val 18,000 (95.1% of 18,932)",
    ]


def test_captured_counts_are_recognized(available):
    for data, captured in (("NTU RGB+D 60", CAPTURED_60), ("NTU RGB+D 120", CAPTURED_120)):
        names = [name for name in [*available, *MISSING] if data.endswith("120") or in_60(name)]
        result = sizes(names)
        assert captured.items() <= result.items()
        (line,) = compare_counts(result, len(names), names)
        assert line.startswith(f"{data}: {UNREMOVED}: the set")
        # one exemplar a class, all of which have skeletons
        assert line.count("%") == len(result) + 1 - ("oneshot_exemplars" in result)


def test_absent_setups_and_cameras_are_noted(available):
    names = [name for name in available if in_60(name) and sample_ids(name)["setup"] not in (3, 5)]
    assert compare_counts({}, len(names), names)[1:] == ["NTU RGB+D 60: no clip of setup 3, 5"]
    names = [name for name in available if sample_ids(name)["camera"] > 1]
    assert compare_counts({}, len(names), names)[1:] == ["NTU RGB+D 120: no clip of camera 1"]
    assert len(compare_counts({}, len(available), available)) == 1
    assert len(compare_counts({}, 56_578, ["train_000000"])) == 1


# --- class names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "classes", "known"),
    [
        ("ntu60", 60, {0: "drink water", 42: "falling", 59: "walking apart from each other"}),
        ("ntu120", 120, {0: "drink water", 60: "put on headphone", 105: "hit other person with"}),
        ("kinetics400", 400, {0: "abseiling", 129: "flipping pancake", 399: "zumba"}),
    ],
)
def test_class_names_are_in_label_order(data, classes, known):
    names = class_names(data)
    assert len(names) == len(set(names)) == classes
    assert all(name and name == name.strip() for name in names)
    for index, name in known.items():
        assert names[index].startswith(name)


def test_unknown_class_names_are_refused():
    assert class_names("ntu120")[:60] == class_names("ntu60")
    assert class_names("kinetics400") == sorted(class_names("kinetics400"))
    with pytest.raises(InputError, match="class_names=ucf101: expected one of ntu60, ntu120"):
        class_names("ucf101")
    assert len(CLASS_NAMES) == 3


@pytest.mark.skipif(not FACTS.is_dir(), reason=f"no {FACTS}")
def test_names_match_the_official_lists():
    listed = yaml.safe_load((FACTS / "ntu120_classes.yaml").read_text())["classes"]
    assert class_names("ntu120") == [item["name"] for item in listed]
    text = (FACTS / "kinetics400_classes.txt").read_text()
    assert class_names("kinetics400") == text.splitlines()
    assert sorted(MISSING) == sorted((FACTS / "ntu_missing_skeletons.txt").read_text().split())
    novel = [item["id"] for item in listed if item["oneshot_novel"]]
    assert novel == NOVEL
