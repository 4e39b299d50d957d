"""Weights in the formats that others publish, into our modules.

Formats: MotionBERT (pre-training and action checkpoints), MaskCLR, MAMP (pre-training and
fine-tuning), STTFormer; in `model_pos`, `model` or `state_dict`, or bare; names with any of the
prefixes `module.`, `model.` and `backbone.`; torch or safetensors files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from maskclr_pl.backbones.base import Backbone
from maskclr_pl.types import InputError

_CONTAINERS = ("model_pos", "model", "state_dict")
_NOT_NEEDED = (
    "mask_token",  # only trained where something was masked
    "num_batches_tracked",
)
"""What may be missing: it stays as it is."""

_OTHERS = ("head.", "temp_head.", "proj_head.", "fc.", "decoder_")
"""Names of parts beside a backbone: 3D pose head, classifiers, the decoder of a pre-training."""


@dataclass(frozen=True)
class Loaded:
    """What became of the names in a weights file.

    Args:
        matched: Loaded as they are.
        interpolated: Temporal embeddings of another length, interpolated linearly in time.
        missing: In the module but not in the file.
        unexpected: In the file but not in the module.
        misshaped: name -> (shape in the file, shape in the module).
        ignored: Of other parts: heads, decoders, fixed position codes.
    """

    matched: tuple[str, ...]
    interpolated: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        rows = {
            "matched": self.matched,
            "interpolated": self.interpolated,
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": tuple(
                f"{name} {list(there)} for {list(here)}"
                for name, (there, here) in self.misshaped.items()
            ),
            "ignored": self.ignored,
        }
        return "; ".join(
            f"{len(names)} {what}{_some(names) if what != 'matched' else ''}"
            for what, names in rows.items()
            if names or what == "matched"
        )

    @property
    def fits(self) -> bool:
        """Whether nothing is missing that matters, and nothing is left over."""
        needed = [name for name in self.missing if not name.endswith(_NOT_NEEDED)]
        return not (needed or self.unexpected or self.misshaped)


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:3])
    return f" ({shown}{', ...' if len(names) > 3 else ''})"


def read_weights(path: str | Path) -> dict[str, Any]:
    """The content of a weights file, without running code in it.

    Raises:
        InputError: If it cannot be read that way.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # torch raises many kinds
        raise InputError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); it must hold weights and "
            "plain values only, as train writes it"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a checkpoint but a {type(content).__name__}")
    return content


def _numpy_scalars() -> list[Any]:
    """What a published checkpoint stores beside weights: a best accuracy as a NumPy number."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    return [
        *((scalar, f"{package}.multiarray.scalar") for package in ("numpy.core", "numpy._core")),
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
    ]


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write the weights of a module as safetensors, under its own names."""
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    safetensors.torch.save_file(weights, path)


def load_published_weights(module: nn.Module, state_dict: Mapping[str, Any]) -> Loaded:
    """Load weights of a published checkpoint into a backbone or a head.

    Args:
        module: A backbone, or a head (with entries `head.` or `fc.`).
        state_dict: Content of the checkpoint.

    Returns:
        What was loaded and what was not.

    Raises:
        InputError: If a tensor is missing, unexpected, or of another shape; the module is then
            unchanged. A missing `mask_token` stays as it is.
    """
    named = {name: torch.as_tensor(value) for name, value in _tensors(state_dict)}
    own = module.state_dict()
    part, ignored = _part(module, named)
    report, weights = _compare(own, part, ignored)
    if not report.fits:
        raise InputError(
            f"the weights do not fit this {type(module).__name__}: {report}{_advice(report)}"
        )
    module.load_state_dict({**own, **weights})
    return report


def _tensors(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names without wrappers, and tensors."""
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    for name, value in content.items():
        while name.startswith(("module.", "model.")):
            name = name.split(".", 1)[1]
        if isinstance(value, Tensor | np.ndarray | np.generic):
            yield name, value


def _part(module: nn.Module, named: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The entries that belong to the module, under its names, and those of other parts."""
    if not isinstance(module, Backbone):
        bare = {k.removeprefix("head."): v for k, v in named.items() if k.startswith("head.")}
        kept = bare or {k: v for k, v in named.items() if k.startswith("fc.")}
        kept = kept or named
        return kept, ()
    inside = {k.removeprefix("backbone."): v for k, v in named.items() if k.startswith("backbone.")}
    named = inside or named
    pretraining = any(name.startswith("decoder_") for name in named)
    ignored = tuple(
        name
        for name in named
        if name.startswith(_OTHERS)
        or name.endswith("pes.pe")  # fixed, computed here
        or (pretraining and name == "mask_token")  # the decoder's
    )
    return {name: value for name, value in named.items() if name not in ignored}, ignored


def _compare(
    own: Mapping[str, Tensor], part: Mapping[str, Tensor], ignored: tuple[str, ...]
) -> tuple[Loaded, dict[str, Tensor]]:
    weights, matched, interpolated, misshaped = {}, [], [], {}
    for name in own.keys() & part.keys():
        value, here = part[name], own[name]
        if name == "mask_token" and value.numel() == here.numel():
            value = value.view_as(here)
        if value.shape == here.shape:
            matched.append(name)
        elif name == "temp_embed" and value.shape[2:] == here.shape[2:]:
            value = _resized(value, here.shape[1])
            interpolated.append(name)
        else:
            misshaped[name] = (tuple(value.shape), tuple(here.shape))
            continue
        weights[name] = value
    report = Loaded(
        matched=tuple(sorted(matched)),
        interpolated=tuple(interpolated),
        missing=tuple(sorted(own.keys() - part.keys())),
        unexpected=tuple(sorted(part.keys() - own.keys())),
        misshaped=dict(sorted(misshaped.items())),
        ignored=ignored,
    )
    return report, weights


def _resized(embedding: Tensor, steps: int) -> Tensor:
    """(1, S, 1, D) temporal embeddings for another number of steps."""
    line = embedding.squeeze(2).transpose(1, 2).float()
    line = nn.functional.interpolate(line, steps, mode="linear", align_corners=False)
    return line.transpose(1, 2).unsqueeze(2)


def _advice(report: Loaded) -> str:
    """What the shapes in the file say about the backbone that it was made with."""
    if "pos_embed" in report.misshaped:
        there, here = report.misshaped["pos_embed"]
        if there[-1] != here[-1]:
            return f"; type the backbone= it was trained with, of dim {there[-1]}"
        return f"; it was trained on {there[-2]} joints, type the pose= that has them"
    return "; type the backbone= it was trained with"
