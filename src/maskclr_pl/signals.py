"""SIGTERM and SIGUSR1, as batch systems send them."""

import os
import signal
import subprocess
from typing import Any, NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM: the command is to end, with exit code 143."""


def handle_signals() -> None:
    """Let SIGTERM end the command in order, and SIGUSR1, which would kill it, be nothing."""
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def ignore_signals() -> None:
    """Ignore them, and SIGINT: in a worker, whose end would take its parent down; at the end."""
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def requeue_job() -> str | None:
    """Ask Slurm to start the job of this process again; what came of it, None outside of Slurm."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"job {job} not requeued ({error.strerror})"
    if done.returncode:
        return f"job {job} not requeued ({' '.join(done.stderr.split())})"
    return f"job {job} requeued"


def _terminate(number: int, frame: Any) -> NoReturn:
    raise Terminated
