"""What a run settles by its data file: splits, augmentation, joints, new classes, sizes."""

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.config.composition import is_overridden, overridden_keys
from maskclr_pl.config.paths import config_dir
from maskclr_pl.data.contents import paired_splits
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.splits import draw_novel
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.types import InputError
from tests.helpers.protocol_tools import toy_store
from tests.helpers.recipe_tools import kind_of_store, start

NAMES = [f"c{i:02d}" for i in range(32)]
SMALL = ["data=custom", "backbone=dstformer_tiny", "backbone.depth=1", "clip.frames=8"]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        ([], []),
        (["train", "test"], [("train", "test")]),
        (["val", "train"], [("train", "val")]),
        (["train", "val", "test"], [("train", "test"), ("train", "val")]),
        (
            ["cross_train", "cross_test", "x_test", "x_train"],
            [("x_train", "x_test"), ("cross_train", "cross_test")],
        ),
        (["a_train", "b_test"], []),
        (["xsub_test", "xsub_train", "trainee"], [("xsub_train", "xsub_test")]),
        (
            ["b_train", "b_val", "a_test", "a_train"],
            [("a_train", "a_test"), ("b_train", "b_val")],
        ),
    ],
)
def test_splits_pair_up_by_name(names, pairs):
    assert paired_splits(names) == pairs


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixels")
    halves = {"train": NAMES[:24], "test": NAMES[24:]}
    splits = {f"{name}_{part}": rows for name in "ab" for part, rows in halves.items()}
    return kind_of_store(folder, "coco17", **splits, rest=NAMES[:3])


@pytest.fixture(scope="module")
def metres(tmp_path_factory):
    return kind_of_store(tmp_path_factory.mktemp("metres"), "ntu25", all_train=NAMES)


def test_splits_are_named_and_said(pixels):
    """The kind "needless options": on 15b7e28 `data.train_split is missing`."""
    run = start(*SMALL, f"data.path={pixels}")
    assert (run.cfg.data.train_split, run.cfg.data.test_split) == ("a_train", "a_test")
    note = "data.train_split=a_train data.test_split=a_test; it also has b_train with b_test"
    assert note in run.notes
    run = start(*SMALL, f"data.path={pixels}", "data.test_split=b_test")
    assert (run.cfg.data.train_split, run.cfg.data.test_split) == ("b_train", "b_test")


def test_splits_without_a_pair_are_refused(metres):
    with pytest.raises(InputError, match=r"it has all_train; pass data\.train_split=\.\.\."):
        start(*SMALL, f"data.path={metres}")


BOTH = ["data.train_split=all_train", "data.test_split=all_train"]


def test_augmentation_follows_the_kind_of_data(metres):
    """The kind "what follows from the data": no option for 2D or 3D; one that is passed stands."""
    words = [*SMALL, f"data.path={metres}", *BOTH]
    for name, counterpart in (("aimclr_2d", "aimclr"), ("none", "none_3d")):
        with pytest.raises(InputError, match=f"pass augment={counterpart}$"):
            start(*words, f"augment={name}")
    with pytest.raises(InputError, match="made for pixels"):
        start(*words, "augment.augment.move.angle=5.0")
    run = start(*words)
    assert run.cfg.augment.sampling == run.cfg.data.sampling == "whole"
    assert f"augment=ntu3d: {metres} holds metres" in run.notes
    # what the augmentation refers to is that of this run
    assert run.cfg.augment.augment.resize.frames == 8
    assert run.cfg.augment.augment.center.joint == SKELETONS["ntu25"].root


def test_every_augmentation_has_a_counterpart():
    files = (config_dir() / "augment").iterdir()
    kinds = {path.stem: yaml.safe_load(path.read_text()) for path in files}
    for name, augment in kinds.items():
        other = kinds[augment["counterpart"]]
        assert {augment["coordinates"], other["coordinates"]} == {"pixels", "metres"}, name
        assert ("extreme" in augment) == ("extreme" in other), name


