"""Every `experiment=`: as published on NTU RGB+D, and on any store, in small."""

import csv
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from maskclr_pl.config.paths import config_dir
from maskclr_pl.config.resolve import fill_val_fraction
from maskclr_pl.methods import OneShot
from maskclr_pl.runs.read import read_metrics
from tests.helpers.commands import in_process, refused
from tests.helpers.recipe_tools import kind_of_store, one_step, save, start

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared/data"
RECIPES = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))
LAYOUTS = ["coco17", "ntu25"]
TUNED = [name for name in RECIPES if not name.startswith(("finetune", "linear"))]
DERIVED = ("finetune", "maskclr", "skeletonmae_transformer", "demo")
BASES = [name for name in RECIPES if not name.startswith(DERIVED)]
"""Recipes that say themselves what clips they need."""
PAIRS = [
    (name, layout)
    for name in TUNED
    for layout in LAYOUTS
    if name in BASES or layout == ("coco17" if name.endswith(("dstformer", "demo")) else "ntu25")
]
"""Every recipe on its own kind of data, those that say what they need on the other kind too."""
PRETRAINED = {"aimclr", "crossclr", "lift", "mamp", "skeletonmae", "maskclr"}
INTENDED = {
    ("aimclr_sttformer", "method.mining_epoch"): ("150", "0.5"),
    ("crossclr_sttformer", "method.cross_epoch"): ("150", "0.5"),
    ("maskclr_dstformer", "masking.start_epoch"): ("300", "0.5"),
}
"""(recipe, key): before and now; the same share of the epochs that the recipe has."""


def compose(*words):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return hydra.compose("train", list(words))


def shown(cfg, key):
    value = OmegaConf.select(cfg, key)
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return "" if value is None else str(value).rsplit("maskclr_pl.", 1)[-1]


@pytest.fixture(scope="module")
def published():
    """Recipe -> {key: value}, as version 15b7e28 composed them."""
    with (ROOT / "tests/reference/recipes.csv").open() as file:
        return {row.pop("experiment"): row for row in csv.DictReader(file)}


def test_recipes_are_those_of_the_release(published):
    assert published.keys() <= set(RECIPES)
    changed = {}
    for name, row in published.items():
        cfg = compose(f"experiment={name}")
        fill_val_fraction(cfg)
        changed |= {
            (name, key): (value, shown(cfg, key))
            for key, value in row.items()
            if value != shown(cfg, key)
        }
    assert changed == INTENDED


@pytest.mark.parametrize("recipe", BASES)
def test_data_does_not_take_from_a_recipe(published, recipe):
    """The kind "settings that get lost": clip length and joints are the recipe's on other data."""
    custom = compose(f"experiment={recipe}", "data=custom")
    for key in ("clip.frames", "clip.persons", "clip.skeleton", "data.batch_size", "backbone.dim"):
        assert shown(custom, key) == published[recipe][key], key


def test_values_that_are_passed_stand_over_a_size():
    tiny = ["experiment=mamp_transformer", "size=tiny"]
    sizes = {"clip.frames": 24, "data.batch_size": 32, "backbone.dim": 48}
    sizes |= {"method.decoder.width": 48}
    for passed in ({}, {"clip.frames": 36, "data.batch_size": 5, "backbone.dim": 8}):
        cfg = compose(*tiny, *(f"{key}={value}" for key, value in passed.items()))
        assert {key: OmegaConf.select(cfg, key) for key in sizes} == {**sizes, **passed}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return {layout: kind_of_store(folder, layout) for layout in LAYOUTS}


def tiny(recipe, store):
    own = ["data=custom", f"data.path={store}", "size=tiny", "clip.frames=12"]
    return [f"experiment={recipe}", *own, "data.num_workers=0", "data.batch_size=8"]


@pytest.mark.parametrize(("recipe", "layout"), PAIRS)
def test_every_recipe_runs_on_any_store(tmp_path, stores, recipe, layout):
    """The kind "recipe x data": as typed, on 2D and on 3D data, and fine-tuned with nothing else.

    On 15b7e28 the 3D rows end in the advice to pass augment=ntu3d, and fine-tuning in a backbone
    that does not fit.
    """
    run = start(*tiny(recipe, stores[layout]))
    assert run.cfg.augment.coordinates == run.store.coordinates
    assert run.cfg.data.train_split == "toy_train"
    skeleton = "h36m17" if "dstformer" in recipe else layout
    assert run.method.skeleton.name == skeleton
    data = one_step(run, tmp_path)
    if isinstance(run.method, OneShot):
        assert len(data.exemplars) == 1
    family, _, backbone = recipe.partition("_")
    if family not in PRETRAINED or (recipe in BASES and layout == "coco17"):
        return
    origin = save(run, tmp_path / "run.ckpt")
    tuned = start(f"experiment=finetune_{backbone}", f"init_from={origin}", "data.num_workers=0")
    assert tuned.parts[0] in ("backbone", "backbones.joint")
    for key in ("clip", "backbone.blocks", "backbone.dim", "data.path", "data.train_split"):
        assert OmegaConf.select(tuned.cfg, key) == OmegaConf.select(run.cfg, key), key
    one_step(tuned, tmp_path)


@pytest.mark.recipes
@pytest.mark.skipif(not (REAL / "gtu3d").is_dir(), reason="real data not here")
@pytest.mark.parametrize("recipe", TUNED)
@pytest.mark.parametrize("data", ["gtu3d", "custom16_hrnet"])
def test_every_recipe_on_real_data(tmp_path_factory, capsys, data, recipe):
    """One epoch of the command as typed, and the fine-tuning of the run with nothing else."""
    folder = tmp_path_factory.getbasetemp() / data
    folder.mkdir(exist_ok=True)
    skeleton = "ntu25" if data == "gtu3d" else "coco17"
    if not (folder / "store.h5").exists():
        words = ["source=pyskl", f"input={REAL / data / data}.pkl", "output=store.h5"]
        in_process("prepare", *words, f"skeleton={skeleton}", cwd=folder, capsys=capsys)
    own = ["data=custom", "data.path=store.h5", "size=tiny", "trainer.max_epochs=1"]
    own += ["masking.start_epoch=0"] if recipe.startswith(("maskclr", "demo")) else []
    in_process(
        "train", f"experiment={recipe}", *own, f"output_dir={recipe}", cwd=folder, capsys=capsys
    )
    backbone = "dstformer" if recipe == "demo" else recipe.split("_")[1]
    words = [f"experiment=finetune_{backbone}", f"init_from={recipe}", "trainer.max_epochs=1"]
    out = f"output_dir={recipe}_tuned"
    if recipe.startswith("oneshot"):  # it has seen the labels of clips that would be held out
        assert "pass monitor_split=last" in refused("train", *words, cwd=folder, capsys=capsys)
        words.append("monitor_split=last")
    printed = in_process("train", *words, out, cwd=folder, capsys=capsys)
    assert "inherited settings: backbone, clip, data" in printed
    assert "test/top1" in read_metrics(folder / f"{recipe}_tuned")
