"""Clip features: extraction, and the HDF5 file that holds them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from jaxtyping import Float, Int

from maskclr_pl.data.store.hdf5 import open_hdf5, read_attribute, read_dataset
from maskclr_pl.files import atomic_path
from maskclr_pl.methods import Method
from maskclr_pl.runs.results import set_aside
from maskclr_pl.types import Batch, InputError


class ClipFeatures(NamedTuple):
    """Features of the clips of a split."""

    features: Float[np.ndarray, "n D"]
    """Float32, see `Method.embed`."""
    label: Int[np.ndarray, " n"]
    """Class of each clip."""
    name: list[str]
    """Name of each clip."""
    attributes: dict[str, Any]
    """Plain values: run, data, split and class names."""


@torch.no_grad()
def embed(
    method: Method, batches: Iterable[Batch]
) -> tuple[Float[np.ndarray, "n D"], Int[np.ndarray, " n"]]:
    """Compute features and labels of clips.

    Args:
        method: Any method in eval mode, on the device of the batches.
        batches: Batches of the data module.
    """
    rows = [(method.embed(batch).float().cpu(), batch["label"].cpu()) for batch in batches]
    features, label = (torch.cat(column).numpy() for column in zip(*rows, strict=True))
    return features, label


def write_features(path: Path, clips: ClipFeatures) -> Path | None:
    """Write HDF5: `features` (n, D) float32, `label` (n,), `name` (n,), and attributes.

    Attributes that are not strings are stored as JSON. The file is written atomically; an earlier
    one gets a number.

    Returns:
        New path of the earlier file, if any.
    """
    with atomic_path(path) as partial:
        with h5py.File(partial, "w") as file:
            file["features"] = clips.features.astype(np.float32)
            file["label"] = clips.label.astype(np.int64)
            names = [name.encode() for name in clips.name]
            file.create_dataset("name", data=names, dtype=h5py.string_dtype())
            for key, value in clips.attributes.items():
                file.attrs[key] = value if isinstance(value, str) else json.dumps(value)
        return set_aside(path)


def read_features(path: str | Path) -> ClipFeatures:
    """Read a file written by `write_features`.

    Raises:
        InputError: If the file does not exist or has other content.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; run python -m maskclr_pl.embed ckpt_path=RUN")
    try:
        with open_hdf5(path) as file:
            features = read_dataset(file["features"], "f")
            label = read_dataset(file["label"], "iu")
            name = [text.decode(errors="replace") for text in read_dataset(file["name"], "O")]
            attributes = {key: _from_json(read_attribute(file, key)) for key in file.attrs}
        if features.ndim != 2 or not len(features) == len(label) == len(name):
            raise ValueError(f"features {features.shape}, {len(label)} labels, {len(name)} names")
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not a feature file of maskclr_pl.embed ({reason})") from error
    return ClipFeatures(features, label, name, attributes)


def feature_attributes(info: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return attributes of features: class names and method of a checkpoint, and others."""
    method = info["config"]["method"]["_target_"].rpartition(".")[2]
    return {"class_names": list(info["class_names"]), "method": method, **more}


def _from_json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
