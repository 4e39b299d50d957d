"""environment.json: versions, hardware and data of a run, to reproduce it."""

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
from maskclr_pl.errors import InputError
from maskclr_pl.files import write_atomically
from maskclr_pl.reading import read_json

PACKAGES = (
    "maskclr_pl",
    "torch",
    "lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
    "numpy",
    "h5py",
    "matplotlib",
)
"""Packages whose versions are recorded."""


def collect_environment(
    data: SkeletonDataModule, device: torch.device, devices: int, command: Sequence[str]
) -> dict[str, Any]:
    """Collect versions, hardware, data and command of a run, without names of hosts or users.

    Args:
        data: Data of the training and the test.
        device: Device of the first process.
        devices: Number of devices.
        command: The command line, split.
    """
    return {
        "command": [shorten_home(argument) for argument in command],
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
    """Write `environment.json`; a resumed run keeps its own and lists later ones as `continued`.

    Args:
        folder: Run folder.
        values: See `collect_environment`.
        new: True for a run that starts here; the file of an earlier, killed start is replaced.
    """
    first = {} if new else read_environment(folder)
    if first:
        values = {**first, "continued": [*first.get("continued", []), values]}
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "environment.json", text.encode("utf-8", "backslashreplace"))


def read_environment(folder: Path) -> dict[str, Any]:
    """Read `environment.json`; {} if it is missing or damaged."""
    try:
        values = read_json(folder / "environment.json")
    except InputError:
        return {}
    return values if isinstance(values, dict) else {}


def shorten_home(text: str) -> str:
    """Replace the path of the home folder, which names the user, by ~."""
    home = Path.home()
    return text if home == Path(home.anchor) else text.replace(str(home), "~")


def describe_data(data: SkeletonDataModule) -> dict[str, Any]:
    """Describe the data of a run: path, hashes, joints, classes and numbers of clips."""
    store = data.store
    poses_sha256 = None
    if store.digest is not None:
        content = hashlib.sha256(store.digest.tobytes())
        content.update(store.label.tobytes())
        poses_sha256 = content.hexdigest()
    return {
        "path": shorten_home(str(store.path)),
        "source_sha256": store.source_hash,
        # hash of poses and labels, independent of the file they were read from
        "poses_sha256": poses_sha256,
        "skeleton": store.skeleton.name,
        "coordinates": store.coordinates,
        "clips": len(store),
        "train_clips": len(data.train),
        "validation_clips": len(data.val),
        "test_clips": len(data.test),
        "classes": store.class_names,
    }


def device_name(device: torch.device) -> str:
    """Model of a GPU or CPU, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = _cpu_name() if device.type == "cpu" else ""
    return f"{device.type} ({name})" if name else device.type


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor().strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(checkout: Path) -> str | None:
    """Commit of the package's checkout, and whether it has uncommitted changes."""
    if not (checkout / ".git").exists():  # installed, perhaps inside another repository
        return None
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        changes = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):  # no git, or a checkout of another user
        return None
    return f"{commit}, with uncommitted changes" if changes else commit


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    return result.stdout.strip()
