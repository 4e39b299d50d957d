"""Settings that `init_from` inherits: one rule for every key."""

from collections import Counter

import hydra
import pytest
import torch
import yaml

from maskclr_pl.checkpoint.inheritance import INHERITED
from maskclr_pl.config.paths import config_dir
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.types import InputError
from tests.end_to_end.test_recipes import compose
from tests.helpers.recipe_tools import kind_of_store, save, start

CONF = config_dir()
TINY = ["backbone=dstformer_tiny", "backbone.dim=16", "backbone.depth=1", "clip.frames=8"]
# keys ("": groups and single keys) that a run does not inherit
OWN = {
    "": (
        *("seed", "output_dir", "init_from", "init_required", "init_overlap", "trusted", "resume"),
        *("compile", "checkpointing", "check_only"),
        *("objective", "monitor_split", "optim", "trainer", "callbacks", "logger", "paths"),
        *("head", "loss", "masking"),
    ),
    "data": (
        *("_target_", "val_fraction", "novel_classes", "label_fraction", "batch_size", "balanced"),
        *("num_workers", "seed"),
    ),
    "method": (
        *("_target_", "num_classes", "bn_stats", "drop_hidden", "normalize", "init_std"),
        *("embed_dim", "queue_size", "temperature", "base_temperature", "momentum", "topk", "k"),
        *("mining_epoch", "drop_threshold", "streams", "cross_epoch", "context"),
        *("target", "decoder", "n_mpjpe", "velocity", "view", "noise", "drop"),
    ),
}
# keys that follow from the data file, from `clip` or from `augment`
DERIVED = {
    "": ("source", "download"),
    "clip": ("joints", "channels", "classes"),
    "data": ("frames", "persons", "sampling", "released"),
    "method": ("coordinates",),
}
CLASSIFY = ["loss=ce", "masking=none", "head=action_small"]


def sides(group, key):
    """How often a key of a group is classified."""
    return sum(key in part.get(group, ()) for part in (INHERITED, OWN, DERIVED))


def keys_of(group, option):
    """The keys that an option puts under its group, with those of the options it builds on."""
    content = yaml.safe_load((CONF / group / f"{option}.yaml").read_text())
    keys = set(content.get(group, {}) if group in content or option in METHODS else content)
    for entry in content.get("defaults", []):
        if isinstance(entry, str):
            keys |= keys_of(group, entry)
        elif "/decoder" in entry:
            keys.add("decoder")
    return keys


METHODS = {path.stem for path in (CONF / "method").glob("*.yaml")}


def test_every_key_is_on_one_side():
    """The kind "a key that inheritance forgets": a new key fails here until it is classified."""
    cfg = compose()
    top = [key for key in cfg if key not in INHERITED]
    assert {key: sides("", key) for key in top} == dict.fromkeys(top, 1)
    assert {key: sides("clip", key) for key in cfg.clip} == dict.fromkeys(cfg.clip, 1)
    assert {key: sides("data", key) for key in cfg.data} == dict.fromkeys(cfg.data, 1)
    keys = set().union(*(keys_of("method", name) for name in METHODS))
    assert {key: sides("method", key) for key in keys} == dict.fromkeys(keys, 1)
    # and nothing is classified that does not exist
    known = {
        "": set(top),
        "clip": {*cfg.clip, "released_scores"},
        "data": set(cfg.data),
        "method": keys,
    }
    for part in (INHERITED, OWN, DERIVED):
        for group, classified in part.items():
            assert set(classified) <= known.get(group, set()), group
    assert max(Counter(OWN["method"]).values()) == 1


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    hand = Skeleton("hand", tuple(f"finger{i}" for i in range(17)), (-1, *[0] * 16))
    layouts = ("coco17", "ntu25", "kinect20", "h36m17", hand)
    return {getattr(one, "name", one): kind_of_store(folder, one) for one in layouts}


@pytest.fixture(scope="module")
def origin(stores, tmp_path_factory):
    """A run with everything typed that decides what its backbone is shown."""
    run = start(
        *("data=custom", f"data.path={stores['coco17']}", *TINY, *CLASSIFY, "compat=released"),
        *(
            "augment=none",
            "clip.persons=1",
            "clip.root=5",
            "clip.stream=bone",
            "data.duplicates=keep",
        ),
        *("clip.parts=[[0,1],[2,3]]", "clip.pairs=[[1,2]]", "data.batch_size=7"),
        "backbone.importance=[ts_spatial]",
    )
    return save(run, tmp_path_factory.mktemp("origin") / "best.ckpt")


ROADS = {
    "a method": ["method=finetune", "head=action_small"],
    "a recipe": ["experiment=finetune_dstformer", "head=action_small"],
    "a recipe of another backbone": ["experiment=finetune_sttformer"],
    "a frozen backbone": ["method=knn"],
    "two pathways": ["method=recognizer", "head=action_small"],
}


@pytest.mark.parametrize("road", ROADS)
def test_all_that_decides_what_the_backbone_is_shown(origin, road):
    """The kind "half taken over": on 15b7e28 persons, parts, pairs and root were the defaults."""
    before = torch.load(origin, weights_only=True)["maskclr_pl"]["config"]
    run = start(*ROADS[road], f"init_from={origin}")
    for group, keys in INHERITED.items():
        for key in set(keys) & before[group].keys():
            assert run.cfg[group][key] == before[group][key], (group, key)
    assert run.cfg.method.persons == "padded"
    assert run.cfg.clip.released is True
    assert run.cfg.augment == before["augment"]
    assert run.cfg.backbone == before["backbone"]
    assert run.cfg.data.batch_size != 7
    groups = ["backbone", "clip", "data", "method.persons", "augment"]
    assert list(run.inherited.groups) == groups
    assert "backbone" in run.parts
    recipe = [f"the backbone is that of {origin}, DSTformer; the recipe has STTFormer"]
    assert run.notes == (recipe if "another" in road else [])


