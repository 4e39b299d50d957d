"""Every command of the README and of `make demo` runs, in order, on small data."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers.commands import pyskl_file, shell_line
from tests.helpers.pose_tools import alphapose, truth

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_shell_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyskl_file(tmp_path / "poses.pkl", clips=40)
    walk = truth(frames=200)
    wide = {frame: [pose * (1.5, 1, 1) for pose in poses] for frame, poses in walk.items()}
    alphapose(tmp_path / "poses" / "skating", walk)
    alphapose(tmp_path / "poses" / "clapping", wide)
    for name, content in files_shown().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    commands = [line for line in lines if not line.startswith("make ")]
    assert len(commands) >= 8
    for line in commands:
        shell_line(line, tmp_path, capsys)
    assert (tmp_path / "runs/own/robustness.csv").is_file()


def files_shown() -> dict[str, str]:
    """The files that the README shows, as they are, by the name in a comment at their top."""
    shown = {}
    (labels,) = re.findall(r"```\n(clip,label\n.*?)```", README, flags=re.DOTALL)
    shown["labels.csv"] = labels
    for block in blocks("python") + blocks("yaml"):
        if match := re.match(r"(?:# @package \S+\n)?# (\S+\.(?:py|yaml))\n", block):
            shown[match.group(1)] = block
    assert {"my_parts.py", "my_conf/backbone/mean_pose.yaml"} <= set(shown)
    return shown


def test_python_example(capsys: pytest.CaptureFixture[str]) -> None:
    example = next(block for block in blocks("python") if "AttentionGuidedMasking" in block)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("torch.Size([1, 81, 17, 64]) 0.4")


def test_skeleton_example(tmp_path: Path) -> None:
    from maskclr_pl.skeletons.layouts import load_skeleton

    [text] = [block for block in blocks("yaml") if block.startswith("joints:")]
    (tmp_path / "mine.yaml").write_text(text)
    skeleton = load_skeleton(tmp_path / "mine.yaml")
    assert skeleton.pairs == ((1, 2), (3, 4))


@pytest.mark.parametrize("row", re.findall(r"^\| (.+?) \| (.+?) \|$", README, flags=re.MULTILINE))
def test_overrides_compose(row: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each override in the tables is one that the command knows."""
    import hydra

    from maskclr_pl.config.paths import config_dir

    skipped = ("init_from", "resume")
    for code in re.findall(r"`([^`]+)`", row[1]):
        overrides = [word for word in shlex.split(code) if re.match(r"^[\w.]+=", word)]
        overrides = [o for o in overrides if not o.startswith(("WANDB", *skipped))]
        overrides = [o for o in overrides if "," not in o or o[-1] in "}]"]
        verb = "prepare" if "source=" in code else "train"
        verb = "report" if code.startswith("report ") else verb
        if overrides:
            with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
                hydra.compose(verb, overrides)


def test_demo_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = subprocess.run(
        ["make", "-n", "demo", "VENV=.nowhere", "DEMO=demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", " ")
    lines = re.findall(r"^(?:\s*)\.nowhere/bin/(python -m maskclr_pl\.[^\n]*)", shown, re.MULTILINE)
    assert [line.split()[2].removeprefix("maskclr_pl.") for line in lines] == [
        *["train"] * 3,
        "evaluate",
        "report",
    ]
    for line in lines:
        shell_line(line, tmp_path, capsys)
    assert (tmp_path / "demo/comparison/comparison.md").read_text().count("\n") >= 5
