"""Weights in the formats that others publish, into our modules.

Formats: MotionBERT (pre-training and action checkpoints), MaskCLR, MAMP (pre-training and
fine-tuning), STTFormer; in `model_pos`, `model` or `state_dict`, or bare; names with any of the
prefixes `module.`, `model.` and `backbone.`; torch or safetensors files.
"""

import zipfile
from argparse import Namespace
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
from maskclr_pl.reading import check_archive, check_no_device
from maskclr_pl.types import InputError

_CONTAINERS = ("model_pos", "model", "state_dict")
_NOT_NEEDED = (
    "mask_token",  # only trained where something was masked
    "num_batches_tracked",
)
"""What may be missing: it stays as it is."""

_OTHERS = ("head.", "proj_head.", "fc.", "decoder_")
"""Names of parts beside a backbone: 3D pose head, classifiers, the decoder of a pre-training."""

_KINDS = {
    "blocks_st.0.": "DSTformer",
    "blocks.0.to_qkvs.": "STTFormer",
    "blocks.0.attn.": "Transformer",
}
"""What tells the published architectures apart."""


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
            "missing": self.needed,
            "kept as they are": tuple(sorted(set(self.missing) - set(self.needed))),
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
    def needed(self) -> tuple[str, ...]:
        """What is missing and must not be."""
        return tuple(name for name in self.missing if not name.endswith(_NOT_NEEDED))

    @property
    def fits(self) -> bool:
        """Whether nothing is missing that matters, and nothing is left over."""
        return not (self.needed or self.unexpected or self.misshaped)


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:3])
    return f" ({shown}{', ...' if len(names) > 3 else ''})"