def test_what_is_passed_stands_and_is_said(origin, stores):
    words = ["method=finetune", "head=action_small", f"init_from={origin}", "clip.persons=2"]
    run = start(*words, "method.persons=packed", "clip.root=0", "augment=motionbert")
    assert (run.cfg.clip.persons, run.cfg.method.persons) == (2, "packed")
    assert run.cfg.clip.released is True
    for note in (
        "it was trained with clip.persons=1, this run has 2",
        "it was trained with method.persons=padded, this run has packed",
        "it was trained with clip.root=5, this run has 0",
    ):
        assert note in run.notes
    run = start(*words, "compat=none", "data=custom", f"data.path={stores['coco17']}")
    assert run.cfg.clip.released is False
    assert run.cfg.method.persons == "packed"
    assert "data" not in run.inherited.groups
    assert run.cfg.data.duplicates == "drop"
    assert run.cfg.clip.stream == "bone"


def test_drop_path_is_the_recipes(tmp_path, stores):
    """Regularization that the fine-tuning recipe publishes is not lost to the pre-training's."""
    words = ["data=custom", f"data.path={stores['ntu25']}", "size=tiny", "clip.frames=12"]
    origin = save(start("experiment=mamp_transformer", *words), tmp_path / "mamp.ckpt")
    run = start("experiment=finetune_transformer", f"init_from={origin}")
    assert run.cfg.backbone.drop_path == 0.3
    assert run.cfg.backbone.dim == 48
    # another length: the augmentation was baked with that of the origin
    run = start("experiment=finetune_transformer", f"init_from={origin}", "clip.frames=24")
    assert [step.get("frames") for step in run.cfg.augment.augment.values()] == [None, 24, None]


def test_lifting_then_another_layout_of_as_many_joints(tmp_path, stores):
    """The kind "as many joints, other joints": 17 of h36m17 on the 17 of coco17, converted."""
    words = ["data=custom", f"data.path={stores['ntu25']}", "size=tiny"]
    origin = save(start("experiment=lift_dstformer", *words), tmp_path / "lift.ckpt")
    tuning = ["method=finetune", "head=action_small", f"init_from={origin}"]
    run = start(*tuning, "data=custom", f"data.path={stores['coco17']}")
    assert run.method.skeleton == SKELETONS["h36m17"]
    assert run.cfg.augment.coordinates == "pixels"
    assert f"joints are converted from coco17 to h36m17, the layout of {origin}" in run.notes
    # as many joints that have nothing to do with it
    with pytest.raises(InputError, match=r"17 joints of h36m17, and this run has the 17 of hand"):
        start(*tuning, "data=custom", f"data.path={stores['hand']}")
    run = start(*tuning, "data=custom", f"data.path={stores['hand']}", "pose=native")
    assert run.method.skeleton.name == "hand"
    assert "it was trained on the joints of h36m17, this run has hand" in run.notes
    # its own data: projected, nothing to convert
    run = start(*tuning)
    assert run.cfg.augment.preprocess[-1]._target_.endswith(".Project")
    assert run.notes == []


def test_joints_of_a_native_origin(tmp_path, stores):
    """Conversion to the layout of the origin's data, as far as no joint is missing."""
    words = ["data=custom", f"data.path={stores['coco17']}", *TINY, *CLASSIFY]
    origin = save(start(*words), tmp_path / "coco.ckpt")
    tuning = ["method=knn", f"init_from={origin}", "data=custom"]
    with pytest.raises(InputError, match=r"the 17 joints of coco17, and this run has the 20 of"):
        start(*tuning, f"data.path={stores['kinect20']}")
    with pytest.raises(InputError, match=r"without left_eye, .*pass clip\.skeleton=coco17"):
        start(*tuning, f"data.path={stores['h36m17']}")
    run = start(*tuning, f"data.path={stores['h36m17']}", "clip.skeleton=coco17")
    assert run.method.skeleton.name == "coco17"


def test_a_backbone_that_was_passed_does_not_fit(origin):
    words = ["method=knn", f"init_from={origin}", "backbone=dstformer_tiny"]
    with pytest.raises(InputError, match=r"leave out backbone=\.\.\. and backbone\.KEY=\.\.\."):
        start(*words)


def test_released_classes_are_trusted_only(origin, tmp_path):
    content = torch.load(origin, weights_only=True)
    content["maskclr_pl"]["config"]["augment"]["augment"]["crop"]["_target_"] = "os.system"
    torch.save(content, tmp_path / "forged.ckpt")
    with pytest.raises(InputError, match=r"asks for os\.system, which is not trusted"):
        start("experiment=finetune_dstformer", f"init_from={tmp_path / 'forged.ckpt'}")


def test_settings_of_older_runs(origin, tmp_path):
    """A run folder of an earlier version lacks keys: those of this run stand."""
    content = torch.load(origin, weights_only=True)
    config = content["maskclr_pl"]["config"]
    for group, key in (("clip", "released"), ("method", "persons"), ("data", "duplicates")):
        del config[group][key]
    torch.save(content, tmp_path / "old.ckpt")
    run = start("method=knn", f"init_from={tmp_path / 'old.ckpt'}")
    assert run.cfg.clip.released is False
    assert run.cfg.method.persons == "packed"
    assert hydra.utils.get_object(run.cfg.method._target_).__name__ == "KNN"
