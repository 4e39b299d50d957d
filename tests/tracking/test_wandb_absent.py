"""W&B not installed, not logged in, not reachable; a run that failed."""

import sys
from typing import Any

import pytest
import wandb

from maskclr_pl.types import InputError
from tests.helpers.commands import in_process, refused
from tests.helpers.wandb_tools import SHORT

pytestmark = [pytest.mark.usefixtures("offline"), pytest.mark.slow]


def test_without_a_login_one_line_says_what_to_type(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    wandb.teardown()
    line = refused("train", "logger=wandb", *SHORT, cwd=tmp_path, capsys=capsys)
    assert "wandb login" in line
    assert "WANDB_MODE=offline" in line
    assert not (tmp_path / "runs").exists()


def test_a_server_that_cannot_be_reached(tmp_path, capsys, monkeypatch):
    def fail(**_: Any) -> None:
        raise wandb.errors.CommError("timed out\n(90 s)")

    monkeypatch.setattr(wandb, "init", fail)
    options = ["logger=wandb", "output_dir=run", *SHORT]
    line = refused("train", *options, cwd=tmp_path, capsys=capsys)
    assert "timed out (90 s); set WANDB_MODE=offline" in line


def test_without_wandb_everything_else_works(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    in_process("train", "debug=fast", "output_dir=run", *SHORT, cwd=tmp_path, capsys=capsys)
    assert (tmp_path / "run/metrics.csv").is_file()
    line = refused("train", "logger=wandb", *SHORT, cwd=tmp_path, capsys=capsys)
    assert "pip install wandb" in line


def test_a_failed_run_is_marked_so(tmp_path, capsys, monkeypatch):
    def fail(*_: Any) -> None:
        raise InputError("no")

    monkeypatch.setattr("maskclr_pl.training.run.fit_and_test", fail)
    codes = []
    monkeypatch.setattr(wandb.Run, "finish", lambda run, exit_code=None: codes.append(exit_code))
    options = ["logger=wandb", "output_dir=run", *SHORT]
    refused("train", *options, cwd=tmp_path, capsys=capsys)
    monkeypatch.undo()
    wandb.finish()
    assert codes == [1]
