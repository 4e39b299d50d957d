"""Self-contained checkpoints.

Besides weights, a checkpoint holds the configuration as plain values, the skeleton of the data and
the class names, so the file alone is enough to evaluate. It opens with
`torch.load(weights_only=True)`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskclr_pl import __version__
from maskclr_pl.backbones.weight_files import is_weight, non_finite_tensors, read_weights
from maskclr_pl.command_line import shell_command
from maskclr_pl.config.build import build_method
from maskclr_pl.config.trust import BoundedTensors, refuse_untrusted, trusted_packages
from maskclr_pl.errors import InputError
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.runs.moved import update_config
from maskclr_pl.skeletons.skeleton import Skeleton

_LIMITS = {"frames": 10_000, "persons": 100}
"""Largest clip, by key of `data`: larger ones would exhaust the memory."""


def run_metadata(
    config: Mapping[str, Any],
    source: Skeleton,
    class_names: list[str],
    frames: Sequence[int] | np.ndarray = (),
    trained_on: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the plain values that make a checkpoint self-contained.

    Args:
        config: The resolved configuration of the run.
        source: Skeleton of the store that the model was trained on.
        class_names: Names of the classes.
        frames: Lengths of the training recordings; prediction derives its windows from their
            median and maximum.
        trained_on: Training clips, see `TrainingRecord.to_dict`.
    """
    lengths = {"median": int(np.median(frames)), "longest": int(max(frames))} if len(frames) else {}
    return {
        "config": dict(config),
        "source_skeleton": source.to_dict(),
        "class_names": list(class_names),
        "recording_frames": lengths,
        **({} if trained_on is None else {"trained_on": dict(trained_on)}),
        "versions": {"maskclr_pl": __version__, "torch": str(torch.__version__)},
    }


def checkpoint_path(run_or_file: str | Path, which: str = "best") -> Path:
    """Return the checkpoint file of a run folder, or the file itself.

    Raises:
        InputError: If there is none.
    """
    path = Path(run_or_file)
    if path.is_dir():
        for folder in (path / "checkpoints", path):
            if (folder / f"{which}.ckpt").is_file():
                return folder / f"{which}.ckpt"
        if (last := path / "checkpoints" / "last.ckpt").is_file():
            raise InputError(
                f"{path}: no {which}.ckpt, because no epoch so far had all stages in full; pass "
                f"{last} for the last epoch, or resume={path} to continue training"
            )
        raise InputError(f"{path}: no checkpoints/{which}.ckpt in this folder; is it a run folder?")
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; pass the run folder that train printed last")
    return path


def load_run(path: Path, trusted: Iterable[str] = ()) -> tuple[Method, dict[str, Any]]:
    """Load the trained method of a checkpoint, in eval mode, and its metadata.

    Args:
        path: Checkpoint file.
        trusted: Further packages whose classes may be instantiated.

    Raises:
        InputError: If the file is damaged, not written by `train`, or names untrusted classes.
    """
    content = read_weights(path)
    if not content.get("maskclr_pl"):
        raise InputError(f"{path}: not a checkpoint written by maskclr_pl.train")
    try:
        return _rebuild(content, path, trusted)
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        if isinstance(error.__cause__, InputError):  # wrapped by Hydra
            raise error.__cause__ from None
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: settings and weights do not form a model ({type(error).__name__}: {reason}); "
            "expected a checkpoint written by this version of maskclr_pl.train"
        ) from error


def load_classifier(path: Path, trusted: Iterable[str] = ()) -> tuple[Classifier, dict[str, Any]]:
    """Load a trained classifier; see `load_run`.

    Raises:
        InputError: Also if the method does not classify.
    """
    method, info = load_run(path, trusted)
    if not isinstance(method, Classifier):
        command = shell_command("train", "method=linear_probe", init_from=path)
        raise InputError(
            f"{path}: {type(method).__name__} is not a classifier; run `{command}` first"
        )
    return method, info


def _rebuild(
    content: Mapping[str, Any], path: Path, trusted: Iterable[str]
) -> tuple[Method, dict[str, Any]]:
    info = {**content["maskclr_pl"], "config": update_config(content["maskclr_pl"]["config"])}
    used = {key: info["config"].get(key) for key in ("method", "backbone", "head", "loss", "data")}
    used |= {key: info["config"][key] for key in ("augment", "optim", "clip")}
    refuse_untrusted(used, path, trusted_packages(trusted))
    names, data = info["class_names"], info["config"]["data"]
    if not isinstance(names, list) or not isinstance(data["path"], str):
        raise InputError(f"{path}: no data path or no class names; use another checkpoint")
    for key, limit in _LIMITS.items():
        if not 1 <= data.get(key, 1) <= limit:
            raise InputError(f"{path}: data.{key} is {data[key]}, expected 1 to {limit}")
    lengths = info.get("recording_frames") or {}
    if not isinstance(lengths, dict) or not all(type(n) is int for n in lengths.values()):
        raise InputError(f"{path}: recording_frames is {str(lengths)[:80]}, expected whole numbers")
    source = Skeleton.from_dict(info["source_skeleton"])
    state = validated_state_dict(content, path)
    with BoundedTensors(path, len(state)):
        method = build_method(info["config"], source, with_weights=False)
    method.load_state_dict(state)
    method.metadata = info
    return method.eval(), info


def validated_state_dict(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint by name.

    Raises:
        InputError: If there are none, or some are not finite.
    """
    if "state_dict" not in content:
        raise InputError(
            f"{path}: not a checkpoint written by maskclr_pl.train; for published weights pass "
            f"backbone.weights={path}"
        )
    state = content["state_dict"]
    if not isinstance(state, dict):
        raise InputError(f"{path}: its state_dict is a {type(state).__name__}, expected weights")
    for name, value in state.items():
        if not isinstance(name, str) or not is_weight(value):
            raise InputError(
                f"{path}: {name!r} in its state_dict is not a dense tensor ({type(value).__name__})"
            )
    _check_finite(state, path)
    return state


def _check_finite(state: Mapping[str, Any], path: str | Path) -> None:
    """Raise an InputError if weights are not finite."""
    if names := non_finite_tensors(state):
        raise InputError(
            f"{path}: {len(names)} of {len(state)} weights are not finite, the first is "
            f"{names[0]}; training diverged before this file was written; use an earlier "
            "checkpoint, or train again with a lower optim.lr"
        )