def test_center_of_a_data_set_is_the_root_elsewhere(metres):
    """The kind "one set's joint on another's": on 15b7e28 `no such joint` for pose=h36m17."""
    words = ["data=ntu60_xsub_3d", *SMALL[1:], f"data.path={metres}", *BOTH]
    run = start(*words, "pose=h36m17")
    assert run.cfg.clip.center == SKELETONS["h36m17"].root
    assert "clip.center=root: h36m17 has no spine_mid" in run.notes
    assert start(*words).cfg.clip.center == SKELETONS["ntu25"].joints.index("spine_mid")
    with pytest.raises(InputError, match=r"clip\.center=spine_mid: .* has no such joint"):
        start(*words, "pose=h36m17", "clip.center=spine_mid")


HAND = Skeleton("hand", ("wrist", "thumb", "finger"), (-1, 0, 0))


def test_joints_of_a_recipe_need_those_of_the_data(tmp_path):
    """The kind "converted to zeros": what h36m17 cannot be made of stays as it is, and is said."""
    store = kind_of_store(tmp_path, HAND)
    words = ["experiment=supervised_dstformer", "size=tiny", "data=custom", f"data.path={store}"]
    run = start(*words)
    assert run.method.skeleton.joints == HAND.joints
    [note] = [note for note in run.notes if note.startswith("pose=native: hand has no ")]
    assert note.endswith(
        "and 11 more for h36m17; clip.skeleton=h36m17 trains with zeros in their place"
    )
    assert start(*words, "pose=h36m17").method.skeleton.name == "h36m17"


def test_numbers_larger_than_the_data(pixels):
    """The kind "a recipe's numbers on small data"; what is passed stands."""
    words = ["data=custom", f"data.path={pixels}", "size=tiny"]
    run = start("experiment=aimclr_sttformer", *words)
    assert run.cfg.method.queue_size == 19  # 0.8 of 24
    assert "method.queue_size=19, fewer than the training clips; the recipe has 32768" in run.notes
    assert f"augment=aimclr_2d: {pixels} holds pixels" in run.notes
    run = start("experiment=maskclr_dstformer", *words)
    assert run.cfg.data.balanced.classes == 4
    balanced = "data.balanced={classes:9,samples:2}"
    run = start("method=aimclr", "augment=aimclr_2d", *words, "method.queue_size=99", balanced)
    assert run.cfg.method.queue_size == 99
    assert run.cfg.data.balanced.classes == 9


@given(
    st.lists(st.integers(0, 9), min_size=3).filter(lambda labels: len(set(labels)) > 2),
    st.floats(0.01, 0.99),
    st.integers(0, 99),
)
def test_new_classes_are_a_share(labels, share, seed):
    train = np.array(labels)
    classes = len(set(labels))
    wanted = max(1, round(share * classes))
    if classes - wanted < 2:
        with pytest.raises(InputError, match="at least two classes must remain"):
            draw_novel(train, train, share, seed)
        return
    novel = draw_novel(train, train[::-1], share, seed)
    assert len(novel) == wanted
    assert set(novel) < set(labels)
    assert (novel == draw_novel(train, train, share, seed)).all()


@pytest.mark.parametrize("share", [0, 1, -0.2, float("nan"), True])
def test_shares_that_are_none(share):
    with pytest.raises(InputError, match="expected a share between 0 and 1"):
        draw_novel(np.arange(9), np.arange(9), share, 0)


def test_one_shot_without_exemplars(tmp_path):
    """The kind "a protocol that only one set has": new classes and exemplars of any store."""
    store = toy_store(tmp_path, 60, 6)
    splits = {"train_split": "train", "test_split": "test", "frames": 4}
    data = SkeletonDataModule(str(store.path), **splits, novel_classes=0.34, batch_size=4)
    novel = set(data.exemplars.labels)
    assert len(novel) == len(data.exemplars) == 2
    assert set(data.test.labels) == novel
    assert not novel & (set(data.train.labels) | set(data.val.labels))
    training = store.rows("train")
    for name, label in zip(data.exemplars.names, data.exemplars.labels, strict=True):
        assert name == min(store.name(int(row)) for row in training if store.label[row] == label)
    assert any("2 novel classes, each with one exemplar" in note for note in data.notes)


def test_keys_of_the_command_line():
    passed = overridden_keys(
        ["pose=native", "+a.b=1", "data=custom", "~logger.csv", "compat=released"]
    )
    assert {"pose", "clip.skeleton", "a.b", "data", "logger.csv", "method.persons"} <= passed
    assert is_overridden("data.path", passed)
    assert not is_overridden("clip.frames", passed)
    assert not is_overridden("database", passed)
