"""Complete a configuration from the data file, and check it before data are loaded."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import nn

from maskclr_pl.analysis.model_figures import check_figure_names
from maskclr_pl.backbones.layers import has_batch_norm
from maskclr_pl.config.build import blame_setting, clip_skeleton
from maskclr_pl.config.composition import overridden_keys
from maskclr_pl.config.container import to_container
from maskclr_pl.data import Store, write_store
from maskclr_pl.errors import InputError
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.skeletons.skeleton import Skeleton, conversion_matrix
from maskclr_pl.sources.synthetic import ACTIONS, SKELETON, SyntheticSource
from maskclr_pl.transforms.streams import StreamKind

log = logging.getLogger("maskclr_pl")


def open_store(cfg: DictConfig) -> Store:
    """Open the data file; toy data are generated when it does not exist.

    Raises:
        InputError: If the file is missing or is not a store.
    """
    path = Path(cfg.data.path)
    if not path.exists() and cfg.download:
        raise InputError(f"{path} is missing", cfg.download.splitlines())
    cfg.download = None  # config.yaml of the run does not need it
    store = _toy_data(cfg, path) if cfg.get("source") else Store(path)
    is_classifier = issubclass(hydra.utils.get_class(cfg.method._target_), Classifier)
    if is_classifier and len(store.class_names) < 2:  # before a head of one class is built
        raise InputError(
            f"{store.path} has a single class ({store.class_names[0]}), but a classifier needs "
            "two; prepare the data with clips of another"
        )
    return store


def fill_sizes(cfg: DictConfig, store: Store) -> None:
    """Fill in, in place, sizes and joint indices that follow from the data file.

    Raises:
        InputError: If a size was passed and differs from that of the file.
    """
    for key in ("frames", "persons"):
        if not isinstance(cfg.clip[key], int) or cfg.clip[key] < 1:
            raise InputError(f"clip.{key}={cfg.clip[key]}: expected a whole number from 1")
    target = clip_skeleton(cfg.clip.skeleton, store.skeleton)
    sizes = {"joints": len(target), "channels": store.channels, "classes": len(store.class_names)}
    for key, value in sizes.items():
        if cfg.clip[key] not in (None, value):
            raise InputError(
                f"clip.{key}={cfg.clip[key]}, but {store.path} has {value}; leave it out, or pass "
                f"clip.{key}={value}"
            )
        cfg.clip[key] = value
    names = ["left_shoulder", "right_shoulder"]
    shoulders = cfg.clip.shoulders or (names if set(names) <= set(target.joints) else [])
    cfg.clip.shoulders = [_joint(target, "clip.shoulders", name) for name in shoulders] or None
    if cfg.clip.parts is None:
        cfg.clip.parts = [list(part) for part in target.parts.values()]
    if cfg.clip.pairs is None:
        cfg.clip.pairs = [list(pair) for pair in target.pairs]
    for key in ("root", "center"):
        cfg.clip[key] = _joint(target, f"clip.{key}", cfg.clip[key])
    if cfg.clip.stream not in get_args(StreamKind):
        raise InputError(
            f"clip.stream={cfg.clip.stream}: expected {', '.join(get_args(StreamKind))}"
        )


def fill_val_fraction(cfg: DictConfig) -> None:
    """Set `data.val_fraction`: 0.1 if held-out clips select the checkpoint, else 0."""
    if cfg.data.val_fraction is None:
        needs_validation = cfg.monitor_split == "val" and cfg.data.val_split is None
        cfg.data.val_fraction = 0.1 if needs_validation else 0.0
    elif cfg.data.val_fraction and cfg.data.val_split is not None and not cfg.resume:
        raise InputError(
            f"data.val_fraction={cfg.data.val_fraction} has no effect with data.val_split="
            f"{cfg.data.val_split}; leave one of them out"
        )


def _joint(skeleton: Skeleton, key: str, name: str | int | None) -> int:
    """Return the index of a joint; None is the root."""
    if name is None:
        return skeleton.root
    if isinstance(name, int) and 0 <= name < len(skeleton):
        return name
    if name not in skeleton.joints:
        raise InputError(
            f"{key}={name}: skeleton {skeleton.name} has no such joint; pass one of "
            f"{', '.join(skeleton.joints)}"
        )
    return skeleton.joints.index(str(name))


def _toy_data(cfg: DictConfig, path: Path) -> Store:
    """Open the store of the synthetic data set; generate it if it does not exist."""
    source: SyntheticSource = hydra.utils.instantiate(cfg.source, _convert_="all")
    if not path.is_file():
        log.info("making     %s (%d clips of toy data)", path, len(source))
        return write_store(
            path,
            source,
            skeleton=SKELETON,
            splits=source.splits,
            class_names=[action.name for action in ACTIONS],
            source_hash=source.hash,
        )
    store = Store(path)
    if store.source_hash != source.hash:
        raise InputError(
            f"{path} was generated with other source= settings; pass data.path=OTHER.h5 to "
            "generate another file"
        )
    return store


def check_settings(cfg: DictConfig, store: Store, method: Method) -> None:
    """Raise an InputError for settings that contradict each other or the data."""
    _check_numbers(cfg)
    _check_joints(cfg, store)
    if store.coordinates != cfg.augment.coordinates:
        name = cfg.augment.get("counterpart", "...")
        raise InputError(
            f"{store.path} holds {store.coordinates}, but augment= is made for "
            f"{cfg.augment.coordinates}; pass augment={name}"
        )
    if cfg.data.sampling != cfg.augment.sampling:
        raise InputError(
            f"data.sampling={cfg.data.sampling}, but this augment= works on "
            f"{cfg.augment.sampling}; leave data.sampling out"
        )
    method.backbone.check_frames(cfg.clip.frames)
    if cfg.compile and cfg.checkpointing and has_batch_norm(method.backbone):
        raise InputError(
            "compile=true and checkpointing=true cannot be combined in a backbone with BatchNorm; "
            "leave one out"
        )
    if OmegaConf.select(cfg, "trainer.sync_batchnorm"):
        raise InputError(
            "trainer.sync_batchnorm=true replaces BatchNorm layers by ones whose running "
            "statistics mix both pathways; leave it out"
        )
    _check_selection(cfg, method)
    masking = hydra.utils.instantiate(cfg.get("masking"), _convert_="all")
    start_epoch = OmegaConf.select(cfg, "masking.start_epoch", default=0)
    method.check_masking(getattr(masking, "strategy", None), start_epoch, cfg.clip.frames)
    with blame_setting("optim"):  # before training starts
        method.optim.build(method.backbone, [nn.Linear(1, 1)], steps=1, per_epoch=1, fused=False)
    if OmegaConf.select(cfg, "callbacks.figures.every_n_epochs"):
        check_figure_names(to_container(cfg.callbacks.figures.names), method)
    if method.makes_streams and cfg.clip.stream != "joint":
        raise InputError(
            f"clip.stream={cfg.clip.stream}: {type(method).__name__} computes its streams from "
            "joints; leave clip.stream out and pass method.streams=[...]"
        )


def _check_numbers(cfg: DictConfig) -> None:
    # heads normalize over the batch, so it needs two clips
    minima = {"data.batch_size": 2, "data.num_workers": 0, "trainer.accumulate_grad_batches": 1}
    for key, least in minima.items():
        value = OmegaConf.select(cfg, key)
        if value is None and key.startswith("trainer."):
            continue
        if not isinstance(value, int) or value < least:
            raise InputError(f"{key}={value}: expected a whole number from {least}")


def _check_joints(cfg: DictConfig, store: Store) -> None:
    """Check indices of joints, and log the joints that the data lack."""
    if not cfg.init_from and cfg.backbone.get("joints") not in (None, cfg.clip.joints):
        raise InputError(
            f"backbone.joints={cfg.backbone.joints}, but the clips have {cfg.clip.joints} joints; "
            "leave it out"
        )
    for key in ("parts", "pairs", "shoulders"):
        groups = to_container(cfg.clip)[key] or [[]]
        indices = np.concatenate([np.ravel(group) for group in groups])
        if len(indices) and not 0 <= indices.min() <= indices.max() < cfg.clip.joints:
            raise InputError(
                f"clip.{key}={cfg.clip[key]}: expected joints from 0 to {cfg.clip.joints - 1}"
            )
    source = store.skeleton
    _, missing = conversion_matrix(source, clip_skeleton(cfg.clip.skeleton, source))
    if missing:
        log.info("joints that %s does not have are zeros: %s", source.name, ", ".join(missing))


def _check_selection(cfg: DictConfig, method: Method) -> None:
    """Check that the split which selects best.ckpt exists and that the method can be scored."""
    if cfg.monitor_split not in ("val", "last", "test"):
        raise InputError(f"monitor_split={cfg.monitor_split}: expected val, last or test")
    if cfg.monitor_split == "last":
        return
    if not method.validates:
        raise InputError(
            f"{type(method).__name__} has no validation accuracy to choose a checkpoint by; pass "
            "monitor_split=last"
        )
    if cfg.monitor_split == "val" and cfg.data.val_split is None and cfg.data.val_fraction == 0:
        raise InputError(
            "data.val_fraction=0 leaves no clips to select a checkpoint on; pass monitor_split=last"
        )


def check_balanced_batch(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raise an InputError if an overridden batch size differs from that of balanced batches."""
    balanced, size = cfg.data.balanced, cfg.data.batch_size
    if not balanced or "data.batch_size" not in overridden_keys(overrides):
        return
    classes, samples = balanced.classes, balanced.samples
    if classes * samples != size:
        raise InputError(
            f"data.batch_size={size}, but data.balanced makes batches of {classes} classes x "
            f"{samples} clips = {classes * samples}; pass data.balanced.classes and .samples for "
            f"another size, or data.balanced=null for batches of any {size} clips"
        )