class _DType:
    """Stands for a dtype: the state of a real one could turn bytes into pointers."""

    def __init__(self, text: str, *_: Any):
        self.dtype = np.dtype(text)
        if self.dtype.kind not in "biuf":
            raise ValueError(f"a number of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _number(dtype: _DType, data: bytes) -> Any:
    """A NumPy number."""
    return np.frombuffer(data, dtype.dtype)[0].item()


_PLAIN: list[Any] = [
    *((_number, f"{package}.multiarray.scalar") for package in ("numpy.core", "numpy._core")),
    (_DType, "numpy.dtype"),
    Namespace,
]
"""Beside weights in published checkpoints: a best accuracy as a NumPy number, the options typed."""


def read_weights(path: str | Path) -> dict[str, Any]:
    """The content of a weights file, without running code in it.

    Raises:
        InputError: If it cannot be read that way.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; type the path of the weights file itself")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        check_no_device(path)
        check_archive(path)
        _check_sums(path)
        with torch.serialization.safe_globals(_PLAIN):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # torch raises many kinds
        raise InputError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); expected weights and "
            "plain values only, as torch.save of a state dict writes them, or a .safetensors file"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a checkpoint but a {type(content).__name__}")
    return content


def _check_sums(path: Path) -> None:
    """Compare the parts of a file of torch.save with their CRC-32, which torch does not.

    Raises:
        BadZipFile: If a part is damaged.
    """
    if not zipfile.is_zipfile(path):  # cut, or of an old torch: torch.load says which
        return
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.compress_type == zipfile.ZIP_STORED:  # as torch.save does
                with archive.open(part) as stream:
                    while stream.read(1 << 20):
                        pass


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
        InputError: If a tensor is missing, unexpected, of another shape or not finite; the module
            is then unchanged. A missing `mask_token` stays as it is.
    """
    named = dict(_tensors(state_dict))
    own = module.state_dict()
    part, ignored = _part(module, named)
    report, weights = _compare(own, part, ignored)
    if not report.fits:
        raise InputError(
            f"the weights do not fit this {type(module).__name__}: {report}{_advice(module, part)}"
        )
    if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise InputError(f"the weights hold NaN or infinity{_some(tuple(sorted(broken)))}")
    module.load_state_dict({**own, **weights})
    return report


def is_weight(value: Any) -> bool:
    """Whether it is a tensor, and of a kind that the weights of these architectures could be.

    One number that claims to be many is none: to look at it would fill the memory.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    if value.is_meta or value.is_complex() or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _tensors(content: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Names without wrappers, and tensors; other values beside them are left out."""
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    for name, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            value = torch.as_tensor(value)
        if not isinstance(name, str) or not is_weight(value):
            continue
        while name.startswith(("module.", "model.")):
            name = name.split(".", 1)[1]
        yield name, value


def _part(module: nn.Module, named: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The entries that belong to the module, under its names, and those of other parts."""
    if not isinstance(module, Backbone):
        bare = {k.removeprefix("head."): v for k, v in named.items() if k.startswith("head.")}
        kept = bare or {k: v for k, v in named.items() if k.startswith("fc.")}
        kept = kept or named
        return kept, ()
    inside = {k.removeprefix("backbone."): v for k, v in named.items() if k.startswith("backbone.")}
    outside = tuple(name for name in named if not name.startswith("backbone.")) if inside else ()
    named = inside or named
    pretraining = any(name.startswith("decoder_") for name in named)
    ignored = tuple(
        name
        for name in named
        if name.startswith(_OTHERS)
        or name.endswith("pes.pe")  # fixed, computed here
        or (pretraining and name == "mask_token")  # the decoder's
    )
    part = {name: value for name, value in named.items() if name not in ignored}
    return part, ignored + outside


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
        elif name == "temp_embed" and _of_another_length(value, here):
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


def _of_another_length(there: Tensor, here: Tensor) -> bool:
    return there.dim() == 4 and there.shape[1] > 0 and there[:, :1].shape == here[:, :1].shape


def _resized(embedding: Tensor, steps: int) -> Tensor:
    """(1, S, 1, D) temporal embeddings for another number of steps."""
    line = embedding.squeeze(2).transpose(1, 2).float()
    line = nn.functional.interpolate(line, steps, mode="linear", align_corners=False)
    return line.transpose(1, 2).unsqueeze(2)


def _advice(module: nn.Module, part: Mapping[str, Tensor]) -> str:
    """What the names and shapes in the file say about the backbone that it was made with."""
    if not isinstance(module, Backbone):
        return "; type the head= that it was trained with"
    kinds = [kind for start, kind in _KINDS.items() if any(name.startswith(start) for name in part)]
    if not kinds:
        return f"; none of {', '.join(_KINDS.values())} has such names"
    if kinds[0] != type(module).__name__:
        return f"; they are of {kinds[0]}, type backbone={kinds[0].lower()}"
    own = _sizes(module.state_dict())
    sizes = {key: size for key, size in _sizes(part).items() if own.get(key) != size}
    joints = sizes.pop("joints", None)
    typed = [f"backbone.{key}={size:g}" for key, size in sizes.items()]
    if joints:
        typed.append(f"the pose= that has {joints} joints")
    return f"; type {' '.join(typed) or 'the backbone= that it was trained with'}"


def _sizes(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Sizes, under the names of the constructors' arguments, that names and shapes tell."""
    first = "blocks_st.0.mlp_s" if "blocks_st.0.mlp_s.fc1.weight" in weights else "blocks.0.mlp"
    sizes: dict[str, float] = {
        "dim": _size(weights, f"{first}.fc1.weight", 1),
        "rep_dim": _size(weights, "pre_logits.fc.weight", 0),
        "depth": len({name.split(".")[1] for name in weights if name.startswith("blocks")}),
        "patch_frames": _size(weights, "joints_embed.proj.weight", 2),
        "heads": _size(weights, "blocks.0.att0s", 1),
        "joints": _size(weights, "pos_embed", -2),
    }
    if sizes["dim"]:
        sizes["mlp_ratio"] = _size(weights, f"{first}.fc1.weight", 0) / sizes["dim"]
    return {key: size for key, size in sizes.items() if size}


def _size(weights: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Length of one axis of a tensor; 0 if it has none."""
    shape = weights[name].shape if name in weights else ()
    return shape[axis] if -len(shape) <= axis < len(shape) else 0
