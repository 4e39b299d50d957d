import re
import shlex

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from maskclr_pl.config.paths import config_dir
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.sources.names import CLASS_NAMES
from maskclr_pl.sources.ntu.protocols import PUBLISHED

FLAT = ["ntu60_xsub", "ntu60_xview", "ntu120_xsub", "ntu120_xset", "kinetics400"]
DEEP = [f"{name}_3d" for name in FLAT if name.startswith("ntu")]


@pytest.fixture(autouse=True)
def no_hydra():
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


def compose(verb, *overrides):
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return hydra.compose(verb, list(overrides), return_hydra_config=True)


def chosen(cfg):
    return {group: cfg.hydra.runtime.choices[group] for group in ("pose", "augment")}


def commands(text, verb):
    """The arguments of each command of that name in a text."""
    return [
        shlex.split(line) for line in re.findall(rf"python -m maskclr_pl\.{verb} ([^`]*)", text)
    ]


@pytest.mark.parametrize("data", FLAT)
def test_2d_sets_have_the_joints_of_motionbert(data):
    cfg = compose("train", f"data={data}")
    assert chosen(cfg) == {"pose": "h36m17", "augment": "motionbert"}
    assert (cfg.clip.skeleton, cfg.clip.frames, cfg.clip.persons) == ("h36m17", 243, 2)
    assert cfg.augment.coordinates == "pixels"


@pytest.mark.parametrize("data", DEEP)
def test_3d_sets_have_the_joints_of_the_kinect(data):
    cfg = compose("train", f"data={data}")
    assert chosen(cfg) == {"pose": "native", "augment": "ntu3d"}
    assert (cfg.clip.skeleton, cfg.clip.frames, cfg.clip.persons) == (None, 120, 2)
    assert cfg.clip.center in SKELETONS["ntu25"].joints
    assert cfg.augment.coordinates == "metres"


@pytest.mark.parametrize("data", FLAT + DEEP)
def test_sets_differ_in_their_file_and_splits(data):
    cfg = compose("train", f"data={data}", "paths.data=folder")
    name, protocol = [*data.split("_"), ""][:2]
    assert cfg.data.path == f"folder/{name}{'_3d' if data.endswith('_3d') else ''}.h5"
    splits = [cfg.data.train_split, cfg.data.test_split]
    assert splits == ([f"{protocol}_train", f"{protocol}_val"] if protocol else ["train", "val"])
    if protocol:
        assert set(splits) < set(PUBLISHED[f"NTU RGB+D {name.removeprefix('ntu')}"])
    assert (cfg.data.frames, cfg.data.persons) == (cfg.clip.frames, cfg.clip.persons)


@pytest.mark.parametrize("data", ["ntu60_xsub", "ntu120_xset_3d"])
def test_what_is_typed_wins(data):
    typed = ["pose=h36m17", "augment=none", "clip.frames=64", "clip.center=root", "data.path=x.h5"]
    for overrides in ([f"data={data}", *typed], [*typed, f"data={data}"]):
        cfg = compose("train", *overrides)
        assert chosen(cfg) == {"pose": "h36m17", "augment": "none"}
        assert (cfg.clip.frames, cfg.clip.center, cfg.data.path) == (64, "root", "x.h5")
    cfg = compose("train", f"data={data}", "pose=native", "augment=motionbert")
    assert chosen(cfg) == {"pose": "native", "augment": "motionbert"}
    assert cfg.clip.skeleton is None


@pytest.mark.parametrize("data", FLAT + DEEP)
def test_the_way_to_the_file_can_be_typed(data):
    cfg = compose("train", f"data={data}", "data.path=here/set.h5")
    assert "https://" in cfg.download
    found = commands(cfg.download, "prepare")
    assert len(found) == (2 if data.endswith("_3d") else 1)
    for arguments in found:
        prepare = compose("prepare", *arguments)
        assert prepare.output == "here/set.h5"
        assert prepare.class_names == data.split("_")[0]
        assert prepare.class_names in CLASS_NAMES
        assert prepare.skeleton == ("ntu25" if data.endswith("_3d") else "coco17")
        assert callable(hydra.utils.get_object(prepare.source._target_))


@pytest.mark.parametrize("data", [name for name in FLAT + DEEP if name.startswith("ntu60")])
def test_the_larger_set_serves_the_smaller_one(data):
    cfg = compose("train", f"data={data}")
    (line,) = re.findall(r"a store of NTU RGB\+D 120 holds it too: (.*)\)", cfg.download)
    cfg = compose("train", *line.split())
    assert cfg.data.path.endswith("ntu120_3d.h5" if data.endswith("_3d") else "ntu120.h5")
    assert {cfg.data.train_split, cfg.data.test_split} < set(PUBLISHED["NTU RGB+D 120"])
