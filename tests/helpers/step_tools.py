"""Methods as their recipes configure them, and batches of random poses, without a store."""

from typing import Any

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from maskclr_pl.backbones import Backbone
from maskclr_pl.config.build import build_method, clip_skeleton
from maskclr_pl.config.paths import config_dir
from maskclr_pl.masking import Masking
from maskclr_pl.methods import Method
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton

Composed = tuple[DictConfig, Skeleton, Method, Masking | None]


def composed(*overrides: str) -> Composed:
    """A configuration with the sizes that a store would fill in, its skeleton, method, masking."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", [*overrides, "clip.classes=60", "init_from=null"])
    source = fill_in(cfg)
    return cfg, source, *built(cfg, source)


def fill_in(cfg: DictConfig) -> Skeleton:
    """The sizes that a store would fill in, in place; the skeleton of its clips."""
    source = SKELETONS["coco17" if cfg.augment.coordinates == "pixels" else "ntu25"]
    target = clip_skeleton(cfg.clip.skeleton, source)
    left, right = (target.joints.index(f"{side}_shoulder") for side in ("left", "right"))
    cfg.clip.update(
        joints=len(target),
        channels=3,
        parts=[list(part) for part in target.parts.values()],
        pairs=[list(pair) for pair in target.pairs],
        root=target.root,
        center=target.root,
        shoulders=[left, right],
    )
    return source


def built(cfg: DictConfig, source: Skeleton) -> tuple[Method, Masking | None]:
    """The method of a configuration, and its masking strategy."""
    method = build_method(cfg, source)
    for module in method.modules():
        if isinstance(module, Backbone):
            module.checkpointing = cfg.checkpointing
    strategy = None
    if "masking" in cfg:
        callback = hydra.utils.instantiate(cfg.masking, _convert_="all")
        strategy = getattr(callback, "strategy", None)
    return method, strategy


def clips_of_a_step(cfg: DictConfig) -> int:
    """Clips of a training batch."""
    balanced = cfg.data.balanced
    return balanced.classes * balanced.samples if balanced else cfg.data.batch_size


def batch_of(
    cfg: DictConfig, source: Skeleton, persons: int, device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """Clips of random poses, of which so many persons exist."""
    size = clips_of_a_step(cfg)
    frames = 300 if cfg.augment.sampling == "whole" else cfg.clip.frames
    present = torch.zeros(2 * size, dtype=torch.bool)
    rows = torch.arange(persons)
    present[rows] = True
    clip = torch.empty(3, size, 2, frames, len(source), device=device)
    if str(device) != "meta":
        clip = torch.rand_like(clip) + 0.1
    batch = {
        "clip": clip.movedim(0, -1),
        "present": present.view(size, 2),
        "sequence": rows,
        "frame": torch.arange(frames).expand(size, -1).contiguous(),
        "label": torch.arange(size) % 3,
        "index": torch.arange(size),
    }
    return {key: value.to(device) for key, value in batch.items()}
