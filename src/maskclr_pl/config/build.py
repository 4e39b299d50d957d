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
    """Build a method: backbone, head, loss, optimizer settings and transforms.

    Args:
        config: Plain values or a DictConfig, of which the groups `method`, `backbone`, `head`,
            `loss`, `augment`, `optim` and `clip` are used.
        source: Skeleton of the clips that the data module delivers.
        with_weights: Load `backbone.weights`; False where a checkpoint is loaded next, so that
            the file need not exist any more.
    """
    cfg = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    target = clip_skeleton(cfg.clip.skeleton, source)
    without = {} if with_weights or "weights" not in cfg.backbone else {"weights": None}
    backbone = hydra.utils.instantiate(cfg.backbone, **without, _convert_="all")
    parts: dict[str, Any] = {
        "backbone": backbone,
        "optim": hydra.utils.instantiate(cfg.optim),
        "skeleton": target,
        **build_transforms(cfg, source, target),
    }
    if "head" in cfg:
        with blame_setting("head"):
            parts["head"] = hydra.utils.instantiate(cfg.head)(dim=backbone.dim)
    if "loss" in cfg:
        parts["loss"] = hydra.utils.instantiate(cfg.loss, _convert_="all")
    # not as arguments of instantiate, which would turn our dataclasses into configurations
    make: Callable[..., Method] = hydra.utils.instantiate(cfg.method, _partial_=True)
    with blame_setting("method"):
        return make(**parts)


def build_transforms(
    cfg: DictConfig, source: Skeleton, target: Skeleton
) -> dict[str, nn.Sequential]:
    """Build the transforms of a method: clip (B, M, T, V, 3) -> clip (B, M, T', V', 3).

    Each view converts joints to the target layout, applies the steps of `augment`, and computes
    the stream (bones, motion) last. `augment` is for training, `preprocess` for evaluation.

    Args:
        cfg: Uses `augment`, `clip`, and the `views` of the method.
        source: Skeleton of the data.
        target: Skeleton that the backbone sees.

    Returns:
        View name -> transform.
    """
    has_confidence = cfg.augment.coordinates == "pixels"
    released = bool(cfg.clip.get("released"))
    # released_scores: a part of compat=released, which earlier versions stored separately
    released_scores = released or bool(cfg.clip.get("released_scores"))
    convert = Convert(source, target, has_confidence, released_scores)
    stream = []
    if cfg.clip.get("stream", "joint") != "joint":
        stream.append(Stream(target, cfg.clip.stream, has_confidence))
    transforms = {}
    for view in ("augment", "preprocess", *_extra_views(cfg)):
        steps = transform_steps(hydra.utils.instantiate(cfg.augment[view], _convert_="all"))
        if released:
            set_released(steps)
        transforms[view] = nn.Sequential(convert, *steps, *stream)
    return transforms


def transform_steps(view: Any) -> list[Any]:
    """List the steps of a view; earlier versions saved them without names."""
    return list(view.values() if isinstance(view, Mapping) else view)


@contextmanager
def blame_setting(key: str) -> Iterator[None]:
    """Turn errors of a constructor into an InputError that names the setting it is built from."""
    try:
        yield
    except (InputError, HydraException, OmegaConfBaseException):
        raise
    except Exception as error:  # constructors raise anything for values they cannot use
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
                f"this method needs a view `{name}`, which augment= does not define; pass "
                "augment=aimclr for 3D joints or augment=aimclr_2d for 2D poses"
            )
    return views


def clip_skeleton(name: str | None, source: Skeleton) -> Skeleton:
    """Return the layout that the backbone sees; None is the layout of the data."""
    return source if name is None else load_skeleton(name)
