import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.errors import InputError
from maskclr_pl.skeletons.joint_names import canonical_names
from maskclr_pl.skeletons.layouts import layout_notes, load_skeleton, read_layout
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton, conversion_matrix

LAYOUTS = sorted(SKELETONS)

# (target joint, source joints that it is the mean of), from spec/data_formats.md 7
TABLES = {
    ("coco17", "h36m17"): [
        [11, 12], [12], [14], [16], [11], [13], [15], [11, 12, 5, 6], [5, 6], [0], [1, 2],
        [5], [7], [9], [6], [8], [10],
    ],
    ("halpe26", "h36m17"): [
        [19], [12], [14], [16], [11], [13], [15], [18, 19], [18], [0], [17],
        [5], [7], [9], [6], [8], [10],
    ],
    ("ntu25", "h36m17"): [
        [0], [16], [17], [18], [12], [13], [14], [1], [20], [2, 3], [3],
        [4], [5], [6], [8], [9], [10],
    ],
    ("openpose18", "coco17"): [
        [i] for i in (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
    ],
    ("coco17", "openpose18"): [
        [0], [5, 6], [6], [8], [10], [5], [7], [9], [12], [14], [16], [11], [13], [15],
        [2], [1], [4], [3],
    ],
    ("halpe26", "coco17"): [[i] for i in range(17)],
    ("ntu25", "coco17"): [
        [3], [], [], [], [], [4], [8], [5], [9], [6], [10], [12], [16], [13], [17], [14], [18],
    ],
    ("kinect20", "ntu25"): [
        [0], [1], [], [3], *([i] for i in range(4, 20)), [2], [], [], [], [],
    ],
    ("ntu25", "kinect20"): [[0], [1], [20], *([i] for i in range(3, 20))],
}  # fmt: skip

# children and parents as expected by the documentation of each layout
BONES = {
    "h36m17": "0-1 1-2 2-3 0-4 4-5 5-6 0-7 7-8 8-9 9-10 8-11 11-12 12-13 8-14 14-15 15-16",
    "coco17": "0-1 0-2 1-3 2-4 0-5 0-6 5-7 6-8 7-9 8-10 5-11 6-12 11-13 12-14 13-15 14-16",
    "openpose18": "3-4 2-3 1-2 6-7 5-6 1-5 9-10 8-9 2-8 12-13 11-12 5-11 1-0 0-14 0-15 14-16 15-17",
    "ntu25": "1-0 20-1 20-2 2-3 20-4 4-5 5-6 6-7 20-8 8-9 9-10 10-11 0-12 12-13 13-14 14-15 0-16 "
    "16-17 17-18 18-19 7-21 7-22 11-23 11-24",
}
PAIRS = {
    "h36m17": {(4, 1), (5, 2), (6, 3), (11, 14), (12, 15), (13, 16)},
    "coco17": {(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)},
    "openpose18": {(5, 2), (6, 3), (7, 4), (11, 8), (12, 9), (13, 10), (15, 14), (17, 16)},
    "ntu25": {(4, 8), (5, 9), (6, 10), (7, 11), (12, 16), (13, 17), (14, 18), (15, 19), (21, 23),
              (22, 24)},
}  # fmt: skip


@pytest.mark.parametrize(("source", "target"), TABLES)
def test_conversions_match_the_specification(source, target):
    weights, missing = conversion_matrix(SKELETONS[source], SKELETONS[target])
    table = TABLES[source, target]
    assert [np.flatnonzero(row).tolist() for row in weights] == [sorted(part) for part in table]
    assert missing == tuple(
        joint for joint, part in zip(SKELETONS[target].joints, table, strict=True) if not part
    )
    for row, part in zip(weights, table, strict=True):
        np.testing.assert_allclose(row[part], 1 / max(len(part), 1))  # here all means are even


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("target", LAYOUTS)
def test_converted_joints_are_means_or_missing(source, target):
    weights, missing = conversion_matrix(SKELETONS[source], SKELETONS[target])
    assert weights.shape == (len(SKELETONS[target]), len(SKELETONS[source]))
    assert (weights >= 0).all()
    lost = [joint in missing for joint in SKELETONS[target].joints]
    np.testing.assert_allclose(weights.sum(1), np.where(lost, 0, 1))
    if source == target:
        np.testing.assert_array_equal(weights, np.eye(len(SKELETONS[source])))


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("target", LAYOUTS)
def test_conversion_never_mixes_left_and_right(source, target):
    weights, _ = conversion_matrix(SKELETONS[source], SKELETONS[target])
    for joint, row in zip(SKELETONS[target].joints, weights, strict=True):
        names = {SKELETONS[source].joints[i].split("_")[0] for i in np.flatnonzero(row)}
        if joint.startswith(("left_", "right_")):
            assert names <= {joint.split("_")[0]}
        else:  # a middle joint leans to no side
            assert ("left" in names) == ("right" in names)


@pytest.mark.parametrize("name", BONES)
def test_bones_and_pairs(name):
    skeleton = SKELETONS[name]
    expected = {tuple(map(int, bone.split("-"))) for bone in BONES[name].split()}
    assert {(parent, child) for child, parent in skeleton.bones} == expected
    assert set(skeleton.pairs) == PAIRS[name]


@pytest.mark.parametrize("name", LAYOUTS)
def test_derived_properties(name):
    skeleton = SKELETONS[name]
    assert skeleton.parents[skeleton.root] == -1
    assert len(skeleton.bones) == len(skeleton) - 1  # a tree
    joints = [joint for part in skeleton.parts.values() for joint in part]
    assert sorted(joints) == list(range(len(skeleton)))
    assert set(skeleton.parts) == {"trunk", "left_arm", "right_arm", "left_leg", "right_leg"}
    for left, right in skeleton.pairs:
        assert skeleton.joints[left].removeprefix("left") == skeleton.joints[right].removeprefix(
            "right"
        )
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton


def test_parts_of_h36m():
    assert SKELETONS["h36m17"].parts == {
        "trunk": (0, 7, 8, 9, 10),
        "left_arm": (11, 12, 13),
        "right_arm": (14, 15, 16),
        "left_leg": (4, 5, 6),
        "right_leg": (1, 2, 3),
    }


@given(st.sampled_from(LAYOUTS), st.randoms(use_true_random=False))
def test_from_edges_restores_the_tree(name, random):
    skeleton = SKELETONS[name]
    edges = [list(bone)[:: random.choice((1, -1))] for bone in skeleton.bones]
    random.shuffle(edges)
    root = skeleton.joints[skeleton.root]
    again = Skeleton.from_edges(name, skeleton.joints, edges, root)
    assert again.parents == skeleton.parents


def test_from_edges_selects_a_root():
    chain = [[0, 1], [1, 2], [2, 3], [3, 4]]
    names = ["a", "b", "c", "d", "e"]
    assert Skeleton.from_edges("s", names, chain).root == 2  # the middle
    assert Skeleton.from_edges("s", [*names[:4], "pelvis"], chain).root == 4
    assert Skeleton.from_edges("s", names, chain, root="b").root == 1
    loop = Skeleton.from_edges("s", names, [*chain, [4, 0]], root="a")
    assert len(loop.bones) == 4
    loose = Skeleton.from_edges("s", names, chain[:2])
    assert loose.parents.count(-1) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("s", ("a", "a"), (-1, 0)),
        ("s", (), ()),
        ("s", ("a", "b"), (-1,)),
        ("s", ("a", "b"), (1, 0)),
        ("s", ("a", "b"), (-1, 5)),
        ("s", ("a", "b"), (-1, 0), {}, (-1,)),
        ("s", ("a", "b"), (-1, 0), {}, (1, 0)),
        ("s", ("a", "b"), (-1, 0), {}, (-1, 5)),
    ],
)
def test_broken_skeletons_are_refused(arguments):
    with pytest.raises(InputError, match="skeleton s"):
        Skeleton(*arguments)


