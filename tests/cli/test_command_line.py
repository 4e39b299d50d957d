"""Lines that can be pasted: by way of a shell, Hydra and OmegaConf back to the same value."""

import shlex
import shutil
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from maskclr_pl.command_line import hydra_value, override, shell_command
from maskclr_pl.reporting.accuracy import format_accuracy
from maskclr_pl.training import summary
from tests.helpers.commands import shell_line

PARSER = OverridesParser.create()
TEXTS = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1
) | st.text("ab1 =,[]{}()'\"\\$:#%@+-./~*?|!&;<>é", min_size=1)


def read(word: str) -> object:
    """The value that a command gets from a word of a shell line."""
    [split] = shlex.split(word)
    parsed = PARSER.parse_override(split)
    values = OmegaConf.to_container(OmegaConf.create({"key": parsed.value()}), resolve=True)
    assert isinstance(values, dict)
    return values["key"]


@given(TEXTS)
@example("runs/lr=0.1, b=[1]")
@example('it\'s "mine"')
@example("back\\")
@example('back\\"')
@example("${seed}")
@example("\\${seed}")
@example("1e5")
@example("null")
@example("2026")
@example(" a ")
@example("Läufe/1")
def test_a_path_comes_back(text):
    """Kind of mistake: a printed line whose path Hydra reads as something else."""
    assert read(override("resume", text)) == text


@given(st.lists(TEXTS))
def test_a_list_of_paths_comes_back(texts):
    assert read(override("runs", texts)) == texts


def test_plain_paths_stay_plain():
    line = shell_command("train", "data=custom", data__path="data/own-2.h5", init_from="/a/b_c.d")
    expected = "python -m maskclr_pl.train data=custom data.path=data/own-2.h5 init_from=/a/b_c.d"
    assert line == expected


@pytest.mark.parametrize("text", ["a b", "a=b", "[a]", "x,y"])
def test_quoted_for_hydra(text):
    assert hydra_value(text) == f'"{text}"'


def test_the_printed_line_runs(toy_run, tmp_path, capsys, monkeypatch):
    """Kind of mistake: the line after a training cannot be pasted if the path has odd characters.

    The set has two classes, of which top-5 means nothing.
    """
    folder = Path("my run=1 [a],b 'c'")
    shutil.copytree(toy_run / "run", tmp_path / folder)
    shutil.copy(toy_run / "poses.h5", tmp_path)
    printed: list[str] = []
    monkeypatch.setattr(summary.log, "info", lambda text, *args: printed.append(text % args))
    metrics = {"test/top1": 50.0, "test/top5": 100.0, "train/seconds": 1.0}
    summary.log_result(folder, metrics, "the last epoch", classes=2)
    monkeypatch.undo()
    assert not any("top5" in line for line in printed)
    [line] = [line for line in printed if line.startswith("next ")]
    line = line.removeprefix("next ").strip() + " corruption=none figures=none"
    shown = shell_line(line, tmp_path, capsys)
    assert (tmp_path / folder / "robustness.csv").is_file()
    assert "top5" not in shown
    last = shown.splitlines()[-1].removeprefix("next ").strip()
    assert read(shlex.quote(shlex.split(last)[3])) == [str(folder), "ANOTHER_RUN"]


@pytest.mark.parametrize(("classes", "shown"), [(2, False), (5, False), (6, True)])
def test_top5_is_shown_where_it_means_something(classes, shown):
    assert ("top5" in format_accuracy(50.0, 90.0, classes)) == shown
