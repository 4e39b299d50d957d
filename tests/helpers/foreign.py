"""A device that this machine does not have: tensors with shapes and a device, but no values.

Tensors of the device `foreign` are torch's fake tensors, so that nothing is computed, but what a
step would do on a GPU is done: tensors of two devices in one operation, and values of the device
that the host asks for (`.item()`, `.tolist()`, `nonzero`, `if tensor:`), raise. `no_waiting` also
refuses copies that the host waits for, which a GPU would do in silence.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from torchmetrics import Metric

from maskclr_pl.analysis.memory import fake_copy

_aten = torch.ops.aten
_COPIES = (_aten._to_copy.default, _aten.copy_.default)
_INDEXING = (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default)
_SPECIAL = {*_COPIES, *_INDEXING, _aten.repeat_interleave.Tensor, _aten._fused_sgd_.default}


REFUSED = (
    *(DataDependentOutputException, DynamicOutputShapeException),
    FakeTensorDeviceMismatchError,
)
"""What fake tensors raise by themselves."""


class WaitsForDeviceError(AssertionError):
    """The host waits for the device, so that the device will wait for the host."""


def device() -> torch.device:
    """The foreign device; registered at the first call."""
    if torch._C._get_privateuse1_backend_name() != "foreign":
        amp = SimpleNamespace(
            **{"is_available": lambda: True, "current_device": lambda: 0},
            get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
            **{"_is_in_bad_fork": lambda: False, "manual_seed_all": lambda seed: None},
        )
        _setup_privateuseone_for_python_backend("foreign", backend_module=amp)
    return torch.device("foreign", 0)


@contextmanager
def fake_mode() -> Iterator[FakeTensorMode]:
    """Tensors that are made inside are fake; real ones that are met count as tensors of the CPU."""
    device()
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...): made on the CPU
    try:
        with _Device(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def moved(module: nn.Module) -> Any:
    """A fake copy on the device: parameters, buffers and metrics, which is what a trainer moves."""
    mode = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE)
    with _disable_current_modes():  # what is neither parameter nor buffer is copied as it is
        fake = fake_copy(module, mode, device())
    for metric in fake.modules():
        if isinstance(metric, Metric):  # its state is neither
            metric.to(device())
    return fake


def moved_batch(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A fake copy of a batch."""
    return {
        key: torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device())
        for key, value in batch.items()
    }


class _Device(FakeTensorMode):
    """What the device does beyond fake tensors."""

    patient = True
    """Whether the host may wait."""

    def dispatch(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _SPECIAL:
            if not self.patient:
                _refuse_waiting(func, args, kwargs)
            if func is _aten._to_copy.default and kwargs.get("device") == device():
                # of a small tensor torch keeps the values, and would copy them, too
                source, dtype = args[0], kwargs.get("dtype") or args[0].dtype
                sizes = source.shape, source.stride()
                with self:
                    return torch.empty_strided(*sizes, dtype=dtype, device=device())
            if func is _aten._fused_sgd_.default:  # in place; there is no rule for its shapes
                places = {one.device for one in tree_leaves(args) if isinstance(one, Tensor)}
                assert places == {device()}, places
                return None
        return super().dispatch(func, types, args, kwargs)


def _refuse_waiting(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    here = args[0].device.type if isinstance(args[0], Tensor) else "cpu"
    if func in _INDEXING and here != "cpu":
        index = [one for one in args[1] if isinstance(one, Tensor)]
        if any(one.device.type == "cpu" for one in index):
            raise WaitsForDeviceError(f"{func}: an index (or list) of the host is copied")
        if any(one.dtype == torch.bool for one in index):
            raise WaitsForDeviceError(f"{func}: how many values a mask selects is asked for")
    if func is _aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        raise WaitsForDeviceError("repeat_interleave by a tensor asks how long the result is")
    if func not in _COPIES:
        return
    if func is _aten.copy_.default:
        target, source, free = here, args[1].device.type, args[2:3] == (True,)
    else:
        target, source, free = torch.device(kwargs.get("device") or here).type, here, False
    free = free or bool(kwargs.get("non_blocking"))
    if (source, target) == ("foreign", "cpu"):
        raise WaitsForDeviceError(f"{func}: values of the device are brought to the host")
    if (source, target) == ("cpu", "foreign") and not free:
        raise WaitsForDeviceError(f"{func}: a copy to the device without non_blocking=True")


@contextmanager
def no_waiting() -> Iterator[None]:
    """Inside of `fake_mode`: whatever the host waits for raises."""
    _Device.patient = False
    try:
        yield
    finally:
        _Device.patient = True
