"""A configuration that a folder or checkpoint brings makes only what is on the list."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from maskclr_pl.config.trust import refuse_untrusted, trusted_packages
from maskclr_pl.tracking.loggers import run_loggers
from maskclr_pl.training.resume import resume_config
from maskclr_pl.types import InputError
from tests.end_to_end.test_recipes import compose
from tests.helpers.recipe_tools import kind_of_store, save, start

PATH = Path("config.yaml")
CALLS = {
    "torch.load": {"_target_": "torch.load", "f": "evil.pkl", "weights_only": False},
    "numpy.load": {"_target_": "numpy.load", "file": "evil.pkl", "allow_pickle": True},
    "builtins.open": {"_target_": "builtins.open", "file": "notes.txt", "mode": "w"},
    "a function of ours": {
        "_target_": "maskclr_pl.backbones.weight_files.read_weights",
        "path": "x",
    },
    "through ours": {"_target_": "maskclr_pl.data.store.reader.os.system", "command": "touch ran"},
    "a class of a library": {"_target_": "lightning.pytorch.cli.LightningCLI"},
    "no name": {"_target_": ["os.system"]},
}
PLACES = ("callbacks.mine", "masking.strategy", "trainer.plugins.0", "source", "logger.csv.name")


WHOLE = ["clip.joints=17", "clip.classes=2", "data.path=a.h5"]
"""What follows from the data of a run."""


def put(config: dict[str, Any], place: str, value: Any) -> None:
    """Place a value; digits are an index of a new list."""
    *path, last = place.split(".")
    for name in path:
        if last.isdigit() and name == path[-1]:
            config[name] = [value]
            return
        config = config.setdefault(name, {})
    config[last] = value


@pytest.fixture(scope="module")
def composed() -> Any:
    return compose(*WHOLE)


@pytest.fixture
def run(composed: Any, tmp_path: Path) -> dict[str, Any]:
    """The settings of a run folder `run`, to be changed and written."""
    (tmp_path / "run").mkdir()
    config = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(config, dict)
    return config  # type: ignore[return-value]  # names are texts


def resumed(config: Any, composed: Any, folder: Path) -> Any:
    (folder / "run/config.yaml").write_text(yaml.safe_dump(config))
    return resume_config(folder / "run", composed, [])[0]


@pytest.mark.parametrize("place", PLACES)
def test_a_run_that_is_continued_makes_no_other_class(place, run, composed, tmp_path) -> None:
    """The kind: `train resume=` made whatever config.yaml named, at any depth."""
    put(run, place, CALLS["torch.load"])
    with pytest.raises(InputError, match=r"asks for torch\.load, which is not trusted"):
        resumed(run, composed, tmp_path)


@pytest.mark.parametrize("call", CALLS)
def test_only_classes_of_the_list_are_made(call: str) -> None:
    trusted = trusted_packages((), whole_run=True)
    with pytest.raises(InputError, match=r"not trusted; .*trusted=\["):
        refuse_untrusted({"a": [{"b": CALLS[call]}]}, PATH, trusted)


def test_an_untouched_run_is_continued(run, composed, tmp_path) -> None:
    run["callbacks"]["swa"] = {"_target_": "lightning.pytorch.callbacks.LearningRateMonitor"}
    assert resumed(run, composed, tmp_path).callbacks.swa._target_.endswith("Monitor")


@pytest.mark.parametrize("group", ["trainer", "callbacks.checkpoint", "data"])
def test_run_without_a_class_is_refused(run, composed, tmp_path, group) -> None:
    del OmegaConf.select(settings := OmegaConf.create(run), group)["_target_"]
    with pytest.raises(InputError, match=rf"config.yaml: {group}._target_ is missing, expected"):
        resumed(OmegaConf.to_container(settings), composed, tmp_path)


def test_own_classes_are_the_users_to_name(run, tmp_path, monkeypatch) -> None:
    """The folder alone does not bring them; the command line does, by their name or trusted=."""
    (tmp_path / "my_parts.py").write_text(
        "import lightning as L\n\n\nclass Mine(L.Callback):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = "callbacks.mine._target_=my_parts.Mine"
    put(run, "callbacks.mine", {"_target_": "my_parts.Mine"})
    run["trusted"] = ["my_parts"]  # what the folder trusts does not count
    with pytest.raises(InputError, match=r"my_parts\.Mine.*pass trusted=\[my_parts\]"):
        resumed(run, compose(*WHOLE), tmp_path)
    for words in ([f"+{mine}"], ["trusted=[my_parts]"]):
        cfg = resumed(run, compose(*WHOLE, *words), tmp_path)
        assert cfg.callbacks.mine._target_ == "my_parts.Mine"
    assert resumed(run, compose(*WHOLE, f"+{mine}"), tmp_path).trusted == []


def test_loggers_of_a_run_are_three(tmp_path) -> None:
    """The kind: evaluate log=true looked at the outer class alone."""
    nested = {"_target_": "lightning.pytorch.loggers.CSVLogger", "prefix": CALLS["torch.load"]}
    abroad = {"_target_": "lightning.pytorch.loggers.WandbLogger", "settings": {"base_url": "x"}}
    other = {"_target_": "lightning.pytorch.loggers.MLFlowLogger", "tracking_uri": "x"}
    for node, message in (
        (nested, "asks for torch.load"),
        (abroad, "the argument settings, which is not trusted"),
        (other, "asks for lightning.pytorch.loggers.MLFlowLogger"),
    ):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"logger": {"mine": node}}))
        with pytest.raises(InputError, match=message):
            run_loggers(tmp_path)


def test_a_start_takes_over_no_other_class(tmp_path) -> None:
    """The kind: single keys that `init_from` takes over could be nodes, which were made."""
    store = kind_of_store(tmp_path, "coco17")
    tiny = ["backbone=dstformer_tiny", "backbone.dim=16", "backbone.depth=1", "clip.frames=8"]
    data = ["data=custom", f"data.path={store}"]
    data += ["data.train_split=toy_train", "data.test_split=toy_test"]
    words = [*tiny, *data, "head=action_small", "loss=ce", "masking=none"]
    path = save(start(*words), tmp_path / "origin.ckpt")
    for place in ("clip.frames", "method.persons", "augment.view"):
        content = torch.load(path, weights_only=True)
        put(content["maskclr_pl"]["config"], place, CALLS["builtins.open"])
        torch.save(content, tmp_path / "forged.ckpt")
        with pytest.raises(InputError, match=r"asks for builtins\.open, which is not trusted"):
            start(*words, f"init_from={tmp_path / 'forged.ckpt'}")


def test_settings_made_to_fill_the_memory_are_refused() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    wide: Any = ["lol"] * 9
    for _ in range(9):
        wide = [wide] * 9
    loop: dict[str, Any] = {}
    loop["a"] = loop
    for config in (deep, wide, loop):
        with pytest.raises(InputError, match="nested more than"):
            refuse_untrusted(config, PATH, trusted_packages(()))


def test_references_are_refused() -> None:
    """A value is looked at where it stands: a reference could stand for anything."""
    with pytest.raises(InputError, match="holds the reference"):
        refuse_untrusted({"a": [{"b": "${oc.env:HOME}"}]}, PATH, trusted_packages(["os"]))
