"""Features of clips, as a file."""

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

_TABLES = {"features": "f", "label": "iu"}
"""Table -> kinds of its values."""


class ClipFeatures(NamedTuple):
    """Features of the clips of a split."""

    features: Float[np.ndarray, "n D"]
    """Float32, see `Method.embed`."""
    label: Int[np.ndarray, " n"]
    """Class of each clip."""
    name: list[str]
    """Name of each clip."""
    attributes: dict[str, Any]
    """Plain values: of which run, data and split they are, and the names of the classes."""


@torch.no_grad()
def embed(
    method: Method, batches: Iterable[Batch]
) -> tuple[Float[np.ndarray, "n D"], Int[np.ndarray, " n"]]:
    """Features and labels of clips, in their order.

    Args:
        method: Any, in eval mode, on the device of the batches.
        batches: Clips as the data module delivers them.
    """
    rows = [(method.embed(batch).float().cpu(), batch["label"].cpu()) for batch in batches]
    features, label = (torch.cat(column).numpy() for column in zip(*rows, strict=True))
    return features, label


def write_features(path: Path, embedded: ClipFeatures) -> Path | None:
    """Write an HDF5 file: `features` (n, D) float32, `label` (n,), `name` (n,), and attributes.

    Attributes are JSON texts, except those that are texts. The file is there in full or not at all;
    an earlier one gets a number.

    Returns:
        Where the earlier one is now.
    """
    with atomic_path(path) as partial:
        with h5py.File(partial, "w") as file:
            file["features"] = embedded.features.astype(np.float32)
            file["label"] = embedded.label.astype(np.int64)
            names = [name.encode() for name in embedded.name]
            file.create_dataset("name", data=names, dtype=h5py.string_dtype())
            for key, value in embedded.attributes.items():
                file.attrs[key] = value if isinstance(value, str) else json.dumps(value)
        return set_aside(path)


def read_features(path: str | Path) -> ClipFeatures:
    """Read a file of `write_features`.

    Raises:
        InputError: If there is none, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; type python -m maskclr_pl.embed ckpt_path=RUN")
    try:
        with open_hdf5(path) as file:
            features, label = (read_dataset(file[key], kind) for key, kind in _TABLES.items())
            name = [one.decode(errors="replace") for one in read_dataset(file["name"], "O")]
            attributes = {key: _value(read_attribute(file, key)) for key in file.attrs}
        if features.ndim != 2 or not len(features) == len(label) == len(name):
            raise ValueError(f"features {features.shape}, {len(label)} labels, {len(name)} names")
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path}: not a file of features as maskclr_pl.embed writes it ({reason})"
        ) from error
    return ClipFeatures(features, label, name, attributes)


def feature_attributes(info: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Attributes of features: classes and method of a checkpoint, and what else is known."""
    method = info["config"]["method"]["_target_"].rpartition(".")[2]
    return {"class_names": list(info["class_names"]), "method": method, **more}


def _value(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
