"""A configuration made complete from the data file, and checked before any data is loaded."""

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
from maskclr_pl.config.container import to_container
from maskclr_pl.data import Store, write_store
from maskclr_pl.errors import InputError
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.skeletons.skeleton import Skeleton, conversion_matrix
from maskclr_pl.sources.synthetic import ACTIONS, SKELETON, SyntheticSource
from maskclr_pl.transforms.streams import StreamKind

log = logging.getLogger("maskclr_pl")


def open_store(cfg: DictConfig) -> Store:
    """The data; toy data are made at their first use.

    Raises:
        InputError: If the file is missing or no store.
    """
    path = Path(cfg.data.path)
    if not path.exists() and cfg.download:
        raise InputError(f"{path} is missing", cfg.download.splitlines())
    store = _toy_data(cfg, path) if cfg.get("source") else Store(path)
    one_class = len(store.class_names) < 2
    if one_class and issubclass(hydra.utils.get_class(cfg.method._target_), Classifier):
        # before a head or metric of one class is built
        raise InputError(
            f"{store.path} has a single class ({store.class_names[0]}), and a classifier needs "
            "two; prepare the data with clips of another"
        )
    return store


def fill_sizes(cfg: DictConfig, store: Store) -> None:
    """Fill in the sizes that only the data file knows, in place.

    Raises:
        InputError: If a size that was given is another than the file's.
    """
    for key in ("frames", "persons"):
        if not isinstance(cfg.clip[key], int) or cfg.clip[key] < 1:
            raise InputError(f"clip.{key}={cfg.clip[key]}: expected a whole number from 1")
    target = clip_skeleton(cfg.clip.skeleton, store.skeleton)
    found = {"joints": len(target), "channels": store.channels, "classes": len(store.class_names)}
    for key, value in found.items():
        if cfg.clip[key] not in (None, value):
            raise InputError(
                f"clip.{key}={cfg.clip[key]} was given, but {store.path} has {value}; leave it "
                f"out, or pass clip.{key}={value}"
            )
        cfg.clip[key] = value
    names = ["left_shoulder", "right_shoulder"]
    shoulders = cfg.clip.shoulders or (names if set(names) <= set(target.joints) else [])
    cfg.clip.shoulders = [_joint(target, "clip.shoulders", name) for name in shoulders] or None
    defaults = {
        "parts": [list(part) for part in target.parts.values()],
        "pairs": [list(pair) for pair in target.pairs],
    }
    for key, derived in defaults.items():
        if cfg.clip[key] is None:
            cfg.clip[key] = derived
    for key in ("root", "center"):
        cfg.clip[key] = _joint(target, f"clip.{key}", cfg.clip[key])
    if cfg.clip.stream not in get_args(StreamKind):
        raise InputError(
            f"clip.stream={cfg.clip.stream}: expected {', '.join(get_args(StreamKind))}"
        )


def fill_val_fraction(cfg: DictConfig) -> None:
    """Hold clips out where they choose the checkpoint, unless the user says how many."""
    if cfg.data.val_fraction is None:
        chosen_by_them = cfg.monitor_split == "val" and cfg.data.val_split is None
        cfg.data.val_fraction = 0.1 if chosen_by_them else 0.0
    elif cfg.data.val_fraction and cfg.data.val_split is not None and not cfg.resume:
        raise InputError(
            f"data.val_fraction={cfg.data.val_fraction} holds nothing out beside data.val_split="
            f"{cfg.data.val_split}; leave one of them out"
        )


def _joint(skeleton: Skeleton, key: str, name: str | int | None) -> int:
    """Index of a joint; the root if none is named."""
    if name is None:
        return skeleton.root
    if isinstance(name, int) and 0 <= name < len(skeleton):
        return name
    if name not in skeleton.joints:
        raise InputError(
            f"{key}={name}: skeleton {skeleton.name} has no such joint; it has "
            f"{', '.join(skeleton.joints)}"
        )
    return skeleton.joints.index(str(name))


def _toy_data(cfg: DictConfig, path: Path) -> Store:
    """The store of the synthetic set, made at its first use."""
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
            f"{path} was made with other source= settings; type data.path=ANOTHER.h5 to make "
            "another one beside it"
        )
    return store


