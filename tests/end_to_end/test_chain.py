"""Prepare, train, evaluate, report: the commands as a user types them, in an empty folder."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from maskclr_pl.runs.results import read_table
from maskclr_pl.sources.io.pickles import load_pickle
from tests.helpers.commands import SMALL, in_process, in_subprocess, last_line, pyskl_file
from tests.helpers.pose_tools import alphapose, truth

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT.parent / "shared/samples/estimator_samples"
Command = Callable[..., str]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in an empty folder."""
    return partial(in_process, cwd=tmp_path, capsys=capsys)


def check_run_folder(run: Path, clips: int, classes: int) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["test/top1"] <= metrics["test/top5"] <= 100
    predictions = np.load(run / "predictions.npz")
    assert predictions["logits"].shape == (clips, classes)
    assert len(set(predictions["name"].tolist())) == clips
    top1 = 100 * (predictions["logits"].argmax(1) == predictions["label"]).mean()
    assert metrics["test/top1"] == pytest.approx(top1, abs=1e-4)  # float32 percent
    for file in ("config.yaml", "train.log", "metrics.csv", "checkpoints/best.ckpt"):
        assert (run / file).stat().st_size > 0
    for which in ("best", "last"):
        content = torch.load(run / f"checkpoints/{which}.ckpt", weights_only=True)
        assert content["maskclr_pl"]["class_names"]
    rows = read_table(run / "per_class.csv")
    assert sum(int(row["clips"]) for row in rows) == clips
    assert len(rows) == classes
    for figure in ("training_curves.png", "training_curves.svg", "confusion.png"):
        assert (run / "figures" / figure).is_file()
    return metrics


def trained(folder: Path, command: Callable[..., str]) -> None:
    """A run `a` on a small pyskl file."""
    pyskl_file(folder / "poses.pkl")
    source = ["source=pyskl", "input=poses.pkl", "output=poses.h5", "skeleton=coco17"]
    assert last_line(command("prepare", *source)) == "poses.h5"
    data = ["data=custom", "data.path=poses.h5", "data.train_split=train", "data.test_split=test"]
    short = ["trainer.max_epochs=2", "data.batch_size=8", *SMALL]
    short += ["callbacks.figures.every_n_epochs=2"]
    printed = command("train", *data, *short, "pose=h36m17", "output_dir=a")
    assert last_line(printed) == "a"
    assert "\x1b" not in printed, "control characters in the output of a command without terminal"
    check_run_folder(folder / "a", clips=8, classes=2)
    for figure in (
        "training_curves",
        "confusion",
        "masked_epochs",
        "masked_classes",
        "masked_joints",
        "epoch_002/attention",
    ):
        assert (folder / "a/figures" / f"{figure}.png").stat().st_size > 1000
    assert [row["class"] for row in read_table(folder / "a/masked_by_class.csv")] == ["0", "1"]


@pytest.mark.slow
@pytest.mark.figures
def test_chain(tmp_path: Path, command: Command) -> None:
    """Every command once."""
    folder = tmp_path
    trained(folder, command)
    command("evaluate", "ckpt_path=a", "draws=2", "device=cpu")
    header, *rows = (folder / "a/robustness.csv").read_text().splitlines()
    assert header == "corruption,level,draw,top1,top5"
    assert {row.split(",")[0] for row in rows} >= {"clean", "spatial_noise", "frame_drop"}
    assert (folder / "a/figures/robustness.png").stat().st_size > 1000
    poses = SAMPLES if SAMPLES.is_dir() else alphapose(folder / "files", truth())
    asked = [f"input={poses}", "on_error=skip", "frame_size=[480,640]", "gif=true"]
    command("predict", "ckpt_path=a", *asked, "output_dir=p", "device=cpu")
    actions = read_table(folder / "p/predictions.csv")
    assert {row["action_1"] for row in actions} <= {"0", "1"}
    assert len({row["video"] for row in actions}) == (35 if poses == SAMPLES else 1)
    command("report", "runs=[a,a]", "labels=[one,other]", "output_dir=c")
    assert (folder / "c/comparison.csv").read_text().startswith("run,seeds,clean,spatial_noise")


