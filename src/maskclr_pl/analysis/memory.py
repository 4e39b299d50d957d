"""Memory of a training step, measured without allocating any.

The step runs on fake tensors, which have shape, dtype and device but no values, while the sizes of
live storages are summed up.
"""

import copy
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskclr_pl.masking import Masking
from maskclr_pl.methods import Method
from maskclr_pl.types import Batch

_Module = TypeVar("_Module", bound=nn.Module)


class Memory(NamedTuple):
    """Memory of a training step in bytes.

    Tensors only, without the CUDA context, kernel workspaces and allocator overhead.
    """

    model: int
    """Weights, buffers, gradients and optimizer state."""
    step: int
    """Batch, saved activations and temporary values at the peak."""

    @property
    def peak(self) -> int:
        """Peak memory of the step."""
        return self.model + self.step


class _Storages(TorchDispatchMode):
    """Tracks the total size of live storages and its peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def add(self, values: Any) -> None:
        """Count the storages of nested tensors once each, until they are freed."""
        for leaf in tree_leaves(values):
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known[key] = weakref.ref(storage, partial(self._free, key, size))
                self.now += size
                self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int, _: Any) -> None:
        del self._known[key]
        self.now -= size

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(result)
        return result


def trains_backbone(method: Method) -> bool:
    """Check whether the backbone is trained; a frozen one encodes every clip once."""
    return any(parameter.requires_grad for parameter in method.backbone.parameters())


def step_loss(method: Method, batch: Batch, autocast: AbstractContextManager[Any]) -> Tensor | None:
    """Run the forward pass of a training step; return None for a frozen backbone (no loss)."""
    if trains_backbone(method):
        with autocast:
            outputs = cast(dict[str, Any], method.training_step(batch, 0))
        return cast(Tensor, outputs["loss"])
    with autocast, torch.no_grad():
        method.embed(batch)
    return None


def training_memory(
    method: Method, batch: Batch, masking: Masking | None = None, half: torch.dtype | None = None
) -> Memory:
    """Estimate the memory of a training step of a method: forward, backward, optimizer.

    Args:
        method: Model, not compiled. Weights and random states do not change.
        batch: Batch of the right sizes; may be on device `meta`.
        masking: Masking of the masked pathway, if any.
        half: Dtype of mixed precision; None for float32.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = fake_copy(method, mode)
    fake.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    attach_masking(fake, masking)
    with mode, _Storages() as storages:
        fake.train(trains_backbone(fake))
        storages.add([*fake.parameters(), *fake.buffers()])
        parameters = [parameter for parameter in fake.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        others = [module for name, module in fake.named_children() if name != "backbone"]
        if parameters:  # the first step allocates the optimizer state
            optimizer, _ = fake.optim.build(fake.backbone, others, 1, 1, half is None)
            optimizer.step()
        model = storages.now
        fake_batch = cast(Batch, {key: _fake(value) for key, value in batch.items()})
        autocast = torch.autocast("cpu", half) if half else nullcontext()
        loss = step_loss(fake, fake_batch, autocast)
        if loss is not None:
            fake.zero_grad(set_to_none=True)  # after the forward pass, as in Lightning
            loss.backward()
    return Memory(model, storages.peak - model)


def attach_masking(method: Method, masking: Masking | None) -> None:
    """Set the masking of the masked pathway, as MaskingCallback does."""
    if masking is not None:
        setattr(method, "masking", masking)  # noqa: B010


def fake_copy(module: _Module, mode: FakeTensorMode, device: torch.device | str = "cpu") -> _Module:
    """Copy a module with fake parameters and buffers; call it outside of the fake mode."""
    tensors = (*module.parameters(), *module.buffers())
    with mode:
        fakes = {id(tensor): _fake(tensor, device) for tensor in tensors}
    return copy.deepcopy(module, fakes)


def _fake(tensor: Any, device: torch.device | str = "cpu") -> Tensor:
    """Create a tensor of the same shape and layout, inside of a fake mode."""
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(fake, requires_grad=tensor.requires_grad)
    return fake