def test_published_bones_of_ntu_differ_at_the_hands():
    ntu = SKELETONS["ntu25"]
    assert ntu.bone_parents is not None
    others = {joint for joint in range(25) if ntu.bone_parents[joint] != ntu.parents[joint]}
    assert {ntu.joints[joint] for joint in others} == {"left_hand_tip", "right_hand_tip"}
    for joint in others:
        assert ntu.joints[ntu.bone_parents[joint]] == ntu.joints[joint].split("_")[0] + "_thumb"
    with pytest.raises(InputError, match="the bone_parents of a do not lead to a root"):
        Skeleton("s", ("a", "b"), (-1, 0), bone_parents=(0, -1))


def test_skeletons_without_bone_parents_are_read():
    values = json.loads(json.dumps(SKELETONS["ntu25"].to_dict()))
    assert Skeleton.from_dict(values) == SKELETONS["ntu25"]
    del values["bone_parents"]
    assert Skeleton.from_dict(values) == replace(SKELETONS["ntu25"], bone_parents=None)


def test_broken_edges_are_refused():
    for edges, root in (([[0, 5]], None), ([[0]], None), ([[-1, 0]], None), ([[0, 1]], "c")):
        with pytest.raises(InputError, match="skeleton s"):
            Skeleton.from_edges("s", ["a", "b"], edges, root)


