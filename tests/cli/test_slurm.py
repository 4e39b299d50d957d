"""Sweeps through submitit, with its local executor in the place of Slurm."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.commands import SMALL

pytestmark = pytest.mark.recipes


def tasks(folder: Path) -> list[int]:
    """Process ids of submitit's tasks that work in this folder."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            if b"submitit.core._submit" in command and (process / "cwd").resolve() == folder:
                pids.append(int(process.name))
        except OSError:  # it has ended, or belongs to another user
            continue
    return pids


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_preempted_job_is_requeued_and_continues(tmp_path: Path) -> None:
    overrides = ["seed=3", "source.clips=64", "trainer.max_epochs=12", *SMALL]
    launcher = ["launcher=slurm", "hydra/launcher=submitit_local", "hydra.launcher.gpus_per_node=0"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "maskclr_pl.train", "-m", *launcher, *overrides],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 200
        while not list(tmp_path.glob("runs/sweep/**/last.ckpt")):
            assert sweep.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        [task] = tasks(tmp_path.resolve())
        os.kill(task, signal.SIGUSR2)  # what submitit has Slurm send before it preempts a job
        output, _ = sweep.communicate(timeout=300)
    finally:
        sweep.kill()
    logs = "".join(path.read_text() for path in tmp_path.glob("runs/sweep/**/*_log.*"))
    assert sweep.returncode == 0, output + logs
    assert "this job is preempted" in logs
    [run] = [path.parent for path in tmp_path.glob("runs/sweep/**/metrics.json")]
    assert "from runs/sweep" in (run / "train.log").read_text()  # continued from last.ckpt
    with (run / "metrics.csv").open() as file:
        epochs = [row["epoch"] for row in csv.DictReader(file) if row["train/loss"]]
    assert epochs == [str(epoch) for epoch in range(12)]
