"""Memory of a training step, counted without taking any.

The step is run on fake tensors, which have a shape, a type and a device but no values, while the
sizes of the storages that are alive are added up.
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
    """Bytes on one device; `peak` is the most that a training step holds at a time.

    Tensors alone: what libraries take for themselves (a CUDA context, workspaces of kernels) and
    what an allocator holds without using it come on top.
    """

    model: int
    """Weights, buffers, gradients and the state of the optimizer."""
    step: int
    """The batch, activations kept for the backward pass, and temporary values, at the peak."""

    @property
    def peak(self) -> int:
        """All together."""
        return self.model + self.step


class _Storages(TorchDispatchMode):
    """Adds up the storages that are alive, and keeps the peak of the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def add(self, values: Any) -> None:
        """Count the storages of nested tensors, each once, until they are freed."""
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
    """Whether the backbone is trained; a frozen one encodes every clip once."""
    return any(parameter.requires_grad for parameter in method.backbone.parameters())


def step_loss(method: Method, batch: Batch, autocast: AbstractContextManager[Any]) -> Tensor | None:
    """What a batch goes through: a training step, or a frozen backbone alone (then no loss)."""
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
    """Memory of the method's own training step: forward, backward, optimizer.

    Args:
        method: Not compiled yet. Neither its weights nor random states are touched.
        batch: Decides the sizes; may be on the device `meta`.
        masking: Of the masked pathway, where the method has one.
        half: Type of mixed precision; None is float32.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = fake_copy(method, mode)
    fake.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    if masking is not None:
        setattr(fake, "masking", masking)  # noqa: B010  # see MaskingCallback
    with mode, _Storages() as storages:
        fake.train(trains_backbone(fake))
        storages.add([*fake.parameters(), *fake.buffers()])
        parameters = [parameter for parameter in fake.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        others = [module for name, module in fake.named_children() if name != "backbone"]
        if parameters:  # a step before, so that the state of the optimizer is there
            optimizer, _ = fake.optim.build(fake.backbone, others, 1, 1, half is None)
            optimizer.step()
        model = storages.now
        held = cast(Batch, {key: _fake(value) for key, value in batch.items()})
        autocast = torch.autocast("cpu", half) if half else nullcontext()
        loss = step_loss(fake, held, autocast)
        if loss is not None:
            fake.zero_grad(set_to_none=True)  # as Lightning does: after the forward pass
            loss.backward()
    return Memory(model, storages.peak - model)


def fake_copy(module: _Module, mode: FakeTensorMode, device: torch.device | str = "cpu") -> _Module:
    """A copy whose parameters and buffers are fake; to be called outside of the mode."""
    tensors = (*module.parameters(), *module.buffers())
    with mode:
        fakes = {id(tensor): _fake(tensor, device) for tensor in tensors}
    return copy.deepcopy(module, fakes)


def _fake(tensor: Any, device: torch.device | str = "cpu") -> Tensor:
    """A tensor of the same shape and layout, inside of a fake mode."""
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(fake, requires_grad=tensor.requires_grad)
    return fake
