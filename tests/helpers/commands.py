"""Commands for the tests: as a user types them, in this process (fast) or in one of their own."""

import os
import pickle
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

SILENT: Any = SimpleNamespace(readouterr=lambda: SimpleNamespace(out="", err=""))
"""In the place of `capsys` in a fixture of a module: what is printed is not looked at."""
SMALL = ["backbone=dstformer_tiny", "head=action_small", "clip.frames=8", "data.num_workers=0"]


@contextmanager
def symbolic_sizes() -> Iterator[None]:
    """Without checks of shapes and types: the sizes of a graph are symbols, which they refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def in_process(name: str, *args: str, cwd: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `python -m maskclr_pl.<name> args` prints; fails the test if the command fails."""
    import importlib

    module = importlib.import_module(f"maskclr_pl.{name}")
    before, argv = Path.cwd(), sys.argv
    capsys.readouterr()
    try:
        os.chdir(cwd)
        sys.argv = [module.__file__ or name, *args]
        GlobalHydra.instance().clear()
        with symbolic_sizes() if name == "export" else nullcontext():
            module.main()
    except SystemExit as stop:
        shown = capsys.readouterr()
        raise AssertionError(f"{name} {args}: {stop.code}\n{shown.out}{shown.err}") from None
    finally:
        os.chdir(before)
        sys.argv = argv
    return capsys.readouterr().out


def refused(name: str, *args: str, cwd: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The error that a command ends with: one line, or one and indented steps below it.

    Fails the test if it ends in another way.
    """
    with pytest.raises(AssertionError) as failure:
        in_process(name, *args, cwd=cwd, capsys=capsys)
    code, *lines = str(failure.value).split(": ", 1)[1].splitlines()
    assert code == "2", failure.value
    [start] = [i for i, one in enumerate(lines) if one.startswith("error: ")]
    assert all(one.startswith("  ") for one in lines[start + 1 :]), failure.value
    return "\n".join(lines[start:])


def in_subprocess(
    name: str, *args: str, cwd: Path, python: str = sys.executable, **env: str
) -> str:
    """The same in a process of its own, with a W&B service of its own."""
    inherited = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    run = subprocess.run(
        [python, "-m", f"maskclr_pl.{name}", *args],
        cwd=cwd,
        env={**inherited, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def shell_line(line: str, cwd: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A command line as it stands, but with few and short clips, and shortened by `debug=fast`."""
    words = shlex.split(line)
    with pytest.MonkeyPatch.context() as patch:
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            patch.setenv(name, value)
            if name == "PYTHONPATH":
                patch.syspath_prepend(str(cwd / value))
        patch.setenv("WANDB_SILENT", "true")
        assert words[0].endswith("python"), line
        assert words[1] == "-m", line
        name = words[2].removeprefix("maskclr_pl.")
        args = words[3:]
        if name == "train" and "debug=check" not in args:
            args += ["debug=fast"]
        if name == "train" and not any(a.startswith(("data=", "init_from=")) for a in args):
            args += ["source.clips=96"]
        if name == "train" and "data=custom" in args and "debug=check" not in args:
            args += ["clip.frames=16"]
        if name == "train" and not any(a.startswith("experiment=") for a in args):
            args += ["data.batch_size=8"]
        if name == "evaluate":
            args = [word for word in args if not word.startswith("draws=")] + ["draws=1"]
            args += [] if any(a.startswith("figures=") for a in args) else ["figures=none"]
        return in_process(name, *args, cwd=cwd, capsys=capsys)


def last_line(output: str) -> str:
    return output.strip().splitlines()[-1]


def pyskl_file(path: Path, clips: int = 24, joints: int = 17) -> Path:
    """A pyskl pickle with two easy classes: arms up or down."""
    rng = np.random.default_rng(0)
    annotations = []
    for i in range(clips):
        frames = int(rng.integers(10, 20))
        keypoint = rng.normal(0, 5, (1, frames, joints, 2)) + np.array([960, 540])
        keypoint[..., 7:11, 1] += 200 * (1 if i % 2 else -1)
        annotations.append(
            {
                "frame_dir": f"clip{i:03d}",
                "label": i % 2,
                "img_shape": (1080, 1920),
                "original_shape": (1080, 1920),
                "total_frames": frames,
                "keypoint": keypoint.astype(np.float16),
                "keypoint_score": np.full((1, frames, joints), 0.9, np.float16),
            }
        )
    names = [annotation["frame_dir"] for annotation in annotations]
    split = {"train": names[: clips * 2 // 3], "test": names[clips * 2 // 3 :]}
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}))
    return path


def toy_commands(folder: Path, *words: str) -> Path:
    """Make `poses.pkl` (COCO-17, two classes), `poses.h5`, and `run`, which is trained on it."""
    pyskl_file(folder / "poses.pkl")
    command = partial(in_process, cwd=folder, capsys=SILENT)
    command("prepare", "source=pyskl", "input=poses.pkl", "output=poses.h5", "skeleton=coco17")
    data = ["data=custom", "data.path=poses.h5", "data.train_split=train", "data.test_split=test"]
    data += ["data.batch_size=8", "trainer.max_epochs=3", "output_dir=run"]
    command("train", *data, *SMALL, *words)
    return folder
