"""Train from a test without the command line."""

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from maskclr_pl import train
from maskclr_pl.cli import check_values
from maskclr_pl.config import compose


def run_train(*overrides: str, cwd: Path) -> float | None:
    """Train in a folder with overrides of `conf/train.yaml`; return the objective."""
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        cfg = compose(overrides)
        check_values(cfg)
        return train.run(cfg, overrides)
