"""Where the configuration tree is, and how it is composed from Python."""

from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from maskclr_pl.errors import InputError


def config_dir() -> Path:
    """Return the folder `conf/`: the packaged copy if there is one, else that of the checkout.

    Raises:
        InputError: If neither exists.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise InputError(f"no configuration tree beside {package}; install the package again")


def compose(overrides: Sequence[str], command: str = "train") -> DictConfig:
    """Compose the configuration of a command, inside or outside of a Hydra application."""
    if not GlobalHydra.instance().is_initialized():
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            return hydra.compose(command, list(overrides))
    if HydraConfig.initialized():  # --config-name may name another file
        command = HydraConfig.get().job.config_name or command
    return hydra.compose(command, list(overrides))
