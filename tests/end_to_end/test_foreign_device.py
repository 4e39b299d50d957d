"""Steps on a device that is not there (`foreign_steps.py`), in a process of their own.

torch counts its devices at the first backward pass of a process, and other tests need not know of
one more.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_steps_on_a_foreign_device() -> None:
    """Kind: tensors that stay on the CPU, and steps that wait for the device."""
    words = ["-q", "-p", "no:cacheprovider", "--noconftest", "tests/end_to_end/foreign_steps.py"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        **{"cwd": Path(__file__).parents[2], "env": env, "capture_output": True, "text": True},
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:]
