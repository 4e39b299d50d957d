"""Files, locks, checkpoints and metrics.csv under kills and full disks."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.cli import locked_folder
from maskclr_pl.files import remove_leftovers, write_atomically
from maskclr_pl.runs.checkpoints import BEST, LAST, PREVIOUS, DurableCheckpoints, newest_checkpoint
from maskclr_pl.runs.history import MetricsTable, read_rows, rewind_history
from maskclr_pl.runs.results import write_predictions
from maskclr_pl.types import InputError
from tests.faults.tool import Killed, fault, full

HOWS = {"killed": Killed, "full": InputError}


def every_fault(folder: Path, act: Callable[[], None], check: Callable[[], None]) -> int:
    """Let `act` fail at each of its operations in turn, both ways; `check` the folder each time."""
    for at in range(1, 100):
        ended = []
        for how in (None, full):
            try:
                with fault(folder, at, *([] if how is None else [how])):
                    act()
            except (Killed, InputError) as error:
                ended.append(error)
            check()
        if not ended:
            return at - 1
    raise AssertionError("it never ends")


def checkpoint(step: int) -> dict:
    return {"global_step": step, "state_dict": {"weight": torch.full((50,), float(step))}}


def save(folder: Path, step: int, name: str = LAST) -> None:
    DurableCheckpoints().save_checkpoint(checkpoint(step), folder / "checkpoints" / name)


def flip(path: Path) -> None:
    """Change one bit of the weights."""
    data = bytearray(path.read_bytes())
    at = data.index(bytes(torch.full((2,), 3.0).numpy().tobytes()))
    data[at] ^= 4
    path.write_bytes(data)


def test_a_checkpoint_is_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: a copy from the folder for temporary files, cut by a kill, in place of the last one."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    save(tmp_path, 1)
    save(tmp_path, 2)

    def check() -> None:
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert found.content["global_step"] in (2, 3)
        assert not found.notes
        assert read_weights(tmp_path / "checkpoints" / PREVIOUS)["global_step"] in (1, 2, 3)

    assert every_fault(tmp_path, lambda: save(tmp_path, 3), check) >= 3
    save(tmp_path, 4)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [PREVIOUS, LAST]


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_taken(tmp_path: Path) -> None:
    """Kind: flipped bits are resumed in silence; a cut file ends the run."""
    for step, name in ((3, BEST), (3, LAST), (3, LAST)):
        save(tmp_path, step, name)
    checkpoints = tmp_path / "checkpoints"
    flip(checkpoints / LAST)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.path.name == PREVIOUS
    assert "last.ckpt: not a readable checkpoint" in found.notes[0]
    (checkpoints / PREVIOUS).write_bytes((checkpoints / PREVIOUS).read_bytes()[:700])
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.path.name, len(found.notes)) == (BEST, 2)
    (checkpoints / BEST).write_bytes(b"")
    with pytest.raises(InputError, match="no other checkpoint is intact; remove"):
        newest_checkpoint(tmp_path)


def test_metrics_keep_their_history(tmp_path: Path) -> None:
    """Kind: a new column truncates the file, and what stops there takes all rows along."""
    logger = MetricsTable(tmp_path, name="", version="")
    first = {"epoch": "0", "train/loss": "1.5", "step": "3"}
    logger.log_metrics({"epoch": 0, "train/loss": 1.5}, step=3)
    logger.save()

    def add() -> None:
        again = MetricsTable(tmp_path, name="", version="")
        again.log_metrics({"epoch": 1, "train/loss": 1.25}, step=7)
        again.save()
        again.log_metrics({"epoch": 1, "masked/nose": 0.5}, step=7)
        again.save()

    def check() -> None:
        rows, cut = read_rows(tmp_path / "metrics.csv")
        assert not cut
        assert rows[0]["train/loss"] == "1.5"
        rewind_history(tmp_path, before=4)
        [row], _ = read_rows(tmp_path / "metrics.csv")
        assert {key: value for key, value in row.items() if value} == first

    assert every_fault(tmp_path, add, check) >= 3


def test_a_cut_row_is_left_out_and_the_row_of_the_checkpoint_comes_back(tmp_path: Path) -> None:
    """Kind: a cut last row ends a resume in KeyError, and deletes the file."""
    path, row = tmp_path / "metrics.csv", {"epoch": 1, "step": 7, "train/loss": 1.25}
    path.write_text("epoch,step,train/loss,val/top1\n0,3,,50.0\n0,3,1.5,\n1,7,,60.0\n1,7,1.")
    [note] = rewind_history(tmp_path, 8, row)
    assert note.endswith("metrics.csv: its last row was incomplete and is left out")
    rows, _ = read_rows(path)
    assert [(one["epoch"], one["train/loss"]) for one in rows] == [
        *(("0", ""), ("0", "1.5"), ("1", ""), ("1", "1.25"))
    ]
    before = path.read_bytes()
    assert not rewind_history(tmp_path, 8, row)  # once is enough
    assert path.read_bytes() == before
    assert not rewind_history(tmp_path, 8, repeated=1)
    assert [one["val/top1"] for one in read_rows(path)[0]] == ["50.0", "", "60.0"]
    path.write_text("epoch,st")
    assert rewind_history(tmp_path, 8)


def test_results_are_whole_and_leftovers_go(tmp_path: Path) -> None:
    """Kind: half-written files, and what killed commands leave, for ever."""
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    assert every_fault(
        tmp_path,
        lambda: write_atomically(path, b"new"),
        lambda: path.read_bytes() in (b"old", b"new"),
    )
    gone = os.fork()
    if not gone:
        os._exit(0)
    os.waitpid(gone, 0)
    (tmp_path / f".a.{gone}.partial.json").write_bytes(b"ne")
    (tmp_path / f".s.h5.{gone}.partial").mkdir()
    (tmp_path / f".b.{os.getppid()}.partial.json").write_bytes(b"of a command that runs")
    (tmp_path / ".s.h5.partial").mkdir()  # of prepare, which goes on from it
    write_predictions(tmp_path, *(torch.zeros(1).numpy(),) * 3)
    kept = {".s.h5.partial", f".b.{os.getppid()}.partial.json", "a.json", "predictions.npz"}
    assert set(os.listdir(tmp_path)) == kept
    remove_leftovers(tmp_path / "nowhere")


def test_one_command_at_a_time_in_a_folder(tmp_path: Path) -> None:
    """Kind: two that continue one run mix their rows; a lock that outlives its command.

    A worker of the killed command still runs, as loaders do for seconds.
    """
    read, write = os.pipe()
    holder = os.fork()
    if not holder:
        with locked_folder(tmp_path / "run"):
            worker = os.fork()
            if worker:
                os.write(write, f"{worker}".encode())
            time.sleep(60)
        os._exit(0)
    worker = int(os.read(read, 20))
    try:
        with (
            pytest.raises(InputError, match="run: another command is writing there"),
            locked_folder(tmp_path / "run"),
        ):
            pass
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        with locked_folder(tmp_path / "run"):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
