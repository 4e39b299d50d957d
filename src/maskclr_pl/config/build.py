"""Build the method that a configuration describes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from maskclr_pl.errors import InputError
from maskclr_pl.methods import Method
from maskclr_pl.skeletons import Skeleton, load_skeleton
from maskclr_pl.transforms import Convert, Stream, set_released


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
    for name in ("augment", "preprocess", *_extra_views(cfg)):
        steps = hydra.utils.instantiate(cfg.augment[name], _convert_="all")
        if released:
            set_released(steps)
        # the clip's joints come first: the published order is convert, move, crop; streams last
        parts[name] = nn.Sequential(convert, *steps, *stream)
    if "head" in cfg:
        with blame_setting("head"):
            parts["head"] = hydra.utils.instantiate(cfg.head)(dim=backbone.dim)
    if "loss" in cfg:
        parts["loss"] = hydra.utils.instantiate(cfg.loss, _convert_="all")
    # not as arguments of instantiate: it would turn our dataclasses into configurations
    make: Callable[..., Method] = hydra.utils.instantiate(cfg.method, _partial_=True)
    with blame_setting("method"):
        return make(**parts)


@contextmanager
def blame_setting(key: str) -> Iterator[None]:
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


def _extra_views(cfg: DictConfig) -> tuple[str, ...]:
    """Return the views that the method needs beside `augment` and `preprocess`.

    Raises:
        InputError: If `augment=` does not define one of them.
    """
    views: tuple[str, ...] = getattr(hydra.utils.get_object(cfg.method._target_), "views", ())
    for name in views:
        if name not in cfg.augment:
            raise InputError(
                f"this method needs a view `{name}`, which this augment= does not make; pass "
                "augment=aimclr for 3D joints, augment=aimclr_2d for 2D poses"
            )
    return views


def clip_skeleton(name: str | None, source: Skeleton) -> Skeleton:
    """The layout that the backbone sees; None is the layout of the data."""
    return source if name is None else load_skeleton(name)
