"""Adapt a composed configuration to the data file.

A recipe (`experiment=`) defines how a model learns; `data=` defines the clips. Settings that follow
from the content of the file (2D or 3D, joints, splits, size) are set here, unless they are
overridden or inherited from another run.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf, open_dict

from maskclr_pl.config.build import clip_skeleton
from maskclr_pl.config.paths import compose
from maskclr_pl.data import Store
from maskclr_pl.data.contents import paired_splits
from maskclr_pl.data.splits import draw_novel
from maskclr_pl.errors import InputError
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton, conversion_matrix

_IMPLIED = {"pose": ("clip.skeleton",), "compat": ("method.persons", "clip.released")}
"""Group -> keys that it sets in other groups."""
_NOVEL_SHARE = 0.2
"""Share of novel classes in a one-shot run on a store without exemplars (NTU RGB+D 120: 1/6)."""
_QUEUE_SHARE = 0.8
"""Size of a contrastive queue as a share of the training clips, if the recipe has a larger one."""


class Inherited(NamedTuple):
    """Settings that a run inherited from the run it starts from."""

    groups: Sequence[str] = ()
    """Groups and keys that were inherited, for the log."""
    notes: Sequence[str] = ()
    skeleton: Skeleton | None = None
    """Joints that the backbone was trained on; None if clip.skeleton is overridden."""
    source: Skeleton | None = None
    """Joints of the data that the backbone was trained on."""
    augment: DictConfig | None = None
    """The composed augmentation, which the inherited one replaced."""


def overridden_keys(overrides: Sequence[str]) -> frozenset[str]:
    """Return keys and groups that the overrides set, directly or through a group."""
    keys = {override.lstrip("+~").partition("=")[0].partition("@")[0] for override in overrides}
    return frozenset(keys.union(*(_IMPLIED.get(key, ()) for key in keys)))


def is_overridden(key: str, passed: frozenset[str]) -> bool:
    """Return True if a key, or a group that contains it, is overridden."""
    return any(key == one or key.startswith(f"{one}.") for one in passed)


def adapt_to_data(
    cfg: DictConfig, store: Store, overrides: Sequence[str], origin: Inherited
) -> list[str]:
    """Set, in place, what follows from the data file.

    Args:
        cfg: As composed, with inherited settings.
        store: The data.
        overrides: Overrides of the command line, which are never replaced.
        origin: Settings inherited from another run, which are not replaced either.

    Returns:
        A note for each change.

    Raises:
        InputError: If the splits do not pair up, or the joints differ from those of the origin.
    """
    passed = overridden_keys(overrides)
    return [
        *_splits(cfg, store),
        *_augmentation(cfg, store, overrides, origin),
        *_joints(cfg, store, passed, origin),
        *_novel_classes(cfg, store, passed),
        *_recipe_sizes(cfg, store, passed),
    ]


def _splits(cfg: DictConfig, store: Store) -> Iterator[str]:
    """Choose the training and test split if the names in the store pair up."""
    data, keys = cfg.data, ("train_split", "test_split")
    passed = [None if OmegaConf.is_missing(data, key) else data[key] for key in keys]
    if None not in passed:
        return
    pairs = [
        pair
        for pair in paired_splits(list(store.splits))
        if all(name in (None, split) for name, split in zip(passed, pair, strict=True))
    ]
    if not pairs:
        named = "".join(f" {key}={name}" for key, name in zip(keys, passed, strict=True) if name)
        raise InputError(
            f"{store.path}: no pair of splits{f' with{named}' if named else ''} named NAME_train "
            f"and NAME_test (or NAME_val); it has {', '.join(store.splits) or 'no splits'}; pass "
            "data.train_split=... data.test_split=..."
        )
    (data.train_split, data.test_split), *others = pairs
    more = f"; it also has {_listed([' with '.join(pair) for pair in others])}" if others else ""
    yield f"data.train_split={data.train_split} data.test_split={data.test_split}{more}"


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _augmentation(
    cfg: DictConfig, store: Store, overrides: Sequence[str], origin: Inherited
) -> Iterator[str]:
    """Use the counterpart of an augmentation that is made for the other kind of data."""
    kind = cfg.augment.coordinates
    if kind == store.coordinates or any(
        key.partition(".")[0] == "augment" for key in overridden_keys(overrides)
    ):
        return
    with open_dict(cfg):
        if origin.augment is not None:
            cfg.augment = origin.augment
        name = cfg.augment.get("counterpart")
        if cfg.augment.coordinates != store.coordinates and name:
            cfg.augment = compose([*overrides, f"augment={name}"]).augment
            yield f"augment={name}: {store.path} holds {store.coordinates}"
        elif origin.augment is not None:
            yield f"the augmentation of {cfg.init_from} is for {kind} and is not inherited"


def _joints(
    cfg: DictConfig, store: Store, passed: frozenset[str], origin: Inherited
) -> Iterator[str]:
    """Convert to the joints of the recipe or the origin, if the data have all of them."""
    data = store.skeleton
    if origin.skeleton is not None:
        yield from _joints_of_origin(cfg, store, origin.skeleton, origin.source)
    elif cfg.clip.skeleton is not None and not is_overridden("clip.skeleton", passed):
        target = clip_skeleton(cfg.clip.skeleton, data)
        if missing := conversion_matrix(data, target)[1]:
            cfg.clip.skeleton = None
            yield (
                f"pose=native: {data.name} has no {_listed(missing)} for {target.name}; "
                f"clip.skeleton={target.name} trains with zeros in their place"
            )
    center, target = cfg.clip.center, clip_skeleton(cfg.clip.skeleton, data)
    if isinstance(center, str) and center not in target.joints and "clip.center" not in passed:
        cfg.clip.center = None
        if store.coordinates == "metres":
            yield f"clip.center={target.joints[target.root]}: {target.name} has no {center}"


def _joints_of_origin(
    cfg: DictConfig, store: Store, skeleton: Skeleton, source: Skeleton | None
) -> Iterator[str]:
    """Convert the joints of the data to those that the backbone was trained on."""
    name = cfg.clip.skeleton
    if name is None and store.skeleton.joints != skeleton.joints:
        named = SKELETONS.get(skeleton.name)
        name = skeleton.name if named and named.joints == skeleton.joints else None
    reached = clip_skeleton(name, store.skeleton)
    missing = conversion_matrix(store.skeleton, reached)[1]
    same_data = source is not None and source.joints == store.skeleton.joints
    if reached.joints != skeleton.joints or (missing and not same_data):
        lacking = f" without {_listed(missing)}" if missing else ""
        raise InputError(
            f"{cfg.init_from}: its backbone was trained on the {len(skeleton)} joints of "
            f"{skeleton.name}, and this run has the {len(store.skeleton)} of {store.skeleton.name}"
            f"{lacking}; use data with these joints"
            + (
                f", or pass clip.skeleton={name} to train with zeros for missing joints"
                if missing and name
                else ", or pass pose=native to train on other joints"
                if len(skeleton) == len(store.skeleton)
                else ""
            )
        )
    cfg.clip.skeleton = name
    if not same_data and store.skeleton.joints != skeleton.joints:
        yield (
            f"joints are converted from {store.skeleton.name} to {skeleton.name}, the layout of "
            f"{cfg.init_from}"
        )


def _novel_classes(cfg: DictConfig, store: Store, passed: frozenset[str]) -> Iterator[str]:
    """Draw the novel classes of a one-shot run if the file has no exemplars."""
    if not getattr(hydra.utils.get_object(cfg.method._target_), "needs_exemplars", False):
        return
    data = cfg.data
    if data.exemplar_split is not None or is_overridden("data.novel_classes", passed - {"data"}):
        return
    data.novel_classes = _NOVEL_SHARE
    yield (
        f"data.novel_classes={_NOVEL_SHARE}: {store.path} has no exemplars, so this share of the "
        "classes is left out of training and tested with one exemplar each"
    )


def _recipe_sizes(cfg: DictConfig, store: Store, passed: frozenset[str]) -> Iterator[str]:
    """Reduce numbers of the recipe that exceed the size of the data."""
    data, labels = cfg.data, store.label[store.rows(cfg.data.train_split)]
    if data.balanced is not None and not is_overridden("data.balanced.classes", passed - {"data"}):
        classes = np.unique(labels)
        if data.novel_classes is not None and data.exemplar_split is None:
            test = store.label[store.rows(data.test_split)]
            classes = np.setdiff1d(classes, draw_novel(labels, test, data.novel_classes, data.seed))
        if data.balanced.classes > len(classes):
            yield (
                f"data.balanced.classes={len(classes)}, all training classes; the recipe has "
                f"{data.balanced.classes}"
            )
            data.balanced.classes = len(classes)
    queue = cfg.method.get("queue_size")
    if isinstance(queue, int) and not is_overridden("method.queue_size", passed - {"method"}):
        val_fraction = data.val_fraction if data.val_split is None else 0
        most = max(1, int(_QUEUE_SHARE * (1 - val_fraction) * len(labels)))
        if queue > most:
            cfg.method.queue_size = most
            yield (
                f"method.queue_size={most}, fewer than the training clips; the recipe has {queue}"
            )