def test_load_skeleton(tmp_path):
    assert load_skeleton("coco17") is SKELETONS["coco17"]
    path = tmp_path / "mine.meta.yaml"
    path.write_text("joints: [head, hip_center, foot]\nedges: [[0, 1], [hip_center, foot]]\n")
    skeleton = load_skeleton(path)
    assert (skeleton.name, skeleton.joints) == ("mine", ("head", "hip_center", "foot"))
    assert skeleton.parents == (1, -1, 1)


@pytest.mark.parametrize(("text", "message"), [("- a\n", "mapping"), ("joints: [a, b\n", "YAML")])
def test_broken_yaml_is_refused(tmp_path, text, message):
    path = tmp_path / "layout.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_skeleton(path)


def test_unknown_names_are_refused_with_a_hint(tmp_path):
    with pytest.raises(InputError, match="did you mean coco17"):
        load_skeleton("coco_17")
    with pytest.raises(InputError, match="no such file"):
        load_skeleton(tmp_path / "none.yaml")


def respelled(name, letter, first, style):
    """A joint name as other software writes it."""
    side, _, rest = name.partition("_")
    words = name.split("_")
    if side in ("left", "right"):
        side = side[0] if letter else side
        words = [side, *rest.split("_")] if first else [*rest.split("_"), side]
    camel = "".join(word.capitalize() for word in words)
    return {"words": " ".join(words), "upper": "-".join(words).upper(), "camel": camel}[style]


@given(
    st.sampled_from(LAYOUTS),
    *(st.booleans(), st.booleans(), st.sampled_from(["words", "upper", "camel"])),
)
def test_joint_names_in_other_spellings_are_recognized(name, letter, first, style):
    joints = SKELETONS[name].joints
    assert canonical_names([respelled(one, letter, first, style) for one in joints]) == joints


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("LSHO RSHO HEAD", "left_sho right_sho head"),
        ("lhip rhip hip", "left_hip right_hip hip"),
        ("kneeL kneeR spine_l", "left_knee right_knee spine_l"),
        ("anklel ankler leg", "left_ankle right_ankle leg"),
        ("HandTipLeft SpineBase", "left_hand_tip spine_base"),
        ("MOUTH_LEFT RIGHT_EYE_INNER", "left_mouth right_eye_inner"),
        ("R.Elbow L.Elbow", "right_elbow left_elbow"),
        ("左肩 右肩 0", "左肩 右肩 0"),
        ("left_hip LHip right_hip", "left_hip LHip right_hip"),  # would be the same name twice
        ("left right l", "left right l"),
    ],
)
def test_sides_are_found_in_joint_names(written, read):
    assert canonical_names(written.split()) == tuple(read.split())


