"""Continuing a run: what may change, where it goes on, what it keeps."""

import json
import math
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from maskclr_pl.optim import Optim
from tests.end_to_end.test_chain import Command
from tests.helpers.commands import in_process, pyskl_file, refused

pytestmark = pytest.mark.slow

TINY = ["backbone=dstformer_tiny", "backbone.dim=16", "backbone.rep_dim=16", "backbone.depth=1"]
TINY += ["head=action_small", "clip.frames=8", "data.batch_size=8", "trainer.accelerator=cpu"]
DATA = ["data=custom", "data.path=poses.h5", "data.train_split=train", "data.test_split=test"]
WORDS = [*DATA, *TINY, "optim.warmup_epochs=0"]


@pytest.fixture(scope="module")
def start(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`: four epochs, masking from the third on (a share); each test has a copy."""
    folder = tmp_path_factory.mktemp("start")
    shutil.copy(toy_run / "poses.h5", folder)
    words = [*WORDS, "trainer.max_epochs=4", "masking.start_epoch=0.5", "output_dir=run"]
    silent: Any = type("Silent", (), {"readouterr": lambda _: type("", (), {"out": "", "err": ""})})
    in_process("train", *words, cwd=folder, capsys=silent())
    return folder


@pytest.fixture
def folder(start: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(start, tmp_path / "copy"))


@pytest.fixture
def command(folder: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return partial(in_process, cwd=folder, capsys=capsys)


def lines(printed: str, word: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith(f"{word} ")]


def hidden(run: Path) -> list[bool]:
    """Whether anything was hidden in each epoch."""
    header, *rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    column = header.index("masked/nose")
    return [bool(row[column]) for row in rows if row[header.index("train/loss")]]


def test_stages_stay_where_they_were(folder: Path, command: Command) -> None:
    """The kind: a share of more epochs is another epoch, and masking that was on went off."""
    printed = command("train", "resume=run", "trainer.max_epochs=8")
    [where] = lines(printed, "resume")
    assert where == "resume     epoch 5 of 8, step 4, from run/checkpoints/last.ckpt"
    assert any("start_epoch=0.5 stays at epoch 3" in note for note in lines(printed, "note:"))
    assert hidden(folder / "run") == [False] * 2 + [True] * 6
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert metrics["first_epoch/masking"] == 3
    assert metrics["train/epochs"] == metrics["best/epoch"] == 8
    again = command("train", "resume=run", "trainer.max_epochs=10")  # from what it began with
    assert any("the 4 epochs that the run started with" in note for note in lines(again, "note:"))


def test_runs_of_an_older_version_are_continued(folder: Path, command: Command) -> None:
    """As 15b7e28 wrote them: other callbacks in config.yaml, no epoch of the stages."""
    older = {
        "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
        **{"filename": "best", "mode": "max", "auto_insert_metric_name": False},
        "enable_version_counter": False,
    }
    file = folder / "run/config.yaml"
    config = yaml.safe_load(file.read_text())
    config["callbacks"]["checkpoint"] = older
    del config["callbacks"]["early_stopping"]
    file.write_text(yaml.safe_dump(config))
    path = folder / "run/checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    del content["maskclr_pl"]["stage_epochs"]
    content["callbacks"] = {
        key: value for key, value in content["callbacks"].items() if "Best" not in key
    }
    torch.save(content, path)
    command("train", "resume=run", "trainer.max_epochs=6", "callbacks.early_stopping.patience=null")
    assert hidden(folder / "run") == [False] * 2 + [True] * 4


REFUSED = {
    "optim.lr=0.5": r"optim\.lr=0\.5: the resumed run has optim\.lr=0\.001",
    "data.label_fraction=0.5": r"has data\.label_fraction=null",
    "output_dir=other": "has output_dir=run",
    "experiment=demo": "cannot replace parts",
    "~masking": "cannot replace parts",
    "trainer.max_epochs=3": r"has 4 epochs already, but trainer\.max_epochs=3",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_would_not_take_effect_is_refused(
    start: Path, override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kind: config.yaml records a value that never took effect. It is not touched."""
    before = (start / "run/config.yaml").read_bytes()
    line = refused("train", "resume=run", override, cwd=start, capsys=capsys)
    assert re.search(REFUSED[override], line), line
    assert (start / "run/config.yaml").read_bytes() == before


def test_what_may_change_takes_effect(folder: Path, command: Command) -> None:
    words = ["resume=run/checkpoints/last.ckpt", "trainer.max_epochs=5", "optim.lr=0.001"]
    words += ["data.batch_size=8", "trainer.log_every_n_steps=1", "objective=val/loss"]
    words += ["logger=tensorboard", "callbacks.last.every_n_epochs=1", "output_dir=run"]
    shutil.copy(folder / "poses.h5", folder / "moved.h5")
    command("train", *words, "data.path=moved.h5")
    config = yaml.safe_load((folder / "run/config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 5
    assert config["objective"] == "val/loss"
    assert config["data"]["path"] == "moved.h5"
    assert set(config["logger"]) == {"csv", "tensorboard"}
    assert list((folder / "run").rglob("events.out.tfevents.*"))


def test_other_data_is_refused(
    folder: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kind: the same settings, and another number."""
    pyskl_file(folder / "other.pkl", clips=30)
    source = ["source=pyskl", "input=other.pkl", "output=other.h5", "skeleton=coco17"]
    command("prepare", *source)
    words = ["resume=run", "trainer.max_epochs=5", "data.path=other.h5"]
    line = refused("train", *words, cwd=folder, capsys=capsys)
    assert "other.h5 holds other clips than when run was started" in line


def test_a_file_that_is_not_the_last_checkpoint(
    start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused("train", "resume=run/checkpoints/best.ckpt", cwd=start, capsys=capsys)
    assert "pass resume=run, or init_from=run/checkpoints/best.ckpt" in line


def test_a_finished_run_is_said_to_be_finished(folder: Path, command: Command) -> None:
    before = json.loads((folder / "run/metrics.json").read_text())
    printed = command("train", "resume=run")
    [line] = lines(printed, "resume")
    assert "all 4 epochs are done" in line
    assert json.loads((folder / "run/metrics.json").read_text()) == before


def test_weights_that_are_not_finite_are_not_continued(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "run/checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    content["state_dict"]["backbone.joints_embed.weight"][0] = math.nan
    torch.save(content, path)
    line = refused("train", "resume=run", "trainer.max_epochs=5", cwd=folder, capsys=capsys)
    assert "last.ckpt: 1 of" in line
    assert "not finite" in line


STOP = {
    "_target_": "lightning.pytorch.callbacks.EarlyStopping",
    **{"monitor": "train/loss", "stopping_threshold": 1000, "check_on_train_epoch_end": True},
}
"""Stops after the first epoch."""


def test_a_stop_before_the_end_is_said(
    folder: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever stopped it. Before masking began there is nothing to be called MaskCLR."""
    stop = "+callbacks.mine=" + str(STOP).replace("'", "").replace(": ", ":")
    words = [*WORDS, stop, "trainer.max_epochs=5"]
    printed = command("train", *words, "masking.start_epoch=0", "output_dir=early")
    assert "stopped    after epoch 1 of 5" in printed
    [result] = lines(printed, "result")
    assert "(best.ckpt is epoch 1 of 1, the last; 5 were planned)" in result
    assert any("2 validation clips are too few" in note for note in lines(printed, "note:"))
    line = refused(
        "train", *words, "masking.start_epoch=3", "output_dir=none", cwd=folder, capsys=capsys
    )
    assert "no epoch is eligible for best.ckpt after 1 of 5 (masking has full" in line
    assert not (folder / "none/checkpoints/best.ckpt").exists()
    line = refused("evaluate", "ckpt_path=none", cwd=folder, capsys=capsys)
    assert "pass none/checkpoints/last.ckpt" in line


def test_steps_as_the_end_of_a_training(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind: schedules by the epoch, which divided the steps by epochs that never came.

    13 clips in batches of 4 are 3 batches and 2 steps of an epoch, so that 3 steps are 2 epochs.
    """
    build, seen = Optim.build, []

    def spy(
        self: Optim, backbone: Any, others: Any, steps: int, per_epoch: int, fused: bool
    ) -> Any:
        seen.append((steps, per_epoch))
        return build(self, backbone, others, steps, per_epoch, fused)

    monkeypatch.setattr(Optim, "build", spy)
    words = [*WORDS, "data.batch_size=4", "trainer.accumulate_grad_batches=2"]
    words += ["masking.start_epoch=0.5", "+trainer.max_steps=3"]
    for epochs in ("-1", "30"):
        printed = command("train", *words, f"trainer.max_epochs={epochs}", f"output_dir=e{epochs}")
        assert hidden(folder / f"e{epochs}") == [False, True]
        assert "epoch 2/2" in printed
    assert [one for one in seen if one != (1, 1)] == [(3, 2), (3, 2)]  # (1, 1) is a mere check


NEVER = {
    "masking": (
        ["masking.start_epoch=300", "trainer.max_epochs=4"],
        r"masking\.start_epoch=300 but trainer\.max_epochs=4: .* pass masking\.start_epoch=0\.5",
    ),
    "a ramp": (
        ["masking.start_epoch=0", "masking.ramp_epochs=4", "trainer.max_epochs=4"],
        r"masking\.ramp_epochs=4 but trainer\.max_epochs=4",
    ),
    "steps": (
        ["masking.start_epoch=2", "+trainer.max_steps=2"],
        r"masking\.start_epoch=2 but trainer\.max_steps=2 \(2 epochs\)",
    ),
    "mining": (
        ["method=aimclr", "augment=aimclr_2d", "method.queue_size=4", "method.mining_epoch=30"],
        r"method\.mining_epoch=30 but trainer\.max_epochs=30",
    ),
    "patience": (
        ["callbacks.early_stopping.patience=3"],
        r"patience=3: 2 validation clips are too few to select an epoch",
    ),
}


@pytest.mark.parametrize("name", NEVER)
def test_a_training_that_is_not_what_it_says_is_refused_before_it_starts(
    start: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = NEVER[name]
    common = [word for word in WORDS if "head" not in word or "method=aimclr" not in words]
    line = refused("train", *common, *words, "output_dir=never", cwd=start, capsys=capsys)
    assert re.search(message, line), line
    assert not (start / "never").exists()
