"""environment.json: with what a run was made, so that it can be made again."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import maskclr_pl
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.files import write_atomically
from maskclr_pl.reading import read_json
from maskclr_pl.types import InputError

PACKAGES = (
    *("maskclr_pl", "torch", "lightning", "hydra-core", "omegaconf", "torchmetrics"),
    *("numpy", "h5py", "matplotlib"),
)
"""Whose versions are kept."""


def collect_environment(
    data: SkeletonDataModule, device: torch.device, devices: int, command: Sequence[str]
) -> dict[str, Any]:
    """Versions, hardware, data and command of a run; no name of a host or user.

    Args:
        data: What the run is trained and tested on.
        device: Of the first process.
        devices: How many there are.
        command: Words of the command line.
    """
    return {
        "command": [shorten_home(word) for word in command],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "code": _commit(Path(maskclr_pl.__file__).resolve().parents[2]),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(device),
        "devices": devices,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "data": describe_data(data),
    }


def write_environment(folder: Path, values: Mapping[str, Any], new: bool = False) -> None:
    """Write `environment.json`; that of a run that is continued is kept, and added to.

    Then `continued` lists the later ones.

    Args:
        folder: Of the run.
        values: See `collect_environment`.
        new: Whether a run begins here; what a killed start left is replaced.
    """
    first = {} if new else read_environment(folder)
    if first:
        values = {**first, "continued": [*first.get("continued", []), values]}
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "environment.json", text.encode("utf-8", "backslashreplace"))


def read_environment(folder: Path) -> dict[str, Any]:
    """`environment.json` of a run; {} if there is none that can be read."""
    try:
        values = read_json(folder / "environment.json")
    except InputError:
        return {}
    return values if isinstance(values, dict) else {}


def shorten_home(text: str) -> str:
    """A text without the path of the home folder, which names the user."""
    home = Path.home()
    return text if home == Path(home.anchor) else text.replace(str(home), "~")


def describe_data(data: SkeletonDataModule) -> dict[str, Any]:
    """Where the clips of a run are, how many, and hashes of what they hold."""
    store = data.store
    poses = None
    if store.digest is not None:
        content = hashlib.sha256(store.digest.tobytes())
        content.update(store.label.tobytes())
        poses = content.hexdigest()
    return {
        "path": shorten_home(str(store.path)),
        "source_sha256": store.source_hash,
        # of the poses and labels as they are stored, whatever file they came from
        "poses_sha256": poses,
        "skeleton": store.skeleton.name,
        "coordinates": store.coordinates,
        "clips": len(store),
        "train_clips": len(data.train),
        "validation_clips": len(data.val),
        "test_clips": len(data.test),
        "classes": store.class_names,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def device_name(device: torch.device) -> str:
    """Name of a GPU or processor, where the system knows it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = ""
    if device.type == "cpu":
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        name = next((line.split(":", 1)[1] for line in lines if line.startswith("model name")), "")
        name = name or platform.processor()
    return f"{device.type} ({name.strip()})" if name.strip() else device.type


def _commit(checkout: Path) -> str | None:
    """Commit of the checkout that the package lies in, and whether files differ from it."""
    if not (checkout / ".git").exists():  # installed, perhaps inside of somebody's repository
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(checkout), *words],
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
            ).stdout.strip()
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.SubprocessError):  # no git, or not the owner: nothing to say
        return None
    return f"{commit}, with uncommitted changes" if changes else commit
