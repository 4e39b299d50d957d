"""Values of a wrong type, in any key of any command, end in one line before anything is made."""

import importlib
import itertools
import random
import re
import sys
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from maskclr_pl.cli import check_values
from maskclr_pl.cli.setting_types import SETTINGS
from maskclr_pl.config.paths import config_dir
from maskclr_pl.types import InputError
from tests.helpers.commands import SMALL, in_process, refused

COMMANDS = sorted(path.stem for path in config_dir().glob("*.yaml"))
VALUES = ["abc", "1.5", "-1", "null", "[]", "{}", "true", "nan", "''"]
TOY = [*SMALL, "source.clips=64", "trainer.accelerator=cpu"]


def composed(command: str, *overrides: str) -> Any:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return hydra.compose(command, list(overrides))


def leaves(node: Any, prefix: str = "", own: bool = True) -> list[str]:
    """Keys of values; with `own=False` those of nodes with a `_target_` are left out."""
    if not isinstance(node, dict) or (not own and "_target_" in node):
        return [prefix[:-1]] if not isinstance(node, dict) else []
    keys = [key for key in node if not str(key).startswith("_")]
    return [leaf for key in keys for leaf in leaves(node[key], f"{prefix}{key}.", own)]


WRONG = {
    "seed=abc": "expected a whole number",
    "seed=-1": "expected a whole number from 0",
    "seed=99999999999999": "expected less than 4294967296",
    "trainer.max_epochs=-5x": "expected a whole number or null",
    "trainer.max_epochs=1e1": "expected a whole number or null",
    "output_dir=": "expected text that is not empty",
    "output_dir=5": "expected text or null; for text pass 'output_dir=\"5\"'",
    "compile=1": "expected true or false",
    "optim.lr=abc": "expected a number",
    "optim.lr=nan": "expected a finite number",
    "optim.betas=[0.9,x]": r"optim\.betas\.1=x: expected a number",
    "trainer.precision=foo": "expected .*32-true",
    "masking.strategy=null": "expected settings with a _target_",
    "masking.strategy.ratio=[]": "expected a number",
    "callbacks.figures.names=5": "expected a list",
    "callbacks.checkpoint=null": r"callbacks\.checkpoint=null: expected settings by name",
    "data.balanced={classes: a, samples: 2}": r"data\.balanced\.classes=a: .* whole number",
    "loss.weights.sample=x": r"loss\.weights\.sample=x: expected a number",
    "+callbacks.mine._target_=no.such.Class": "no such class or function",
    "+masking.strategy.rato=0.3": "rato.* no argument rato .did you mean ratio",
}


@pytest.mark.parametrize("override", WRONG)
def test_the_line_names_the_key_and_what_was_expected(override):
    """Kind of mistake: a value of a wrong type was a traceback, or an error far from its key."""
    with pytest.raises(InputError) as caught:
        check_values(composed("train", override))
    assert re.search(WRONG[override], str(caught.value)), caught.value
    assert str(caught.value).startswith(override.lstrip("+").split("=")[0].split("{")[0])


@pytest.mark.parametrize("method", ["method.k=1.5", "method.topk=1.5", "method.queue_size=100.5"])
def test_arguments_of_methods(method):
    """Kind of mistake: a share where a method counts was a traceback at the first step."""
    name = "knn" if method.startswith("method.k=") else "aimclr"
    augment = ["augment=aimclr_2d"] if name == "aimclr" else []
    with pytest.raises(InputError, match=r"expected a whole number$"):
        check_values(composed("train", f"method={name}", *augment, method))


