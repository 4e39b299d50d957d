"""Self-contained checkpoints, and weights from elsewhere.

A checkpoint holds, beside the weights, the plain values of the configuration, the skeleton of the
data and the class names, so that the file alone is enough to evaluate. It opens with
`torch.load(weights_only=True)`.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from maskclr_pl import __version__
from maskclr_pl.backbones.weights import is_weight, load_published_weights, read_weights
from maskclr_pl.finite import refuse_not_finite
from maskclr_pl.layouts import load_skeleton
from maskclr_pl.methods import Method
from maskclr_pl.skeletons import Skeleton
from maskclr_pl.transforms import Convert, Stream, as_released
from maskclr_pl.trust import BoundedTensors, refuse_untrusted, trusted_packages
from maskclr_pl.types import InputError

__all__ = [
    "build_method",
    "built_from",
    "checkpoint_path",
    "clip_skeleton",
    "load_published_weights",
    "load_run",
    "metadata",
    "state_of",
]

_MOST = {"frames": 10_000, "persons": 100}
"""Of a clip, by key of `data`: every clip would fill the memory."""

VIEWS = ("extreme",)
"""Views of a clip that an augmentation may make beside `augment` and `preprocess`."""


def metadata(
    config: Mapping[str, Any],
    source: Skeleton,
    class_names: list[str],
    frames: Sequence[int] | np.ndarray = (),
    trained_on: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The plain values that make a checkpoint self-contained.

    Args:
        config: The resolved configuration of the run.
        source: Skeleton of the store that the model was trained on.
        class_names: Names of the classes.
        frames: Lengths of the recordings that the model is trained on; their median and the
            largest say later into which windows a video is cut.
        trained_on: The clips that the weights were trained on, see `TrainingRecord.plain`.
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


def build_method(config: Mapping[str, Any], source: Skeleton, with_weights: bool = True) -> Method:
    """The method of a configuration: backbone, head, loss, transforms put together.

    Args:
        config: Plain values, or a DictConfig; uses `method backbone head loss augment optim clip`.
        source: Skeleton of the clips as the data module delivers them.
        with_weights: Start from `backbone.weights`; False where a checkpoint is loaded next, so
            that the file may be gone.
    """
    cfg = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    target = clip_skeleton(cfg.clip.skeleton, source)
    without = {} if with_weights or "weights" not in cfg.backbone else {"weights": None}
    backbone = hydra.utils.instantiate(cfg.backbone, **without, _convert_="all")
    parts: dict[str, Any] = {
        "backbone": backbone,
        "optim": hydra.utils.instantiate(cfg.optim),
        "skeleton": target,
    }
    confidence = cfg.augment.coordinates == "pixels"
    released = bool(cfg.clip.get("released"))
    # released_scores: all that compat=released was in earlier runs, which are read as trained
    released_scores = released or bool(cfg.clip.get("released_scores"))
    convert = Convert(source, target, confidence, released_scores)
    stream = []
    if cfg.clip.get("stream", "joint") != "joint":
        stream.append(Stream(target, cfg.clip.stream, confidence))
    for name in ("augment", "preprocess", *_further_views(cfg)):
        steps = hydra.utils.instantiate(cfg.augment[name], _convert_="all")
        if released:
            as_released(steps)
        # the clip's joints come first: the published order is convert, move, crop; streams last
        parts[name] = nn.Sequential(convert, *steps, *stream)
    if "head" in cfg:
        with built_from("head"):
            parts["head"] = hydra.utils.instantiate(cfg.head)(dim=backbone.dim)
    if "loss" in cfg:
        parts["loss"] = hydra.utils.instantiate(cfg.loss, _convert_="all")
    # not as arguments of instantiate: it would turn our dataclasses into configurations
    make: Callable[..., Method] = hydra.utils.instantiate(cfg.method, _partial_=True)
    with built_from("method"):
        return make(**parts)


@contextmanager
def built_from(key: str) -> Iterator[None]:
    """Errors of a constructor that runs inside become an InputError that names the settings.

    Args:
        key: Node of the configuration that the object is built from.
    """
    try:
        yield
    except (InputError, HydraException, OmegaConfBaseException):
        raise
    except Exception as error:  # whatever the constructor raises for values that it cannot use
        raise InputError(f"{key}: {' '.join(str(error).split())[:300]}") from error


def _further_views(cfg: DictConfig) -> list[str]:
    """The views, beside the normal one, that the method's constructor asks for by name.

    Raises:
        InputError: If the augmentation does not make one of them.
    """
    asked = inspect.signature(hydra.utils.get_object(cfg.method._target_)).parameters
    views = [name for name in VIEWS if name in asked]
    for name in views:
        if name not in cfg.augment:
            raise InputError(
                f"this method needs a view `{name}`, which this augment= does not make; type "
                "augment=aimclr for 3D joints, augment=aimclr_2d for 2D poses"
            )
    return views


def clip_skeleton(name: str | None, source: Skeleton) -> Skeleton:
    """The layout that the backbone sees; None is the layout of the data."""
    return source if name is None else load_skeleton(name)


def checkpoint_path(run_or_file: str | Path, which: str = "best") -> Path:
    """A checkpoint file from a run folder or the file itself.

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
                f"{path}: no {which}.ckpt yet: no epoch of this training had all its stages; pass "
                f"{last} for the last epoch so far, or resume={path} to train on"
            )
        raise InputError(f"{path}: no checkpoints/{which}.ckpt in this folder; is it a run folder?")
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; type the run folder that train printed last")
    return path


