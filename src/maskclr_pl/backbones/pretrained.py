"""Load published weights into our backbones and heads.

Formats: MotionBERT (pre-training and action checkpoints), MaskCLR, MAMP (pre-training and
fine-tuning) and STTFormer; bare or under `model_pos`, `model` or `state_dict`; names with any of
the prefixes `module.`, `model.` and `backbone.`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskclr_pl.backbones.base import Backbone
from maskclr_pl.backbones.weight_files import is_weight
from maskclr_pl.types import InputError

_CONTAINERS = ("model_pos", "model", "state_dict")
_OPTIONAL = ("mask_token", "num_batches_tracked")
"""May be missing: mask tokens are trained by masked pre-training only."""
_OTHER_PARTS = ("head.", "proj_head.", "fc.", "decoder_")
"""Parts beside a backbone: 3D pose head, classifiers, the decoder of a pre-training."""


@dataclass(frozen=True)
class LoadReport:
    """Outcome of loading a weight file, as parameter names.

    Args:
        matched: Loaded unchanged.
        interpolated: Temporal embeddings resized linearly in time.
        missing: In the module but not in the file.
        unexpected: In the file but not in the module.
        misshaped: name -> (shape in the file, shape in the module).
        ignored: Parameters of other parts: heads, decoders, fixed position codes.
    """

    matched: tuple[str, ...]
    interpolated: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        groups = {
            "interpolated": self.interpolated,
            "missing": self.needed,
            "initialized": tuple(sorted(set(self.missing) - set(self.needed))),
            "unexpected": self.unexpected,
            "of another shape": tuple(
                f"{name} {list(source)} for {list(target)}"
                for name, (source, target) in self.misshaped.items()
            ),
            "ignored": self.ignored,
        }
        counts = [f"{len(names)} {group}{_some(names)}" for group, names in groups.items() if names]
        return "; ".join([f"{len(self.matched)} matched", *counts])

    @property
    def needed(self) -> tuple[str, ...]:
        """Missing parameters without which the module cannot be used."""
        return tuple(name for name in self.missing if not name.endswith(_OPTIONAL))

    @property
    def fits(self) -> bool:
        """File and module agree, apart from optional parameters."""
        return not (self.needed or self.unexpected or self.misshaped)


def _some(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def load_published_weights(module: nn.Module, state_dict: Mapping[str, Any]) -> LoadReport:
    """Load weights of a published checkpoint into a backbone or a head.

    Args:
        module: A backbone, or a head (entries `head.` or `fc.`).
        state_dict: Content of the checkpoint.

    Returns:
        A report on what was loaded.

    Raises:
        InputError: If a tensor is missing, unexpected, of another shape or not finite; the module
            is then unchanged. A missing `mask_token` keeps its initial value.
    """
    weights, ignored = _select(module, dict(_tensors(state_dict)))
    report, values = _compare(module.state_dict(), weights, ignored)
    if not report.fits:
        raise InputError(
            f"the weights do not fit this {type(module).__name__}: {report}; "
            f"{_advice(module, weights)}"
        )
    if broken := sorted(name for name, value in values.items() if not value.isfinite().all()):
        raise InputError(f"the weights contain NaN or infinity{_some(tuple(broken))}")
    module.load_state_dict({**module.state_dict(), **values})
    return report


def _tensors(content: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors by name without wrapper prefixes; skip other values."""
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


def _select(
    module: nn.Module, tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Select the entries that belong to the module; also return the names of the ignored ones."""
    if not isinstance(module, Backbone):
        head = {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}
        head = head or {k: v for k, v in tensors.items() if k.startswith("fc.")}
        return head or tensors, ()
    prefix = "backbone."
    backbone = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    outside = tuple(k for k in tensors if not k.startswith(prefix)) if backbone else ()
    backbone = backbone or tensors
    pretraining = any(name.startswith("decoder_") for name in backbone)
    ignored = tuple(
        name
        for name in backbone
        if name.startswith(_OTHER_PARTS)
        or name.endswith("pes.pe")  # fixed position codes, computed here
        or (pretraining and name == "mask_token")  # belongs to the decoder
    )
    return {k: v for k, v in backbone.items() if k not in ignored}, ignored + outside


def _compare(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], ignored: tuple[str, ...]
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Match names and shapes; also return the values to load."""
    values, matched, interpolated, misshaped = {}, [], [], {}
    for name in own.keys() & weights.keys():
        source, target = weights[name], own[name]
        if name == "mask_token" and source.numel() == target.numel():
            source = source.view_as(target)
        if source.shape == target.shape:
            matched.append(name)
        elif name == "temp_embed" and _differs_in_length(source, target):
            source = _interpolate(source, target.shape[1])
            interpolated.append(name)
        else:
            misshaped[name] = (tuple(source.shape), tuple(target.shape))
            continue
        values[name] = source
    report = LoadReport(
        matched=tuple(sorted(matched)),
        interpolated=tuple(interpolated),
        missing=tuple(sorted(own.keys() - weights.keys())),
        unexpected=tuple(sorted(weights.keys() - own.keys())),
        misshaped=dict(sorted(misshaped.items())),
        ignored=ignored,
    )
    return report, values


def _differs_in_length(source: Tensor, target: Tensor) -> bool:
    return source.dim() == 4 and source.shape[1] > 0 and source[:, :1].shape == target[:, :1].shape


def _interpolate(embedding: Tensor, steps: int) -> Tensor:
    """Resize temporal embeddings (1, S, 1, D) to another number of steps."""
    rows = embedding.squeeze(2).transpose(1, 2).float()  # (1, D, S)
    rows = nn.functional.interpolate(rows, steps, mode="linear", align_corners=False)
    return rows.transpose(1, 2).unsqueeze(2)


def _advice(module: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Suggest settings under which the weights would fit."""
    if not isinstance(module, Backbone):
        return "pass the head= that it was trained with"
    published = [cls for cls in _subclasses() if cls.published_key]
    matching = [c for c in published if any(n.startswith(str(c.published_key)) for n in weights)]
    if not matching:
        return f"none of {', '.join(cls.__name__ for cls in published)} has such names"
    if not isinstance(module, matching[0]):
        name = matching[0].__name__
        return f"they belong to {name}, pass backbone={name.lower()}"
    own = module.published_sizes(module.state_dict())
    sizes = {k: v for k, v in module.published_sizes(weights).items() if v and own.get(k) != v}
    joints = sizes.pop("joints", None)
    overrides = [f"backbone.{key}={size:g}" for key, size in sizes.items()]
    if joints:
        overrides.append(f"the pose= that has {joints:g} joints")
    return f"pass {' '.join(overrides) or 'the backbone= that it was trained with'}"


def _subclasses() -> list[type[Backbone]]:
    """List all backbone classes that were imported."""
    classes = Backbone.__subclasses__()
    for cls in classes:  # grows while iterating
        classes += cls.__subclasses__()
    return classes