OPTIONS = [
    (group, path.stem)
    for group in ("experiment", "method", "backbone", "loss", "masking", "optim", "data", "logger")
    for path in sorted((config_dir() / group).glob("*.yaml"))
]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_no_option_is_refused(group, option):
    check_values(composed("train", f"{group}={option}"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_has_a_type(command):
    """Kind of mistake: a new key that nobody checks."""
    tree = OmegaConf.to_container(composed(command))
    assert isinstance(tree, dict)
    typed = [key for key in leaves(tree, own=False) if key]
    parents = {".".join(key.split(".")[:n]) for key in SETTINGS for n in range(1, 4)}
    assert [key for key in typed if key not in SETTINGS and key not in parents] == []
    check_values(composed(command))


GROUPS = {
    "experiment=null": "experiment=null: leave experiment= out, or use one of .*demo",
    "data=null": "data=null: use one of custom, ",
    "~data": "~data: use one of custom, ",
    "method=5": "method=5: use one of aimclr, ",
    "optim={}": r"optim=\{\}: use one of adamw, ",
    "logger=null": "logger=null: use one of csv, ",
    "source=1.5": "source=1.5: leave source= out, or use one of ",
}


@pytest.mark.parametrize("override", GROUPS)
def test_groups_take_names_of_options(override, tmp_path, capsys):
    """Kind of mistake: Hydra raised a bare ValueError for a group without an option."""
    line = refused("train", override, cwd=tmp_path, capsys=capsys)
    assert re.match(f"error: {GROUPS[override]}", line), line
    assert not list(tmp_path.iterdir())


def test_a_key_that_nothing_reads_is_noted(tmp_path, capsys):
    """Kind of mistake: a setting with a plus in front and a misspelt name changed nothing."""
    with pytest.raises(AssertionError) as failure:
        in_process("train", "+sede=1", "data.path=gone.h5", "seed=x", cwd=tmp_path, capsys=capsys)
    assert "note: +sede=1: no setting has this name" in str(failure.value)


SUGGESTIONS = {
    "loss.weigths.sample=1": r"did you mean loss\.weights\.sample\?",
    "loss=ce loss.weights.sample=0.3": (
        r"loss=ce has no weights\.sample; loss=maskclr, loss=maskclr_sample have"
    ),
    "masking=random masking.strategy.temperature=1": "masking=attention, .* have",
    "maksing.strategy.ratio=1": r"did you mean masking\.strategy\.ratio\?",
}


@pytest.mark.parametrize("words", SUGGESTIONS)
def test_suggestions(words, tmp_path, capsys):
    """Kind of mistake: the suggestion was another key than the one that was meant."""
    line = refused("train", *words.split(), cwd=tmp_path, capsys=capsys)
    assert re.search(SUGGESTIONS[words], line), line


class BuiltError(Exception):
    """Everything that can be wrong was found."""


def exit_code(command: str) -> object:
    try:
        importlib.import_module(f"maskclr_pl.{command}").main()
    except BuiltError:
        return "built"
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("command", COMMANDS)
def test_any_value_of_any_key(command, tmp_path, monkeypatch, capsys):
    """Kind of mistake: a traceback for a value that some constructor did not expect.

    A sample of keys and values; training is not started.
    """

    def built(*_: object) -> None:
        raise BuiltError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maskclr_pl.training.run.locked_folder", built)
    # so that the other commands get as far as their values
    (tmp_path / "x").write_text("")
    given = {
        "train": TOY,
        "prepare": ["input=x", "output=y.h5", "skeleton=coco17"],
        "report": ["runs=[x]"],
        "predict": ["ckpt_path=x", "input=x"],
    }.get(command, ["ckpt_path=x"])
    keys = sorted(leaves(OmegaConf.to_container(composed(command, *given))))
    cases = list(itertools.product(keys, VALUES))
    random.Random(0).shuffle(cases)
    for key, value in cases[:8]:
        words = [one for one in given if one.partition("=")[0] != key]
        monkeypatch.setattr(sys, "argv", [command, *words, f"{key}={value}"])
        GlobalHydra.instance().clear()
        code, errors = exit_code(command), capsys.readouterr().err.splitlines()
        lines = [line for line in errors if line.startswith("error: ")]
        assert code in (0, "built") or (code == 2 and errors == lines and len(lines) == 1), (
            *(key, value),
            errors,
        )


def test_numbers_and_lists_that_fit():
    """Whole numbers are numbers, lists are tuples; booleans are neither."""
    fine = ["optim.lr=1", "optim.betas=[0.9,0.99]", "trainer.devices=[0]", "trainer.precision=32"]
    check_values(composed("train", *fine))
    with pytest.raises(InputError, match=r"optim\.lr=true: expected a number$"):
        check_values(composed("train", "optim.lr=true"))
    # the kind: the element that does not fit is one that is not there
    with pytest.raises(InputError, match=r"clip\.pairs\.0=\[1\]: expected"):
        check_values(composed("train", "clip.pairs=[[1]]"))
