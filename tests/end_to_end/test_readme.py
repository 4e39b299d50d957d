"""The commands, tables, and examples of the README, the guides, and `make demo` work.

Commands run in order in one folder, on small data: the short ones with the slow tests, all of them
with those of the recipes.
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from maskclr_pl.config.paths import compose
from tests.helpers.commands import pyskl_file, shell_line
from tests.helpers.pose_tools import alphapose, truth

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
README = ROOT / "README.md"
GUIDES = [
    ROOT / "docs" / "guides" / f"{name}.md"
    for name in (
        *("own-data", "own-videos", "prediction", "robustness", "reports"),
        *("benchmarks", "tracking", "pretraining", "extending"),
    )
]
OWN = ("experiment=NAME", "backbone=mean_pose")  # placeholders, and files that a guide shows
NOT_RUN = ("data=ntu", "corruption=poster")  # no file; minutes, see tests/robustness
LONG = ("experiment=", "logger=wandb", "/logged", "mamp", "format=torch")
REFERENCE = sorted((ROOT / "docs").rglob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )


def commands(page: Path) -> list[str]:
    lines = [line.split("   #")[0] for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if "python -m maskclr_pl." in line]


def write_inputs(folder: Path) -> None:
    """The files that commands read, and those that the guides show, by the name in a comment."""
    pyskl_file(folder / "poses.pkl", clips=40)
    walk = truth(frames=200)
    wide = {frame: [pose * (1.5, 1, 1) for pose in poses] for frame, poses in walk.items()}
    alphapose(folder / "poses" / "skating", walk)
    alphapose(folder / "poses" / "clapping", wide)
    [labels] = blocks(ROOT / "docs/guides/own-videos.md", "csv")
    (folder / "labels.csv").write_text(labels)
    extending = ROOT / "docs/guides/extending.md"
    for block in blocks(extending, "python") + blocks(extending, "yaml"):
        [name] = re.findall(r"^# (\S+\.(?:py|yaml))$", block, flags=re.MULTILINE)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(block)


def kind(line: str) -> tuple[str, ...]:
    """What a command does, without the files that it reads and writes."""
    paths = ("output_dir=", "output=", "input=", "ckpt_path=", "data.path=", "runs=")
    return tuple(sorted(word for word in shlex.split(line) if not word.startswith(paths)))


@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param((*NOT_RUN, *LONG), marks=pytest.mark.slow, id="short"),
        pytest.param(NOT_RUN, marks=pytest.mark.recipes, id="all"),
    ],
)
def test_commands(
    left_out: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each kind of command runs once; a run folder that it wrote stands for the others."""
    write_inputs(tmp_path)
    folders: dict[tuple[str, ...], str] = {}
    for line in (line for page in [README, *GUIDES] for line in commands(page)):
        folder = "".join(re.findall(r"output_dir=(\S+)", line))
        if kind(line) in folders:
            if folder and not (tmp_path / folder).exists():
                shutil.copytree(tmp_path / folders[kind(line)], tmp_path / folder)
        elif not any(word in line for word in left_out):
            shell_line(line, tmp_path, capsys)
            folders[kind(line)] = folder
    for file in ("first/robustness.csv", "report/report.html", "extended/metrics.json"):
        assert (tmp_path / "runs" / file).is_file()
    monkeypatch.chdir(tmp_path)
    [example] = blocks(ROOT / "docs/guides/prediction.md", "python")
    keypoint = np.random.default_rng(0).normal(500, 50, (1, 20, 17, 2))
    exec(compile(example, "prediction.md", "exec"), {"poses": (keypoint, np.ones((1, 20, 17)))})
    assert len(capsys.readouterr().out.splitlines()) == 2  # classes


def test_every_guide_is_run() -> None:
    others = set((ROOT / "docs" / "guides").glob("*.md")) - set(GUIDES)
    assert not [page.name for page in others if commands(page)]


def test_readme_example(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = blocks(README, "python")
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("torch.Size([1, 81, 17, 64]) 0.4")


def test_store_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    [example] = blocks(ROOT / "docs/reference/store.md", "python")
    poses = np.ones((1, 8, 17, 2), np.float32)
    exec(compile(example, "store.md", "exec"), {"keypoint": poses, "score": poses[..., 0]})
    assert capsys.readouterr().out == "(1, 8, 17, 2)\n"


def test_skeleton_example(tmp_path: Path) -> None:
    from maskclr_pl.skeletons import load_skeleton

    [text] = blocks(ROOT / "docs/guides/own-data.md", "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    assert load_skeleton(tmp_path / "mine.yaml").pairs == ((1, 2), (3, 4))


def shown_overrides() -> dict[str, list[str]]:
    """Code of the README and documentation -> the overrides in it, each code once."""
    shown = {}
    for page in [README, *REFERENCE]:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for code in re.findall(r"`([^`\n]+=[^`\n]+)`", prose):
            words = [word for word in shlex.split(code) if re.match(r"[a-z][\w.]*=[^=]", word)]
            shown[code] = [word for word in words if not word.startswith("weights_only")]
    return {code: overrides for code, overrides in shown.items() if overrides}


def test_shown_overrides_are_known() -> None:
    """Choices are files of their group; keys exist in a command, with the choices beside them."""
    defaults = [compose([], path.stem) for path in CONF.glob("*.yaml")]
    unknown = []
    for code, overrides in shown_overrides().items():
        values = dict(override.split("=", 1) for override in overrides)
        groups = {key: value for key, value in values.items() if (CONF / key).is_dir()}
        choices = [f"{key}={value}" for key, value in groups.items() if value.isidentifier()]
        files = [f"{choice.replace('=', '/')}.yaml" for choice in choices if choice not in OWN]
        missing = [file for file in files if not (CONF / file).is_file()]
        unknown += [f"{code}: {file}" for file in missing]
        configs = defaults
        if files and not missing and len(choices) < len(values) and "source" not in groups:
            configs = [compose(choices)]
        for key in values.keys() - groups.keys():
            parent, _, leaf = key.rpartition(".")
            nodes = [OmegaConf.select(cfg, parent) if parent else cfg for cfg in configs]
            known = any(leaf in list(node) for node in nodes if node is not None)
            if not known and not key.startswith(("hydra.", "source.")):
                unknown.append(f"{code}: {key}")
    assert not unknown, "\n".join(unknown)


def test_configuration_page_lists_all_groups() -> None:
    page = (ROOT / "docs/reference/configuration.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.+?) \|", page, flags=re.MULTILINE)
    names = {name: choices for cell, choices in rows for name in re.findall(r"`(\w+)`", cell)}
    groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    assert groups - {"paths", "source", "corruption", "base"} <= set(names)
    for name, choices in names.items():
        files = {path.stem for path in (CONF / name).glob("*.yaml")} - {"default"}
        shown = set(re.findall(r"`(\w+)`", choices)) - {"default"}
        if "..." in choices or ";" in choices:  # some of them, or of two groups
            assert shown & files
        else:
            assert shown == files, name


def test_demo_commands_compose() -> None:
    shown = subprocess.run(
        ["make", "-n", "demo", "VENV=.nowhere", "DEMO=demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", " ")
    lines = re.findall(r"^\s*\.nowhere/bin/python -m maskclr_pl\.(\w+) (.*)$", shown, re.MULTILINE)
    assert [command for command, _ in lines] == [*["train"] * 3, "evaluate", "report"]
    for command, options in lines:
        compose([o for o in shlex.split(options) if not re.match("-m|ckpt_path", o)], command)
