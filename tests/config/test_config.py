import re

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from maskclr_pl.config.build import build_method
from maskclr_pl.config.paths import config_dir
from maskclr_pl.methods import Method
from maskclr_pl.skeletons.skeleton import SKELETONS

CONF = config_dir()
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
COMMANDS = [path.stem for path in FILES if len(path.parts) == 1]
OPTIONS = [(path.parent.as_posix(), path.stem) for path in FILES if len(path.parts) == 2]
OPTIONS = [(group, option) for group, option in OPTIONS if group != "base"]  # shared, not chosen

# what a bare configuration cannot know
GIVEN = {
    "train": ["++data.path=s.h5", "++data.train_split=train", "++data.test_split=test"],
    "evaluate": ["ckpt_path=run"],
    "prepare": ["input=x.pkl", "output=x.h5", "skeleton=coco17"],
    "report": ["runs=[a,b]"],
    "predict": ["ckpt_path=run", "input=poses"],
    "export": ["ckpt_path=run"],
    "embed": ["ckpt_path=run"],
}
SIZES = ["clip.joints=17", "clip.channels=3", "clip.classes=8", "clip.parts=[[0,1],[2,3]]"]
SIZES += ["clip.pairs=[[5,6]]", "clip.root=0", "clip.center=0", "clip.shoulders=[5,6]"]
GIVEN["train"] += SIZES


@pytest.fixture(autouse=True)
def no_hydra():
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


def compose(command, *overrides):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(command, [*GIVEN.get(command, []), *overrides])


def command_of(group):
    """The command that has the group: the one that names it in its defaults, else train."""
    for command in COMMANDS:
        if command != "train" and re.search(
            rf"^  - {group}: ", (CONF / f"{command}.yaml").read_text(), re.M
        ):
            return command
    return "train"


def targets(node):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from targets(child)


def plain(cfg):
    values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    values.pop("hydra", None)
    return values


def test_the_tree_is_found():
    assert (CONF / "train.yaml").is_file()
    assert {"train", "evaluate", "prepare", "report"} <= set(COMMANDS)
    assert {"data", "backbone", "method", "loss", "masking"} <= {group for group, _ in OPTIONS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command):
    values = plain(compose(command))
    for target in targets(values):
        assert callable(hydra.utils.get_object(target)), target


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_module(command):
    assert (CONF.parent / "src" / "maskclr_pl" / f"{command}.py").is_file() or (
        CONF.parent / f"{command}.py"
    ).is_file()


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda part: part)
def test_every_option_composes(group, option):
    more = ["source.labels=labels.csv"] if (group, option) == ("source", "poses") else []
    more += ["method=mamp"] if group == "decoder" else []
    values = plain(compose(command_of(group), f"{group}={option}", *more))
    for target in targets(values):
        assert callable(hydra.utils.get_object(target)), target


# the groups whose parts are made without data, and the node of the configuration they fill
NODES = {"optim": "optim", "callbacks": "callbacks", "masking": "masking", "loss": "loss"}
MADE = [(group, option) for group, option in OPTIONS if group in NODES]


@pytest.mark.parametrize(("group", "option"), MADE, ids=lambda part: part)
def test_every_part_can_be_made(group, option):
    node = compose("train", f"{group}={option}")[NODES[group]]
    if "_target_" in node:
        assert hydra.utils.instantiate(node, _convert_="all") is not None
    else:
        for name, part in node.items():
            where = {"dirpath": "checkpoints"} if name == "checkpoint" else {}  # of the run
            assert hydra.utils.instantiate(part, **where, _convert_="all") is not None, name


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "logger"])
def test_every_logger_can_be_made(tmp_path, monkeypatch, option):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    cfg = compose("train", f"logger={option}")
    for node in cfg.logger.values():
        logger = hydra.utils.instantiate(node, save_dir=str(tmp_path))
        assert hasattr(logger, "log_metrics")


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "corruption"])
def test_every_corruption_can_be_made(option):
    cfg = compose("evaluate", f"corruption={option}")
    for name, node in cfg.corruption.items():
        corruption = hydra.utils.instantiate(node)
        assert corruption.levels
        assert corruption.name == name


PARTS = {"backbone", "head", "augment", "pose", "method", "data"}
DECODED = {"transformer": "transformer", "sttformer": "sttformer", "linear": "dstformer_tiny"}


@pytest.mark.parametrize(
    ("group", "option"), [(g, o) for g, o in OPTIONS if g in PARTS], ids=lambda part: part
)
def test_every_part_of_a_method_builds_one(group, option):
    small = ["++backbone.depth=1", "++backbone.dim=32", "++backbone.heads=2"]
    changes = [] if group in ("backbone", "head") else small
    if group == "method":
        changes = ["augment=aimclr_2d"]  # with all views that a method may ask for
    elif group != "head":
        changes += ["++head.hidden=8"]
    if group == "backbone" and option.startswith("dstformer_"):
        changes = ["++backbone.depth=1"]  # the full ones only cost time
    cfg = compose("train", f"{group}={option}", *changes)
    if group not in ("backbone", "head") and "hidden" in cfg.get("head", {}):
        cfg.head.hidden = 8
    method = build_method(cfg, SKELETONS["coco17"])
    assert isinstance(method, Method)
    assert sum(parameter.numel() for parameter in method.parameters()) > 0


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "decoder"])
def test_every_decoder_goes_with_a_backbone(option):
    cfg = compose("train", "method=mamp", f"decoder={option}", f"backbone={DECODED[option]}")
    assert isinstance(build_method(cfg, SKELETONS["coco17"]), Method)


def test_a_wrong_option_and_a_wrong_key_do_not_compose():
    for wrong in ("backbone=none_such", "backbone.none_such=1", "none_such=1"):
        with pytest.raises(hydra.errors.HydraException):
            compose("train", wrong)