def load_run(path: Path, trusted: Iterable[str] = ()) -> tuple[Method, dict[str, Any]]:
    """The trained method of one of our checkpoints, in eval mode, and its metadata.

    Args:
        path: Checkpoint file.
        trusted: Further packages whose classes may be made.

    Raises:
        InputError: If the file is not ours, is damaged, or asks for a class that is not trusted.
    """
    content = read_weights(path)
    if not content.get("maskclr_pl"):
        raise InputError(f"{path}: not a checkpoint written by maskclr_pl.train")
    try:
        return _rebuilt(content, path, trusted)
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        if isinstance(error.__cause__, InputError):  # in what Hydra made
            raise error.__cause__ from None
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: its settings and weights do not make a model ({type(error).__name__}: "
            f"{reason}); expected a checkpoint of maskclr_pl.train, as this version writes them"
        ) from error


def _rebuilt(
    content: Mapping[str, Any], path: Path, trusted: Iterable[str]
) -> tuple[Method, dict[str, Any]]:
    info = content["maskclr_pl"]
    used = {key: info["config"].get(key) for key in ("method", "backbone", "head", "loss", "data")}
    used |= {key: info["config"][key] for key in ("augment", "optim", "clip")}
    refuse_untrusted(used, path, trusted_packages(trusted))
    names, data = info["class_names"], info["config"]["data"]
    if not isinstance(names, list) or not isinstance(data["path"], str):
        raise InputError(f"{path}: does not say what data and classes it was trained on")
    for key, most in _MOST.items():
        if not 1 <= data.get(key, 1) <= most:
            raise InputError(f"{path}: data.{key} is {data[key]}, expected 1 to {most}")
    lengths = info.get("recording_frames") or {}
    if not isinstance(lengths, dict) or not all(type(one) is int for one in lengths.values()):
        raise InputError(f"{path}: recording_frames is {str(lengths)[:80]}, expected whole numbers")
    source = Skeleton.from_dict(info["source_skeleton"])
    state = state_of(content, path)
    with BoundedTensors(path, len(state)):
        method = build_method(info["config"], source, with_weights=False)
    method.load_state_dict(state)
    method.metadata = info
    return method.eval(), info


def state_of(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The names and tensors of a checkpoint.

    Raises:
        InputError: If it holds none, or values that are not finite.
    """
    if "state_dict" not in content:
        raise InputError(
            f"{path}: not a checkpoint written by maskclr_pl.train; for weights that others "
            f"published type backbone.weights={path}"
        )
    state = content["state_dict"]
    if not isinstance(state, dict):
        raise InputError(f"{path}: its state_dict is a {type(state).__name__}, expected weights")
    for name, value in state.items():
        if not isinstance(name, str) or not is_weight(value):
            raise InputError(
                f"{path}: {name!r} in its state_dict is no weight ({type(value).__name__})"
            )
    refuse_not_finite(state, path)
    return state
