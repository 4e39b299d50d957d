"""Trainings that are killed, run out of disk, are started again and continued."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from maskclr_pl.cli import locked_folder
from maskclr_pl.runs.history import read_rows
from tests.faults.tool import Killed, fault, full
from tests.helpers.commands import in_process, refused
from tests.training.test_resuming import WORDS

pytestmark = pytest.mark.slow

EPOCHS = 4
ARGS = [*WORDS, f"trainer.max_epochs={EPOCHS}", "masking.start_epoch=1", "data.num_workers=0"]
TRAIN = [*ARGS, "output_dir=run"]


class Place:
    """A folder with `poses.h5` and `run`, which has all its epochs."""

    def __init__(self, folder: Path, operations: list[str]):
        self.folder, self.operations = folder, operations

    def after(self, operation: str, count: int = 1) -> int:
        """Position of the operation that follows the `count`-th one of a name."""
        found = [i for i, one in enumerate(self.operations, 1) if one.endswith(operation)]
        return found[count - 1] + 1


@pytest.fixture(scope="module")
def whole(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(toy_run / "poses.h5", folder)
    silent = type("Silent", (), {"readouterr": lambda _: type("", (), {"out": "", "err": ""})})
    with fault(folder / "run", at=10**9) as operations:
        in_process("train", *TRAIN, cwd=folder, capsys=silent())
    return Place(folder, operations)


def outcome(run: Path) -> tuple[list[dict[str, str]], str, dict[str, torch.Tensor]]:
    """What must not depend on kills: metrics, masks, weights."""
    rows, cut = read_rows(run / "metrics.csv")
    assert not cut
    assert not list(run.rglob(".*.partial*"))
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    return rows, (run / "masked_by_class.csv").read_text(), best["state_dict"]


def same(run: Path, other: Path) -> None:
    (rows, masks, weights), (rows_2, masks_2, weights_2) = outcome(run), outcome(other)
    assert rows == rows_2
    assert masks == masks_2
    for name, value in weights.items():
        torch.testing.assert_close(weights_2[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.recipes
def test_a_training_that_is_stopped_in_every_way_ends_as_if_it_were_not(
    whole: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kinds: a folder that can neither be started nor resumed; a row that is lost between its
    checkpoint and metrics.csv; a traceback for a full disk.
    """
    shutil.copy(whole.folder / "poses.h5", tmp_path)
    run = tmp_path / "run"
    auto = [*TRAIN, "resume=auto"]

    def killed(at: int, args: list[str]) -> None:
        with pytest.raises(Killed), fault(run, at):
            in_process("train", *args, cwd=tmp_path, capsys=capsys)

    killed(3, TRAIN)  # in the first milliseconds
    assert not (run / "config.yaml").exists()
    killed(whole.after("/last.ckpt", 2), TRAIN)  # between the checkpoint and the row of an epoch
    rows, _ = read_rows(run / "metrics.csv")
    assert [row["epoch"] for row in rows if row.get("train/loss")] == ["0"]
    line = refused("train", *TRAIN, cwd=tmp_path, capsys=capsys)
    assert "run holds a run already; pass resume=run to continue it, " in line
    with fault(run, 12, full):
        line = refused("train", *auto, cwd=tmp_path, capsys=capsys)
    assert "cannot be written (No space left on device); free some space" in line
    # the last epoch is done, but nothing that comes after it
    last = [i for i, one in enumerate(whole.operations, 1) if one.endswith("/last.ckpt")][-1]
    first = whole.after("/last.ckpt", 2)
    killed(last - first + 14, auto)
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] >= 2
    printed = in_process("train", *auto, cwd=tmp_path, capsys=capsys)
    assert "resume " in printed
    same(whole.folder / "run", run)


def test_an_automatic_resume_is_one_of_the_same_run(
    whole: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: a requeue, which repeats its command, cannot go on; or goes on with other settings."""

    def train(*args: str) -> str:
        return refused("train", *args, cwd=whole.folder, capsys=capsys)

    line = train(*TRAIN, "resume=auto", "optim.lr=0.5")
    assert "optim.lr=0.5: the resumed run has optim.lr=0.001" in line
    line = train(*(word for word in TRAIN if "start_epoch" not in word), "resume=auto")
    assert "was started with masking.start_epoch=1" in line
    assert "pass output_dir=FOLDER" in train(*ARGS, "resume=auto")
    with holding(whole.folder / "run"):
        assert "run: another command is writing there" in train("resume=run")


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Another process trains in a folder."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with locked_folder(folder):
            os.write(write, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(read, 1)
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_damaged_files_of_a_run(
    whole: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: a traceback, or an end without a way on, for cut files."""
    folder = Path(shutil.copytree(whole.folder, tmp_path / "copy"))
    config, best, last = (
        folder / "run" / name
        for name in ("config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt")
    )
    best.write_bytes(best.read_bytes()[:1000])
    line = refused("train", "resume=run", cwd=folder, capsys=capsys)
    assert "best.ckpt: not a readable checkpoint" in line
    assert "all 4 epochs are done; pass trainer.max_epochs=8 to continue" in line
    config.write_text("data: [1,")
    last.write_bytes(b"")
    printed = in_process("train", "resume=run", "trainer.max_epochs=5", cwd=folder, capsys=capsys)
    assert "config.yaml is missing or damaged; settings are read from run/checkpoints/" in printed
    assert "last.ckpt: not a readable checkpoint" in printed
    assert "the run continues from run/checkpoints/last-1.ckpt" in printed
    assert "best.ckpt: not a readable checkpoint" in printed
    assert "selected again from the coming epochs" in printed
    assert torch.load(best, weights_only=True)["epoch"] == 4
    assert "max_epochs: 5" in config.read_text()
    shutil.rmtree(folder / "run/checkpoints")
    config.write_text("")
    line = refused("train", "resume=run", cwd=folder, capsys=capsys)
    assert "neither a readable config.yaml nor a checkpoint" in line
