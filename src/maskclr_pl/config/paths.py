"""Where the configuration tree is."""

from pathlib import Path

from maskclr_pl.types import InputError


def config_dir() -> Path:
    """The folder `conf/`: the packaged copy if there is one, else the checkout's.

    Raises:
        InputError: If neither exists.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise InputError(f"no configuration tree beside {package}: install the package again")
