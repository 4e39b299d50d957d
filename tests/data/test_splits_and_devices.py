"""What train says and refuses about held-out clips, batches and devices."""

import logging
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from omegaconf import OmegaConf

from maskclr_pl.config.resolve import fill_val_fraction
from maskclr_pl.training.fit import DeadRank
from maskclr_pl.training.trainer import check_strategy
from maskclr_pl.types import InputError
from tests.helpers.commands import SMALL, in_process, refused
from tests.helpers.protocol_tools import toy_data, toy_store, trainer

DDP = ["trainer.accelerator=cpu", "trainer.strategy=ddp"]


@pytest.mark.parametrize(
    ("monitor_split", "given", "val_split", "expected"),
    [
        ("val", None, None, 0.1),
        ("val", None, "val", 0.0),
        ("last", None, None, 0.0),
        ("test", None, None, 0.0),
        ("last", 0.1, None, 0.1),  # asked for; also runs of earlier versions
        ("val", 0.0, None, 0.0),
        ("val", 0, "val", 0),
    ],
)
def test_clips_are_held_out_where_they_choose(monitor_split, given, val_split, expected):
    """Kind: clips that are neither trained on nor used."""
    cfg = OmegaConf.create(
        {
            "monitor_split": monitor_split,
            "resume": None,
            "data": {"val_fraction": given, "val_split": val_split},
        }
    )
    fill_val_fraction(cfg)
    assert cfg.data.val_fraction == expected


def test_a_fraction_beside_a_split():
    data = {"val_fraction": 0.2, "val_split": "val"}
    cfg = OmegaConf.create({"monitor_split": "val", "resume": None, "data": data})
    with pytest.raises(InputError, match=r"val_fraction=0\.2 has no effect with data\.val_sp"):
        fill_val_fraction(cfg)
    cfg.resume = "run"  # of an earlier version, which wrote its default
    fill_val_fraction(cfg)


def test_selection_on_the_test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kind: as above, and a batch size that is not that of the batches."""
    args = ["source.clips=64", "debug=fast", *SMALL, "monitor_split=test", "output_dir=run"]
    args += ["data.balanced={classes:4,samples:2}"]
    out = in_process("train", *args, cwd=tmp_path, capsys=capsys)
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert "48 train, 16 validation, 16 test clips" in lines["data"]
    assert lines["batch"] == (
        "batch      8 clips: 4 classes with 2 clips each; 32 clips in validation and test"
    )
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["data"]["val_fraction"] == 0


def test_clips_that_select_on_test_does_not_use(tmp_path):
    data = toy_data(toy_store(tmp_path), val_fraction=0.25)
    unused = len(data.val)
    data.validate_on_test()
    assert data.val is data.test
    assert data.notes[-1].startswith(
        f"{unused} validation clips are unused because of monitor_split=test"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.val_fraction=nan"], r"data\.val_fraction=nan: expected "),
        (["data.val_fraction=1.0"], r"data\.val_fraction=1\.0: expected the share"),
        (["data.val_fraction=-0.5"], r"data\.val_fraction=-0\.5: expected the share"),
        (
            ["data.balanced={classes:4,samples:2}", "data.batch_size=32"],
            r"data\.batch_size=32, but data\.balanced makes batches of 4 classes x 2 clips = 8",
        ),
        (["data.balanced={classes:4}"], r"data\.balanced=.*expected \{classes: P, samples: K\}"),
        ([*DDP, "trainer.devices=3"], r"batches of 32 clips, which 3 devices.*gives 30 or 33"),
        (
            [*DDP, "trainer.devices=2", "data.balanced={classes:3,samples:1}"],
            r"data\.balanced gives batches of 3 clips, which 2 devices cannot share",
        ),
        (
            [*DDP, "trainer.devices=10", "data.batch_size=20"],
            r"8 validation clips for 10 devices, expected at least 10; pass trainer\.devices=1",
        ),
    ],
)
def test_what_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """Kind: values and numbers of devices that changed or meant nothing, in silence."""
    args = ["source.clips=64", *SMALL, "output_dir=run", *words]
    line = refused("train", *args, cwd=tmp_path, capsys=capsys)
    assert re.search(message, line), line
    assert not (tmp_path / "run").exists()


def test_a_dead_process_is_named(capsys):
    """Kind: a training that ends without a word because one of its processes died."""
    DeadRank.report(Path("runs/mine"))
    logging.getLogger(DeadRank.SOURCE).info(
        "[rank: 1] Child process with PID 7 terminated with code -9."
    )
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: process 7 of this training exited with code -9 ")
    assert "pass resume=runs/mine" in line


def test_the_line_is_about_what_lightning_logs():
    child = Mock(returncode=-9, pid=7)
    observer = _ChildProcessObserver(1, [child])
    observer._terminate_all = lambda: None
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(DeadRank, "emit", lambda self, record: seen.append(record.getMessage()))
        DeadRank.report(Path("runs/mine"))
        observer._run()
    assert "PID 7 terminated with code -9" in seen[0]


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2", "ddp_spawn"])
def test_strategies_that_do_not_fit(strategy):
    """Kind: a strategy that fails at its first checkpoint."""
    with pytest.raises(InputError, match=rf"trainer.strategy={strategy} .*strategy=ddp"):
        check_strategy(trainer(), strategy)


def test_lines_about_batches(tmp_path):
    """Kind: a batch that the number of devices multiplies without a word."""
    data = toy_data(toy_store(tmp_path), batch_size=8)
    assert data.batch_line(1, 1) == ""
    assert data.batch_line(4, 1) == "8 clips: 2 on each of 4 devices"
    assert data.batch_line(1, 3) == "8 clips: 3 batches (24 clips) per optimizer step"
    data.check_devices(4)
    with pytest.raises(InputError, match=r"18 training clips for 10 devices, expected at least 20"):
        toy_data(toy_store(tmp_path), batch_size=20).check_devices(10)
