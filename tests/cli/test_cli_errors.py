"""Typical mistakes: one line that says what was found and what to type, and nothing left behind."""

import importlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from maskclr_pl.checkpoint.load import run_metadata
from maskclr_pl.cli import log
from maskclr_pl.config.build import build_method
from maskclr_pl.config.container import to_container
from maskclr_pl.config.paths import config_dir
from maskclr_pl.config.resolve import fill_sizes, open_store
from maskclr_pl.data import write_store
from maskclr_pl.sources.synthetic import ACTIONS, SKELETON, SyntheticSource


class Payload:
    """Pickles to a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def base(world):
    return [
        "data=custom",
        f"data.path={world / 'store.h5'}",
        "data.train_split=train",
        "data.test_split=test",
        "data.num_workers=0",
        "clip.frames=8",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store, a run folder with a checkpoint, and files that are neither."""
    folder = tmp_path_factory.mktemp("world")
    source = SyntheticSource(clips=48, subjects=3, frames=(8, 10))
    names = [action.name for action in ACTIONS]
    write_store(
        folder / "store.h5", source, skeleton=SKELETON, splits=source.splits, class_names=names
    )
    item = {
        "frame_dir": "a",
        "label": 0,
        "img_shape": (9, 9),
        "keypoint": np.ones((1, 2, 17, 2), np.float16),
        "keypoint_score": np.ones((1, 2, 17), np.float16),
    }
    (folder / "data.pkl").write_bytes(pickle.dumps([item]))
    (folder / "names.txt").write_text("\n")
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", base(folder))
    store = open_store(cfg)
    fill_sizes(cfg, store)
    method = build_method(cfg, store.skeleton)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    content = {
        "state_dict": method.state_dict(),
        "maskclr_pl": run_metadata(to_container(cfg), store.skeleton, store.class_names),
    }
    torch.save(content, run / "checkpoints" / "best.ckpt")
    torch.save({"state_dict": {}}, folder / "foreign.ckpt")
    torch.save(torch.zeros(3), folder / "tensor.ckpt")
    (folder / "text.ckpt").write_text("no checkpoint")
    (folder / "empty.ckpt").write_bytes(b"")
    torch.save({"state_dict": Payload(f"touch {folder / 'ran'}")}, folder / "evil.ckpt")
    (folder / "evil.pkl").write_bytes(pickle.dumps([Payload(f"touch {folder / 'ran'}")]))
    (folder / "half").mkdir()
    (folder / "half" / "metrics.json").write_text("{")
    (folder / "untested").mkdir()
    (folder / "untested" / "metrics.json").write_text("{}")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, and the process as it was."""
    monkeypatch.chdir(tmp_path)
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    handlers, propagate = list(log.handlers), log.propagate
    GlobalHydra.instance().clear()
    yield tmp_path
    GlobalHydra.instance().clear()
    signal.signal(signal.SIGTERM, handler)
    log.handlers, log.propagate = handlers, propagate
    os.environ.clear()
    os.environ.update(environment)


def files(*folders):
    return {
        path: path.stat().st_mtime_ns
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() or path.is_dir()
    }


@pytest.fixture
def fail(here, world, monkeypatch, capsys):
    """Run a command in this process; returns its one line on stderr."""

    def run(verb, *arguments):
        command = importlib.import_module(f"maskclr_pl.{verb}").main
        arguments = [argument.replace("WORLD", str(world)) for argument in arguments]
        monkeypatch.setattr(sys, "argv", [f"maskclr_pl.{verb}", *arguments])
        before = files(here, world)
        with pytest.raises(SystemExit) as caught:
            command()
        assert caught.value.code not in (0, None)
        out, err = capsys.readouterr()
        assert len(err.splitlines()) == 1, err
        assert err.startswith("error: ")
        assert "Traceback" not in out + err
        left = {str(path) for path in files(here, world).keys() - before.keys()}
        assert not left, f"left behind: {sorted(left)}"
        return err.removeprefix("error: ").strip()

    return run


def train(*changes):
    """The arguments of a run that would work, with changes."""
    keys = {change.partition("=")[0] for change in changes}
    return [*(one for one in base_world if one.partition("=")[0] not in keys), *changes]


class _World:
    def __truediv__(self, name):
        return f"WORLD/{name}"


base_world = base(_World())

MISTAKES = {
    # the command line
    "an option of a group": (
        "train",
        train("loss=masckclr"),
        r"no loss named 'masckclr' \(did you mean maskclr\?\); loss= can be .*\bce\b",
    ),
    "an option unlike any other": ("train", train("backbone=vit"), r"no backbone named 'vit'.*dst"),
    "an unknown group": ("train", train("bakbone=dstformer"), r"bakbone.*did you mean backbone"),
    "an unknown key": (
        "train",
        train("data.batchsize=4"),
        r"data\.batchsize.*did you mean data\.batch_size\?",
    ),
    "a key without its group": (
        "train",
        train("max_epochs=3"),
        r"max_epochs.*did you mean trainer\.max_epochs\?",
    ),
    "an unknown key of a source": (
        "prepare",
        ["source=kinetics", "input=x", "output=y", "source.thresold=3"],
        r"source\.thresold.*did you mean source\.box_threshold\?",
    ),
    "an unknown key of a backbone": (
        "train",
        train("backbone=sttformer", "backbone.bloks=3"),
        r"backbone\.bloks.*did you mean backbone\.blocks\?",
    ),
    "an unknown key of prepare": ("prepare", ["outptu=x.h5"], r"outptu.*did you mean output\?"),
    "no equals sign": ("train", ["synthetic"], r"synthetic"),
    "an unfinished bracket": ("report", ["runs=[a,b"], r"\[a,b"),
    "a config that is not there": ("train", ["--config-name=trian"], r"trian"),
    "a misspelt word": (
        "train",
        train("monitor_split=best"),
        r"monitor_split=best: expected val, last or test",
    ),
    "a key of an earlier version": (
        "train",
        train("select_on=last"),
        r"select_on is now called monitor_split; pass monitor_split=",
    ),
    "a word for a number": ("train", train("data.batch_size=many"), r"data\.batch_size.*many"),
    "a misspelt accelerator": ("train", train("trainer.accelerator=gpuu"), r"trainer.*gpuu"),
    "a strategy that forgets": (
        "train",
        train("trainer.strategy=ddp_spawn", "trainer.devices=2"),
        r"trainer\.strategy=ddp_spawn .*; pass trainer\.strategy=ddp",
    ),
    # values that are missing
    "no data path": ("train", ["data=custom"], r"data\.path is missing; pass data\.path="),
    "no training split": (
        "train",
        [
            *(one for one in base_world if not one.startswith(("data.train_split", "data.test_"))),
            "data.test_split=train",
        ],
        r"no pair of splits with test_split=train .* pass data\.train_split=\.\.\.",
    ),
    "no input": ("prepare", ["output=x.h5"], r"input is missing; pass input="),
    "no skeleton": ("prepare", ["input=x.pkl", "output=x.h5"], r"skeleton is missing; pass skel"),
    "no checkpoint": ("evaluate", [], r"ckpt_path is missing; pass ckpt_path="),
    "no runs": ("report", [], r"runs is missing; pass runs="),
    # data
    "a data file that is not there": (
        "train",
        train("data.path=gone.h5"),
        r"gone\.h5: no such file; create it with `python -m maskclr_pl\.prepare",
    ),
    "a pickle as store": (
        "train",
        train("data.path=WORLD/data.pkl"),
        r"data\.pkl: a pickle, not a store; create one with `.*prepare .*input=.*data\.pkl",
    ),
    "a split that is not there": (
        "train",
        train("data.test_split=xsub_val"),
        r"no split 'xsub_val'; available splits: test, train",
    ),
    "the same split twice": (
        "train",
        train("data.test_split=train"),
        r"splits 'train' and 'train' share \d+ clips",
    ),
    "wrong class count": (
        "train",
        train("clip.classes=60"),
        r"clip\.classes=60, but .*store\.h5 has 8; .*clip\.classes=8",
    ),
    "wrong joint count": (
        "train",
        train("clip.joints=25"),
        r"clip\.joints=25, but .*store\.h5 has 17",
    ),
    "an unknown skeleton": ("train", train("clip.skeleton=h36m"), r"'h36m' \(did you mean h36m17"),
    # settings that do not go together
    "a clip longer than the backbone takes": ("train", train("clip.frames=244"), r"244.*243"),
    "no frames": ("train", train("clip.frames=0"), r"clip\.frames.*0"),
    "no persons": ("train", train("clip.persons=0"), r"clip\.persons.*0"),
    "maskclr without masking": (
        "train",
        train("masking=none"),
        r"masking=none.*loss=ce .*masking=attention",
    ),
    "one clip per batch": (
        "train",
        train("data.batch_size=1"),
        r"batch_size=1: expected .* from 2",
    ),
    "a negative masking ratio": (
        "train",
        train("masking.strategy.ratio=-0.1"),
        r"masking.*ratio.*\[0, 1\].*-0\.1",
    ),
    "a masking ratio in percent": (
        "train",
        train("masking.strategy.ratio=50"),
        r"masking.*ratio.*\[0, 1\].*50",
    ),
    "heads that do not divide the width": ("train", train("backbone.heads=5"), r"48.*heads 5"),
    "more classes per batch than there are": (
        "train",
        train("data.balanced={classes: 20, samples: 2}"),
        r"classes=20.*pass data\.balanced\.classes=8",
    ),
    "several validation shares": (
        "train",
        train("data.val_fraction=1.5"),
        r"val_fraction|0 training",
    ),
    "synchronised statistics": (
        "train",
        train("+trainer.sync_batchnorm=true"),
        r"trainer\.sync_batchnorm=true replaces BatchNorm layers.*leave it out",
    ),
    # runs and checkpoints
    "weights of nothing": (
        "train",
        train("init_from=gone.ckpt"),
        r"gone\.ckpt: no such checkpoint",
    ),
    "weights of a folder": (
        "train",
        train("init_from=WORLD/half"),
        r"half: no checkpoints/best\.ckpt in this folder",
    ),
    "weights of another model": (
        "train",
        train("init_from=WORLD/run", "backbone.dim=32"),
        r"best\.ckpt: its backbone does not fit.*leave out backbone=",
    ),
    "weights of a text": (
        "train",
        train("init_from=WORLD/text.ckpt"),
        r"text\.ckpt: not a readable",
    ),
    "weights of a tensor": ("train", train("init_from=WORLD/tensor.ckpt"), r"tensor\.ckpt"),
    "weights that run code": (
        "train",
        train("init_from=WORLD/evil.ckpt"),
        r"evil\.ckpt: not a rea",
    ),
    "resume of a folder that is no run": (
        "train",
        ["resume=WORLD/half"],
        r"resume=.*half: neither a readable config\.yaml nor a checkpoint in this folder; pass",
    ),
    "resume of nothing": (
        "train",
        ["resume=gone"],
        r"resume=gone: neither a readable",
    ),
    "resume with another part": (
        "train",
        ["resume=WORLD/run", "backbone=dstformer"],
        r"backbone=dstformer: resume= cannot replace parts",
    ),
    "resume with an unknown key": ("train", ["resume=WORLD/run", "sead=1"], r"sead"),
    "a figure that does not exist": (
        "train",
        train("callbacks.figures.names=[atention]"),
        r"no figure named 'atention' \(did you mean attention\?\); expected confusion, per_class,",
    ),
    "figures less than never": (
        "train",
        train("callbacks.figures.every_n_epochs=-1"),
        r"callbacks\.figures\.every_n_epochs=-1: expected 0",
    ),
    "a folder that holds a run": (
        "train",
        train("output_dir=WORLD/run"),
        r"run holds a run already; pass resume=\S+run to continue it, resume=auto",
    ),
    "a run folder that is a file": (
        "train",
        train("output_dir=WORLD/data.pkl"),
        r"data\.pkl: cannot be written \(File exists\); use a writable place",
    ),
    "evaluate nothing": ("evaluate", ["ckpt_path=gone"], r"gone: no such checkpoint; pass the run"),
    "evaluate a folder": ("evaluate", ["ckpt_path=WORLD/half"], r"half: no checkpoints/best\.ckpt"),
    "evaluate another choice": (
        "evaluate",
        ["ckpt_path=WORLD/run", "which=last"],
        r"run: no checkpoints/last\.ckpt",
    ),
    "evaluate a data file": (
        "evaluate",
        ["ckpt_path=WORLD/data.pkl"],
        r"data\.pkl: not a readable",
    ),
    "evaluate a text": ("evaluate", ["ckpt_path=WORLD/text.ckpt"], r"text\.ckpt: not a readable"),
    "evaluate an empty file": ("evaluate", ["ckpt_path=WORLD/empty.ckpt"], r"empty\.ckpt: not a r"),
    "evaluate a tensor": (
        "evaluate",
        ["ckpt_path=WORLD/tensor.ckpt"],
        r"tensor\.ckpt: expected a check",
    ),
    "evaluate foreign weights": (
        "evaluate",
        ["ckpt_path=WORLD/foreign.ckpt"],
        r"foreign\.ckpt: not a checkpoint written by maskclr_pl",
    ),
    "evaluate code": ("evaluate", ["ckpt_path=WORLD/evil.ckpt"], r"evil\.ckpt: not a readable"),
    "evaluate a bare pickle of code": (
        "evaluate",
        ["ckpt_path=WORLD/evil.pkl"],
        r"evil\.pkl: not a readable",
    ),
    "evaluate on data that is gone": (
        "evaluate",
        ["ckpt_path=WORLD/run", "data.path=gone.h5"],
        r"gone\.h5: no such file",
    ),
    "evaluate on another split": (
        "evaluate",
        ["ckpt_path=WORLD/run", "data.test_split=xset"],
        r"no split 'xset'; available splits: test, train",
    ),
    "evaluate on a device": ("evaluate", ["ckpt_path=WORLD/run", "device=tpuu"], r"device.*tpuu"),
    "evaluate an unknown corruption": (
        "evaluate",
        ["ckpt_path=WORLD/run", "corruption=quik"],
        r"no corruption named 'quik' \(did you mean quick\?\)",
    ),
    "evaluate with what the data says": (
        "evaluate",
        ["ckpt_path=WORLD/run", "coordinates=3"],
        r"coordinates=\.\.\. cannot be set",
    ),
    "report on nothing": (
        "report",
        ["runs=[gone]"],
        r"gone: no metrics\.json; pass the run folder",
    ),
    "report without brackets": ("report", ["runs=WORLD/half"], r"runs=\[.*half"),
    "report on half a file": ("report", ["runs=[WORLD/half]"], r"metrics\.json: not JSON"),
    "report on an untested run": ("report", ["runs=[WORLD/untested]"], r"untested.*test/top1"),
    "report with too many labels": (
        "report",
        ["runs=[WORLD/half]", "labels=[a,b]"],
        r"1 runs but 2 labels",
    ),
    # prepare
    "prepare nothing": (
        "prepare",
        ["input=gone.pkl", "output=x.h5", "skeleton=coco17"],
        r"gone\.pkl: no such file",
    ),
    "prepare a store": (
        "prepare",
        ["input=WORLD/store.h5", "output=x.h5", "skeleton=coco17"],
        r"store\.h5: not a pickle",
    ),
    "prepare code": (
        "prepare",
        ["input=WORLD/evil.pkl", "output=x.h5", "skeleton=coco17"],
        r"evil\.pkl: refused, it contains (posix|nt)\.system",
    ),
    "prepare over a file": (
        "prepare",
        ["input=WORLD/data.pkl", "output=WORLD/store.h5", "skeleton=coco17"],
        r"store\.h5 exists already; pass overwrite=true",
    ),
    "prepare with another skeleton": (
        "prepare",
        ["input=WORLD/data.pkl", "output=x.h5", "skeleton=ntu25"],
        r"clip 'a': it has 17 joints, but skeleton ntu25 has 25; pass the skeleton=",
    ),
    "prepare with a misspelt skeleton": (
        "prepare",
        ["input=WORLD/data.pkl", "output=x.h5", "skeleton=coco-17"],
        r"no skeleton named 'coco-17' \(did you mean coco17\?\)",
    ),
    "prepare with too few names": (
        "prepare",
        ["input=WORLD/data.pkl", "output=x.h5", "skeleton=coco17", "class_names=WORLD/names.txt"],
        r"clip 'a': its label 0 is out of range of 0 class names",
    ),
    "prepare into a new folder": (
        "prepare",
        ["input=WORLD/data.pkl", "output=new/deep/x.h5", "skeleton=ntu25"],
        r"17 joints",
    ),
    "prepare with an unknown source": (
        "prepare",
        ["source=pyskll", "input=x", "output=y", "skeleton=coco17"],
        r"no source named 'pyskll' \(did you mean pyskl\?\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(fail, world, mistake):
    verb, arguments, message = MISTAKES[mistake]
    line = fail(verb, *arguments)
    assert re.search(message, line), line
    assert not (world / "ran").exists()


def test_the_arguments_that_are_changed_would_work(here, world, monkeypatch, capsys):
    """Otherwise the mistakes above could all be the same one."""
    arguments = [one.replace("WORLD", str(world)) for one in base_world]
    fast = ["debug=fast", "trainer.limit_test_batches=1", "head=action_small"]
    monkeypatch.setattr(sys, "argv", ["train", *arguments, *fast, "output_dir=out"])
    importlib.import_module("maskclr_pl.train").main()
    out, err = capsys.readouterr()
    assert "error" not in err
    assert out.splitlines()[-1] == "out"
    assert "test/top1" in json.loads((here / "out" / "metrics.json").read_text())


# --- checkpoints that name code -------------------------------------------------------------------


ESCAPES = {
    "a function": ("backbone", "os.system", "os.system"),
    "a class of the library": ("backbone", "subprocess.Popen", "subprocess.Popen"),
    "a module of ours that imports it": (
        "backbone",
        "maskclr_pl.data.store.writer.os.system",
        r"maskclr_pl\.data\.store\.writer\.os\.system",
    ),
    "a class through a module of ours": (
        "head",
        "maskclr_pl.cli.entry_point.logging.FileHandler",
        "FileHandler",
    ),
    "a class through torch": ("optim", "torch.nn.modules.module.OrderedDict", "OrderedDict"),
    "a lookalike package": ("method", "maskclr_plus.Method", r"maskclr_plus\.Method"),
    "the loss": ("loss.terms.ce", "os.system", "os.system"),
    "the augmentation": ("augment.augment.crop", "os.system", "os.system"),
    # Hydra itself does not refuse these
    "the data module": ("data", "logging.FileHandler", "FileHandler"),
    "a reference": ("elsewhere", "logging.FileHandler", "FileHandler|elsewhere"),
    "a reference inside": ("elsewhere inside", "logging.FileHandler", "FileHandler|elsewhere"),
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_checkpoint_cannot_name_code(fail, world, tmp_path_factory, escape):
    where, target, message = ESCAPES[escape]
    content = torch.load(world / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    config = content["maskclr_pl"]["config"]
    folder = tmp_path_factory.mktemp("forged")
    marker = folder / "ran"
    keyword = {"FileHandler": "filename", "Popen": "args"}.get(target.split(".")[-1], "command")
    payload = str(marker) if keyword == "filename" else f"touch {marker}"
    call = {"_target_": target, keyword: payload}
    if target == "subprocess.Popen":
        call["shell"] = True
    if where == "elsewhere":
        config["elsewhere"], config["backbone"] = call, "${elsewhere}"
    elif where == "elsewhere inside":
        config["elsewhere"], config["backbone"]["importance"] = call, "${elsewhere}"
    else:
        node, *rest = where.split(".")
        parent, key = config, node
        for name in rest:
            parent, key = parent[key], int(name) if name.isdigit() else name
        parent[key] = {**call, "coordinates": "pixels"} if where == "augment" else call
    torch.save(content, folder / "forged.ckpt")
    try:
        line = fail("evaluate", f"ckpt_path={folder / 'forged.ckpt'}")
        assert re.search(message, line), line
        assert "not trusted" in line
    finally:
        assert not marker.exists(), "code from the checkpoint was run"


def forged(world, path, **entries):
    """The checkpoint of the run with other entries, `a__b=...` for one inside of `a`."""
    content = torch.load(world / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    for entry, value in entries.items():
        *groups, key = entry.split("__")
        node = content
        for group in groups:
            node = node[group]
        if value is LOST:
            del node[key]
        else:
            node[key] = value
    torch.save(content, path)
    return path


LOST = object()
NO_WEIGHTS = {
    "a number": (5, "its state_dict is a int, expected weights"),
    "nothing": (None, "its state_dict is a NoneType"),
    "a list": ([torch.zeros(1)], "its state_dict is a list"),
    "lost": (LOST, r"not a checkpoint.*pass backbone\.weights="),
    "numbers": (
        {"backbone.a": 5},
        r"'backbone\.a' in its state_dict is not a dense tensor \(int\)",
    ),
    "numbers for names": ({5: torch.zeros(1)}, "5 in its state_dict is not a dense tensor"),
    "a sparse tensor": ({"head.a": torch.eye(2).to_sparse()}, "'head.a' in its state_dict is no"),
    "empty": ({}, "does not fit|do not form a model"),
    "another shape": ({"backbone.a": torch.zeros(1)}, "does not fit|do not form a model"),
}


@pytest.mark.parametrize("verb", ["train", "evaluate"])
@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_a_checkpoint_without_weights(fail, world, tmp_path_factory, case, verb):
    state, message = NO_WEIGHTS[case]
    path = forged(world, tmp_path_factory.mktemp("forged") / "a.ckpt", state_dict=state)
    arguments = train(f"init_from={path}") if verb == "train" else [f"ckpt_path={path}"]
    line = fail(verb, *arguments)
    assert re.search(message, line), line
    assert str(path) in line


OURS = "maskclr_pl"
NO_METADATA = [
    {OURS: 5},
    {OURS: [1]},
    {OURS: {"config": {}}},
    *({f"{OURS}__{key}": value} for key in ("config", "source_skeleton", "class_names")
      for value in (LOST, 5)),
    *({f"{OURS}__config__{key}": value} for key in ("method", "backbone", "augment", "optim",
      "clip", "data", "head", "loss") for value in (LOST, 5)),
    {f"{OURS}__config__data__path": LOST},
    {f"{OURS}__config__data__path": 5},
    {f"{OURS}__config__augment__preprocess": 5},
    {f"{OURS}__config__augment__coordinates": LOST},
    {f"{OURS}__config__backbone__dim": "wide"},
    {f"{OURS}__config__clip__skeleton": 5},
    {f"{OURS}__source_skeleton__parents": ["root"]},
    {f"{OURS}__source_skeleton__joints": []},
]  # fmt: skip


@pytest.mark.parametrize("entries", NO_METADATA, ids=lambda entries: " ".join(entries))
def test_a_checkpoint_with_damaged_settings(fail, world, tmp_path_factory, entries):
    path = forged(world, tmp_path_factory.mktemp("forged") / "a.ckpt", **entries)
    assert len(fail("evaluate", f"ckpt_path={path}")) > 20


def test_a_checkpoint_of_a_class_that_is_gone(fail, world, tmp_path_factory):
    content = torch.load(world / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    content["maskclr_pl"]["config"]["backbone"]["_target_"] = "maskclr_pl.backbones.Gone"
    path = tmp_path_factory.mktemp("gone") / "gone.ckpt"
    torch.save(content, path)
    assert "maskclr_pl.backbones.Gone" in fail("evaluate", f"ckpt_path={path}")


# --- the real command ----------------------------------------------------------------------------


@pytest.mark.recipes
def test_the_real_command_says_the_same(tmp_path):
    command = [sys.executable, "-m", "maskclr_pl.evaluate", "ckpt_path=gone"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "gone: no such checkpoint" in done.stderr
    assert list(tmp_path.iterdir()) == []
