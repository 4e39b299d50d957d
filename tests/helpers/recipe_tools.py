"""Toy stores of both kinds of data, and a training as far as its first step, without a command."""

from pathlib import Path
from typing import Any, NamedTuple

import hydra
import lightning as L
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from maskclr_pl.checkpoint.inheritance import inherit
from maskclr_pl.checkpoint.load import run_metadata
from maskclr_pl.checkpoint.transfer import transfer_weights
from maskclr_pl.config.build import build_method
from maskclr_pl.config.composition import Inherited, adapt_to_data, overridden_keys
from maskclr_pl.config.container import to_container
from maskclr_pl.config.paths import config_dir
from maskclr_pl.config.resolve import check_settings, fill_sizes, open_store
from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.methods import Method
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from tests.helpers.protocol_tools import trainer

CLASSES = 4


def kind_of_store(folder: Path, layout: str | Skeleton, **splits: list[str]) -> Path:
    """A store of one named layout: 2D in pixels, the Kinect's in metres; 32 clips of 4 classes.

    The last quarter is `toy_test`, the rest `toy_train`, unless splits are given.
    """
    skeleton = SKELETONS[layout] if isinstance(layout, str) else layout
    deep = skeleton.name in ("ntu25", "kinect20")
    rng = np.random.default_rng(0)
    recordings = []
    for i in range(32):
        shape = (1 + i % 2, 20 + i, len(skeleton), 3 if deep else 2)
        keypoint = rng.normal(0, 0.3, shape) if deep else rng.uniform(100, 300, shape)
        size = None if deep else (400, 400)
        recordings.append(Recording(f"c{i:02d}", i % CLASSES, keypoint, frame_size=size))
    names = [one.name for one in recordings]
    path = folder / f"{skeleton.name}.h5"
    write_store(
        path,
        recordings,
        skeleton=skeleton,
        splits=splits or {"toy_train": names[:24], "toy_test": names[24:]},
        class_names=[f"class {i}" for i in range(CLASSES)],
    )
    return path


class Start(NamedTuple):
    """A run before its first step."""

    cfg: DictConfig
    store: Store
    method: Method
    notes: list[str]
    inherited: Inherited
    parts: list[str]
    """What the origin's weights were loaded into."""


def start(*words: str) -> Start:
    """What `train` does with its words before it makes a run folder."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", list(words), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg.hydra
        passed = overridden_keys(words)
        inherited = Inherited() if cfg.init_from is None else inherit(cfg, passed)
        store = open_store(cfg)
        notes = adapt_to_data(cfg, store, words, inherited)
    fill_sizes(cfg, store)
    torch.manual_seed(0)
    method = build_method(cfg, store.skeleton)
    check_settings(cfg, store, method)
    parts: list[str] = []
    if cfg.init_from is not None:
        parts, differences = transfer_weights(
            method, Path(cfg.init_from), to_container(cfg), store.class_names
        )
        notes += [*inherited.notes, *differences]
    return Start(cfg, store, method, notes, inherited, parts)


def one_step(run: Start, folder: Path) -> SkeletonDataModule:
    """Train one batch; what is written goes to the folder."""
    data: SkeletonDataModule = hydra.utils.instantiate(run.cfg.data, _convert_="all")
    assert run.method.check_clips(len(data.train)) is None
    callbacks: list[L.Callback] = []
    if "masking" in run.cfg:
        callbacks.append(hydra.utils.instantiate(run.cfg.masking, _convert_="all"))
    if any(parameter.requires_grad for parameter in run.method.parameters()):
        limits = {"limit_train_batches": 1, "limit_val_batches": 0}
        where = {"callbacks": callbacks, "default_root_dir": str(folder)}
        trainer(epochs=1, **limits, **where).fit(run.method, data)
    return data


def save(run: Start, path: Path) -> Path:
    """A checkpoint as `train` writes it."""
    info: Any = run_metadata(to_container(run.cfg), run.store.skeleton, run.store.class_names)
    torch.save({"state_dict": run.method.state_dict(), "maskclr_pl": info}, path)
    return path