@pytest.mark.recipes
def test_a_reader_that_leaves_does_not_disturb(tmp_path: Path) -> None:
    """`train | head -1` ends as it does without the pipe."""
    args = ["source.clips=64", "debug=fast", "output_dir=run", *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-m", "maskclr_pl.train", *args],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait(timeout=120) == 0
    check_run_folder(tmp_path / "run", clips=16, classes=8)


@pytest.mark.slow
def test_chain_from_the_wheel(tmp_path: Path) -> None:
    """The wheel alone, in an empty folder: conf/ is inside, nothing comes from the checkout."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, timeout=120)
    [wheel] = tmp_path.glob("*.whl")
    source = ROOT / "src/maskclr_pl"
    names = {path.relative_to(source.parent) for path in source.rglob("*") if path.is_file()}
    assert {str(name) for name in names if "__pycache__" not in name.parts} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
    environment = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=60
    )
    [site] = environment.glob("lib/python*/site-packages")
    # the libraries of this environment, but not its editable install: a path in a .pth is not
    # searched for further .pth files
    (site / "libraries.pth").write_text(str(Path(torch.__file__).parents[1]) + "\n")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True, timeout=60)
    empty = tmp_path / "empty"
    empty.mkdir()
    python = str(environment / "bin" / "python")
    where = subprocess.run(
        [python, "-c", "import maskclr_pl; print(maskclr_pl.__file__)"],
        cwd=empty,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
    args = ["source.clips=64", "debug=fast", "output_dir=run", *SMALL]
    in_subprocess("train", *args, cwd=empty, python=python, PYTHONPATH="")
    check_run_folder(empty / "run", clips=16, classes=8)


@pytest.mark.recipes
def test_bare_command_composes_and_trains(tmp_path: Path, command: Command) -> None:
    run = last_line(command("train", "debug=fast"))
    check_run_folder(tmp_path / run, clips=64, classes=8)
    assert (tmp_path / run / "figures" / "masked_joints.png").is_file()


@pytest.mark.recipes
def test_two_processes_train_like_one_run(tmp_path: Path) -> None:
    """DDP on two CPU processes: one run folder, a gradient for each parameter, all clips tested."""
    ddp = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    args = ["source.clips=96", "trainer.max_epochs=1", "data.batch_size=8", *SMALL, *ddp]
    batches = "trainer.limit_train_batches=2"
    in_subprocess("train", *args, "output_dir=run", batches, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data", "run"]
    check_run_folder(tmp_path / "run", clips=32, classes=8)


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)[
        "state_dict"
    ]
    return state


@pytest.mark.recipes
def test_multirun_and_seeds(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job has its folder; a seed decides the run, whatever ran before in the process.

    A sweep that is stopped goes on where it was. Kind of mistake: work that is lost in silence.
    """
    args = ["source.clips=64", "debug=fast", *SMALL]

    def stopped(folder: Path, *others: object) -> None:
        if folder.name == "seed_1":
            raise KeyboardInterrupt

    monkeypatch.setattr("maskclr_pl.training.fit._draw", stopped)
    with pytest.raises(AssertionError, match="130") as end:
        command("train", "-m", "seed=0,1", *args)
    monkeypatch.undo()
    assert "continue   python -m maskclr_pl.train -m seed=0,1 source.clips=64" in str(end.value)
    printed = command("train", "-m", "seed=0,1", *args)
    assert "1 jobs skipped" in printed
    assert "2 of 2 jobs finished" in printed
    first, second = sorted(path.parent for path in tmp_path.glob("runs/sweep/*/*/metrics.json"))
    assert [first.name, second.name] == ["seed_0", "seed_1"]
    assert last_line(printed) == str(first.parent.relative_to(tmp_path))
    command("train", "seed=1", "output_dir=again", *args)
    again, other = weights(tmp_path / "again"), weights(first)
    for name, value in weights(second).items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)
    assert not torch.equal(other["backbone.norm.weight"], again["backbone.norm.weight"])
    assert not torch.equal(other["head.fc1.weight"], again["head.fc1.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("sgd", marks=pytest.mark.recipes)])
def test_gradients_are_clipped_under_mixed_precision(command: Command, optimizer: str) -> None:
    args = ["source.clips=64", "debug=fast", "trainer.accelerator=cpu", *SMALL]
    args += ["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0"]
    assert "result     test top1" in command("train", *args, f"optim.optimizer={optimizer}")


def test_a_sweep_of_several_processes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["-m", "seed=0,1", "source.clips=64", "debug=fast", *SMALL, "trainer.devices=2"]
    with pytest.raises(AssertionError, match=r"pass trainer\.devices=1"):
        in_process("train", *args, cwd=tmp_path, capsys=capsys)
    assert not list(tmp_path.glob("runs/**/config.yaml"))


@pytest.mark.recipes
def test_interrupted_training_can_be_continued(tmp_path: Path, command: Command) -> None:
    """SIGTERM to all processes of a job, as batch systems send it: the loader's workers, too."""
    args = ["source.clips=64", "trainer.max_epochs=500", "output_dir=run", *SMALL]
    args += ["data.num_workers=1", "masking.start_epoch=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "maskclr_pl.train", *args],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run/checkpoints/last.ckpt").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, err
    assert "python -m maskclr_pl.train resume=run" in out
    assert err == "stopped\n"
    done = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"]
    command("train", "resume=run", f"trainer.max_epochs={done + 2}", "data.num_workers=0")
    check_run_folder(tmp_path / "run", clips=16, classes=8)


@pytest.mark.slow
def test_init_from_another_run(tmp_path: Path, command: Command) -> None:
    args = ["source.clips=64", "debug=fast", *SMALL]
    command("train", *args, "loss=ce", "masking=none", "output_dir=first")
    printed = command("train", *args, "init_from=first", "output_dir=second")
    assert "backbone, head from first" in printed


@pytest.mark.recipes
@pytest.mark.skipif(
    not (ROOT.parent / "shared/data/custom16_hrnet").is_dir(), reason="real data not here"
)
def test_real_pyskl_file(tmp_path: Path, command: Command) -> None:
    file = ROOT.parent / "shared/data/custom16_hrnet/custom16_hrnet.pkl"
    assert len(load_pickle(file)["annotations"]) == 486
    args = ["source=pyskl", f"input={file}", "output=c16.h5", "skeleton=coco17"]
    command("prepare", *args)
    splits = ["data.train_split=group_train", "data.test_split=group_test"]
    data = ["data=custom", "data.path=c16.h5", *splits]
    epochs = ["trainer.max_epochs=8", "optim.lr=0.003"]
    command("train", *data, *SMALL, *epochs, "output_dir=run")
    metrics = check_run_folder(tmp_path / "run", clips=113, classes=16)
    assert metrics["test/top1"] > 20  # chance is 6.25
    command("evaluate", "ckpt_path=run", "corruption=none")


@pytest.mark.recipes
@pytest.mark.skipif(
    not (ROOT.parent / "shared/data/penn_action").is_dir(), reason="real data not here"
)
def test_real_set_with_its_own_skeleton(tmp_path: Path, command: Command) -> None:
    folder = ROOT.parent / "shared/data/penn_action"
    args = ["source=pyskl", f"input={folder / 'penn_action.pkl'}", "output=penn.h5"]
    command("prepare", *args, f"skeleton={folder / 'penn_action.meta.yaml'}")
    splits = ["data.train_split=train", "data.test_split=test"]
    data = ["data=custom", "data.path=penn.h5", *splits]
    batches = ["trainer.max_epochs=1", "trainer.limit_train_batches=4"]
    command("train", *data, *SMALL, *batches, "output_dir=run")
    check_run_folder(tmp_path / "run", clips=1068, classes=15)
    command("evaluate", "ckpt_path=run", "corruption=none")
