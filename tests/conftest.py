"""Settings of the whole suite: shapes are checked while the tests run, and only then."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from tests.helpers import typechecker  # noqa: F401  # the hook looks it up in the package

jaxtyping.install_import_hook("maskclr_pl", "tests.helpers.typechecker.check")

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

from tests.helpers.commands import toy_commands  # noqa: E402

torch.set_num_threads(1)  # reproducible sums; several cores gain nothing at these sizes
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same in the commands that tests start
settings.register_profile("suite", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("suite")


_savefig = Figure.savefig


def _blank(figure: Figure, target: Any, **options: Any) -> None:
    """A file in the place of a figure: rendering is more than half of a short training."""
    if not isinstance(target, Path):  # a frame of an animation
        _savefig(figure, target, **options)
    elif target.suffix == ".svg":
        target.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    else:
        Image.new("RGB", (1, 1), "white").save(target)


Figure.savefig = _blank


@pytest.fixture(autouse=True)
def _figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are rendered in tests that are marked with `figures`."""
    if request.node.get_closest_marker("figures"):
        monkeypatch.setattr(Figure, "savefig", _savefig)


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    """Forget modules imported from temporary folders: another test may write one of that name."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None)
        if path and Path(path).is_relative_to(tempfile.gettempdir()):
            del sys.modules[name]


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `poses.pkl` (COCO-17, two classes), `poses.h5`, and `run`, trained on it."""
    return toy_commands(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """W&B without an account, and nothing written outside of temporary folders."""
    import wandb

    from tests.helpers.wandb_tools import environment

    for name in ("WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment(tmp_path_factory.mktemp("home")).items():
        monkeypatch.setenv(name, value)
    wandb.teardown()  # it keeps the environment that it saw first
    monkeypatch.setattr(logging.getLogger("maskclr_pl"), "handlers", [])  # of earlier commands
