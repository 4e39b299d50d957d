"""SIGTERM and SIGUSR1, as batch systems send them."""

import os
import signal
import subprocess
from typing import Any, NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM: end the command with exit code 143."""


def handle_signals() -> None:
    """Let SIGTERM raise `Terminated`, and ignore SIGUSR1, which would kill the process."""
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def ignore_signals() -> None:
    """Ignore SIGTERM, SIGINT and SIGUSR1: in workers, which the parent ends, and at the exit."""
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def requeue_job() -> str | None:
    """Ask Slurm to requeue the job of this process; return the outcome, None outside of Slurm."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    try:
        result = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"job {job} not requeued ({error.strerror})"
    if result.returncode:
        return f"job {job} not requeued ({' '.join(result.stderr.split())})"
    return f"job {job} requeued"


def _terminate(number: int, frame: Any) -> NoReturn:
    raise Terminated
