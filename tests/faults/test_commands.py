"""Commands on a full disk: one line, old results as they were, nothing half-written."""

import shutil
from pathlib import Path

import pytest

from tests.faults.tool import fault, full
from tests.helpers.commands import in_process, refused
from tests.helpers.run_folders import run_folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_an_evaluation_keeps_the_earlier_table(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: the earlier table is gone before the new one is there, and a traceback."""
    run = Path(shutil.copytree(toy_run / "run", tmp_path / "run"))
    shutil.copy(toy_run / "poses.h5", tmp_path)
    args = ["ckpt_path=run", "corruption=none", "figures=none", "device=cpu"]
    in_process("evaluate", *args, cwd=tmp_path, capsys=capsys)
    before = files(run)
    with fault(run, 3, full):
        line = refused("evaluate", *args, cwd=tmp_path, capsys=capsys)
    assert "cannot be written (No space left on device); free some space" in line
    assert files(run) == before


def test_a_report_leaves_no_folder_that_blocks_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: an empty config.yaml, with the advice to resume a report."""
    run_folder(tmp_path / "a")
    args = ["runs=[a]", "kind=table", "output_dir=table"]
    with fault(tmp_path / "table", 6, full):
        line = refused("report", *args, cwd=tmp_path, capsys=capsys)
    assert "No space left on device" in line
    assert not (tmp_path / "table").exists()
    in_process("report", *args, cwd=tmp_path, capsys=capsys)
    assert (tmp_path / "table/config.yaml").stat().st_size
    line = refused("report", *args, cwd=tmp_path, capsys=capsys)
    assert "table holds results already; pass another output_dir=" in line


@pytest.mark.parametrize("args", [["source=null"], ["experiment=demo", "data=custom"]], ids=str)
def test_settings_without_data(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: a traceback for a data file that nobody named."""
    assert refused("train", *args, cwd=tmp_path, capsys=capsys)
    assert not list(tmp_path.iterdir())
