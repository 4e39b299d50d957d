"""Restore what a trained model needs: device, data, run folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf

from maskclr_pl.data import Store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.data.splits import saved_label_list
from maskclr_pl.methods import Method
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import Batch, InputError


def select_device(name: str | None) -> torch.device:
    """Return a device; None is a GPU if there is one.

    Raises:
        InputError: If there is no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: {str(error).splitlines()[0]}; pass device=cpu") from None
    return device


def restore_data(
    info: Mapping[str, Any], changes: Mapping[str, Any], run: Path | None = None
) -> SkeletonDataModule:
    """Build the data module of a checkpoint with changed settings.

    Args:
        info: Metadata of the checkpoint.
        changes: Settings of `data`; None keeps one.
        run: Run folder, whose labeled.txt lists the training clips if a file selected them. None
            leaves the training and validation parts empty in that case.

    Raises:
        InputError: If the store is missing, or has other joints, units or classes than the
            training data.
    """
    settings = dict(info["config"]["data"])
    settings |= {key: value for key, value in changes.items() if value is not None}
    if not Path(settings["path"]).exists():
        raise InputError(f"{settings['path']}: no such file; pass data.path=STORE.h5")
    by_name = isinstance(settings.get("label_fraction"), str)
    if by_name:
        settings["label_fraction"] = (
            saved_label_list(settings["label_fraction"], run) if run else None
        )
    data: SkeletonDataModule = hydra.utils.instantiate(OmegaConf.create(settings), _convert_="all")
    if by_name and run is None:
        data.train.rows, data.val.rows = data.train.rows[:0], data.val.rows[:0]
    trained_on = Skeleton.from_dict(info["source_skeleton"])
    if data.store.skeleton.joints != trained_on.joints:
        raise InputError(
            f"{data.store.path} has skeleton {data.store.skeleton.name} "
            f"({len(data.store.skeleton)} joints), the model was trained on {trained_on.name} "
            f"({len(trained_on)} joints)"
        )
    trained_in = info["config"]["augment"]["coordinates"]
    if data.store.coordinates != trained_in:
        raise InputError(
            f"{data.store.path} holds {data.store.coordinates}, the model was trained on "
            f"{trained_in}"
        )
    _check_classes(data.store, info["class_names"])
    return data


def _check_classes(store: Store, trained_on: list[str]) -> None:
    names = store.class_names
    if len(names) != len(trained_on):
        raise InputError(
            f"{store.path} has {len(names)} classes, the model was trained on {len(trained_on)}"
        )
    for index, (name, expected) in enumerate(zip(names, trained_on, strict=True)):
        if name != expected:
            raise InputError(
                f"{store.path}: class {index} is {name!r}, but {expected!r} in training; the class "
                "order differs, so scores are not comparable"
            )


def iterate_batches(
    method: Method, data: SkeletonDataModule, part: ClipDataset, device: torch.device
) -> Iterator[Batch]:
    """Yield every clip of a part once, in order, on a device."""
    for batch in data.sequential_loader(part):
        yield method.transfer_batch_to_device(batch, device, 0)