def layout_file(tmp_path, joints, edges=None, **values):
    path = tmp_path / "mine.yaml"
    values |= {"joints": list(joints)} | ({} if edges is None else {"edges": edges})
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_file_with_the_joints_of_a_named_layout_is_that_layout(tmp_path, name):
    known = SKELETONS[name]
    chain = [[i, i + 1] for i in range(len(known) - 1)]
    for edges in (chain, None):
        skeleton, notes = read_layout(layout_file(tmp_path, known.joints, edges, name="other"))
        assert skeleton is known
        assert notes == [f"{tmp_path}/mine.yaml has the joints of {name} and is read as {name}"]
    camel = ["".join(word.capitalize() for word in joint.split("_")) for joint in known.joints]
    skeleton, notes = read_layout(layout_file(tmp_path, camel, chain))
    assert skeleton is known
    assert len(notes) == 2
    assert f"{camel[0]} is {known.joints[0]}" in notes[0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_named_layout_in_another_order_keeps_root_and_bones(tmp_path, name):
    known = SKELETONS[name]
    joints = sorted(known.joints)
    skeleton, [note] = read_layout(layout_file(tmp_path, joints))
    assert f"has the joints of {name} in another order" in note
    assert skeleton.joints == tuple(joints)
    named = {(joints[a], joints[b]) for a, b in skeleton.bones}
    assert named == {(known.joints[a], known.joints[b]) for a, b in known.bones}
    assert joints[skeleton.root] == known.joints[known.root]
    weights, missing = conversion_matrix(skeleton, known)
    assert missing == ()
    np.testing.assert_array_equal(weights.argmax(1), [joints.index(one) for one in known.joints])


def test_root_of_the_file_takes_precedence(tmp_path):
    chain = [[i, i + 1] for i in range(16)]
    joints = SKELETONS["coco17"].joints
    skeleton, notes = read_layout(layout_file(tmp_path, joints, chain, root="left_hip"))
    assert (skeleton.name, skeleton.joints[skeleton.root]) == ("mine", "left_hip")
    assert notes == []


def test_assumptions_about_a_file_are_noted(tmp_path):
    path = layout_file(tmp_path, ["a", "b", "c", "d"], [[0, 1], [1, 2]])
    skeleton, notes = read_layout(path)
    assert skeleton.joints[skeleton.root] == "b"
    assert "b, in the middle of the edges, is the root; add `root: JOINT`" in notes[0]
    assert notes[1] == f"no edge of {path} connects d with b"


def test_unsupported_features_of_a_layout_are_noted():
    [note] = layout_notes(Skeleton("dots", ("a", "b"), (-1, 0)))
    assert note.startswith("dots has no pairs of left and right joints")
    hands = Skeleton("hands", ("root", "left_hand", "right_hand", "left_eye"), (-1, 0, 0, 0))
    alone, absent = layout_notes(hands)
    assert alone == "hands has no opposite joint for left_eye"
    assert absent == "no joint names of hands belong to a left leg, right leg"
    assert all(layout_notes(one) == [] for one in SKELETONS.values())


@pytest.mark.parametrize(
    ("joints", "edges", "message"),
    [
        (["a", "b", "a"], [[0, 1]], r"2 joints are named 'a'"),
        (["a", "b"], [[1, 2]], r"edge \[1, 2\]: expected a pair of joints from 0 to 1"),
        (["a", "b"], [["a", "c"]], r"edge \['a', 'c'\].*no joint is named 'c'"),
        (["a", "b"], [[0, 1, 1]], r"edge \[0, 1, 1\].*pair of joint"),
        (["a", "b"], 7, "list `edges`"),
        (["a", "b"], None, "list `edges`"),
        ([], [], "no joints"),
        (list(SKELETONS["coco17"].joints), [[0, 17]], r"edge \[0, 17\]"),
    ],
)
def test_broken_layouts_are_refused_in_one_line(tmp_path, joints, edges, message):
    with pytest.raises(InputError, match=message) as caught:
        read_layout(layout_file(tmp_path, joints, edges))
    assert "\n" not in str(caught.value)
