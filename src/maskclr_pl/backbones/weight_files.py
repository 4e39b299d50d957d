"""Weight files, read without running code in them: torch checkpoints and safetensors."""

import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from maskclr_pl.reading import check_archive, check_no_device
from maskclr_pl.types import InputError


class _DType:
    """Stand-in for a NumPy dtype: unpickling a real one could turn bytes into pointers."""

    def __init__(self, text: str, *_: Any):
        self.dtype = np.dtype(text)
        if self.dtype.kind not in "biuf":
            raise ValueError(f"a number of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _scalar(dtype: _DType, data: bytes) -> Any:
    """Decode a NumPy scalar."""
    return np.frombuffer(data, dtype.dtype)[0].item()


_SAFE_GLOBALS: list[Any] = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_DType, "numpy.dtype"),
    Namespace,
]
"""Non-tensor content of published checkpoints: NumPy scalars and command-line options."""


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a weight file without executing anything in it.

    Args:
        path: A .safetensors file, or one written by `torch.save`.

    Raises:
        InputError: If the file is missing, damaged, or not a dictionary of plain values.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; pass the path of the weights file itself")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        check_no_device(path)
        check_archive(path)
        _check_crc(path)
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # torch raises many types
        raise InputError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); expected weights and "
            "plain values only, as torch.save of a state dict writes them, or a .safetensors file"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a checkpoint (a dict), got {type(content).__name__}")
    return content


def _check_crc(path: Path) -> None:
    """Verify the CRC-32 of every stored member, which `torch.load` does not.

    Raises:
        BadZipFile: If a member is damaged.
    """
    if not zipfile.is_zipfile(path):  # truncated, or an old torch format: torch.load reports it
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type == zipfile.ZIP_STORED:  # as torch.save writes
                with archive.open(member) as stream:
                    while stream.read(1 << 20):
                        pass


def save_weights(module: nn.Module, path: str | Path) -> None:
    """Write the weights of a module as safetensors, under the module's parameter names."""
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    safetensors.torch.save_file(weights, path)


def is_weight(value: Any) -> bool:
    """Return whether a value is a dense, real tensor that fits its storage.

    A tensor of stride 0 can claim more elements than memory holds.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    if value.is_meta or value.is_complex() or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def non_finite_tensors(state: Mapping[str, Any]) -> list[str]:
    """Return the names of floating-point tensors that hold a NaN or an infinity.

    Synchronizes with the device once, however many tensors there are.
    """
    finite = {
        name: value.isfinite().all()
        for name, value in state.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel()
    }
    if not finite:
        return []
    flags = torch.stack(tuple(finite.values())).tolist()
    return [name for name, is_finite in zip(finite, flags, strict=True) if not is_finite]