def check_settings(cfg: DictConfig, store: Store, method: Method) -> None:
    """Raise an InputError for settings that contradict each other or the data."""
    for key, value, least in (
        ("data.batch_size", cfg.data.batch_size, 1),
        ("data.num_workers", cfg.data.num_workers, 0),
    ):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{key}={value}: expected a whole number from {least}")
    accumulated = OmegaConf.select(cfg, "trainer.accumulate_grad_batches")
    if isinstance(accumulated, int) and accumulated < 1:
        raise InputError(
            f"trainer.accumulate_grad_batches={accumulated}: expected a whole number from 1"
        )
    if not cfg.init_from and cfg.backbone.get("joints") not in (None, cfg.clip.joints):
        raise InputError(
            f"backbone.joints={cfg.backbone.joints}, but the clips have {cfg.clip.joints} joints; "
            "leave it out"
        )
    for key in ("parts", "pairs", "shoulders"):
        indices = np.concatenate([np.ravel(one) for one in to_container(cfg.clip)[key] or [[]]])
        if len(indices) and not 0 <= indices.min() <= indices.max() < cfg.clip.joints:
            raise InputError(
                f"clip.{key}={cfg.clip[key]}: expected joints from 0 to {cfg.clip.joints - 1}"
            )
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
            "compile=true and checkpointing=true do not go together in a backbone with BatchNorm; "
            "leave one out"
        )
    if OmegaConf.select(cfg, "trainer.sync_batchnorm"):
        raise InputError(
            "trainer.sync_batchnorm=true would exchange the BatchNorm layers for others, whose "
            "running statistics do not follow the pathway that is tested; leave it out"
        )
    if cfg.monitor_split not in ("val", "last", "test"):
        raise InputError(f"monitor_split={cfg.monitor_split}: expected val, last or test")
    if cfg.init_from == "RUN":
        raise InputError(
            "this method starts from another run; type init_from=RUN with its folder in the place "
            "of RUN, or init_from=null to take the backbone as it is"
        )
    if cfg.monitor_split == "val" and cfg.data.val_split is None and cfg.data.val_fraction == 0:
        raise InputError(
            "data.val_fraction=0 leaves no clips to choose a checkpoint by; pass monitor_split=last"
        )
    if cfg.monitor_split != "last" and not method.validates:
        raise InputError(
            f"{type(method).__name__} has no validation accuracy to choose a checkpoint by; pass "
            "monitor_split=last"
        )
    masking = hydra.utils.instantiate(cfg.get("masking"), _convert_="all")
    start_epoch = OmegaConf.select(cfg, "masking.start_epoch", default=0)
    method.check_masking(getattr(masking, "strategy", None), start_epoch, cfg.clip.frames)
    with blame_setting("optim"):  # before training starts
        method.optim.build(method.backbone, [nn.Linear(1, 1)], steps=1, per_epoch=1, fused=False)
    if OmegaConf.select(cfg, "callbacks.figures.every_n_epochs"):
        check_figure_names(to_container(cfg.callbacks.figures.names), method)
    if method.makes_streams and cfg.clip.stream != "joint":
        raise InputError(
            f"clip.stream={cfg.clip.stream}: {type(method).__name__} makes its streams from the "
            "joints; leave clip.stream out, and name them in method.streams"
        )
    if cfg.data.batch_size < 2:
        raise InputError("data.batch_size must be at least 2: the head normalises over the batch")
    source = store.skeleton
    _, missing = conversion_matrix(source, clip_skeleton(cfg.clip.skeleton, source))
    if missing:
        log.info("joints that %s does not have are zeros: %s", source.name, ", ".join(missing))


def check_balanced_batch(cfg: DictConfig, typed: Sequence[str]) -> None:
    """Raise an InputError for a typed batch size that class-balanced batches do not have.

    Args:
        cfg: Complete.
        typed: The overrides of the command line.
    """
    balanced, size = cfg.data.balanced, cfg.data.batch_size
    if not balanced or not any(word.lstrip("+").startswith("data.batch_size=") for word in typed):
        return
    classes, samples = balanced.classes, balanced.samples
    if classes * samples != size:
        raise InputError(
            f"data.batch_size={size}, but data.balanced makes batches of {classes} classes x "
            f"{samples} clips = {classes * samples}; pass data.balanced.classes and .samples for "
            f"another size, or data.balanced=null for batches of any {size} clips"
        )
