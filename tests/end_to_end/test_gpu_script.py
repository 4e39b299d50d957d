"""`make gpu`: its code, on a CPU with tiny sizes; what it says where there is no GPU."""

import json
import time

import pytest
import torch
from benchmarks import gpu, gpu_parts, step

from tests.helpers.commands import symbolic_sizes

pytestmark = pytest.mark.recipes

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line(capsys, tmp_path):
    assert gpu.main(["--output", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert line.startswith("error: no GPU: torch ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "part", ["smoke", "memory", "compile", "bench", pytest.param("run", marks=pytest.mark.recipes)]
)
def test_every_part_runs_on_a_cpu(part, monkeypatch):
    """Kind: code for a GPU that was never run."""
    monkeypatch.setattr(step, "product_rate", lambda device, dtype: 1e11)
    monkeypatch.setattr(gpu_parts, "EVERY", gpu_parts.EVERY[:: len(gpu_parts.EVERY) // 4])
    with symbolic_sizes():
        rows = gpu_parts.PARTS[part](CPU, True, time.monotonic() + 500)
    assert rows
    assert {row["state"] for row in rows} == {"ok"}, rows
    measured = {"memory": "estimate GB", "bench": "of the largest product", "run": "what"}
    assert measured.get(part, "what") in rows[0]


def test_the_budgets_are_less_than_eight_minutes():
    assert gpu.BUDGETS.keys() == gpu_parts.PARTS.keys()
    assert sum(gpu.BUDGETS.values()) < 480


def test_without_time_left_a_row_says_so():
    rows = list(gpu_parts.rows_of({"one": dict}, time.monotonic() - 1, CPU))
    assert rows == [{"what": "one", "state": "left out", "why": "no time left"}]


def test_a_failure_is_a_row():
    def fail():
        raise RuntimeError("two\nlines")

    rows = list(gpu_parts.rows_of({"bad": fail, "good": dict}, time.monotonic() + 9, CPU))
    assert [row["state"] for row in rows] == ["failed", "ok"]
    assert rows[0]["why"] == "RuntimeError: two lines"


def test_parts_run_again_replace_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "run_part", lambda part, *_: [{"what": part, "state": "ok"}])
    words = ["--output", str(tmp_path), "--device", "cpu"]
    assert gpu.main(words) == 0
    monkeypatch.setattr(gpu, "run_part", lambda part, *_: [{"what": "x|y", "state": "failed"}])
    assert gpu.main([*words, "--part", "memory"]) == 1
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(parts) == list(gpu.BUDGETS)
    assert {name for name, rows in parts.items() if rows[0]["state"] == "failed"} == {"memory"}
    page = (tmp_path / "gpu.md").read_text()
    assert "## memory: 0 of 1 in order" in page
    assert "| x/y | failed |" in page


def test_a_part_that_hangs_is_ended(tmp_path, monkeypatch, capsys):
    """Kind: a machine that is paid for while a check hangs."""
    monkeypatch.setitem(gpu.BUDGETS, "smoke", 0.1)
    [row] = gpu.run_part("smoke", ["--device", "cpu", "--tiny"], tmp_path)
    assert row == {"what": "smoke", "state": "failed", "why": "not done after 0.1 s"}
