"""Resource estimates of a training before it starts: memory, disk space, time."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from maskclr_pl.analysis.memory import Memory, attach_masking, step_loss, trains_backbone
from maskclr_pl.backbones import Backbone
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.dataset import MAX_FRAMES, ClipDataset
from maskclr_pl.masking import Masking
from maskclr_pl.methods import Method
from maskclr_pl.types import Batch

_SAMPLE = 128  # clips whose persons are counted
_SMALL = 3_000_000_000
"""Joints in a batch times backbone parameters below which memory is not estimated: the largest
estimates of such models were 0.1 to 0.7 GiB, depending on the backbone."""
_USABLE = 0.9
"""Usable share of free memory: allocators leave some unused, and the CUDA context and kernel
workspaces are not counted."""
_STEPS, _PATIENCE = 10, 30.0  # number of timed steps, unless they take this many seconds


class LargestBatch(NamedTuple):
    """The largest batch to be expected."""

    batch_size: int
    persons: int
    batch: Batch
    """Tensors of the right sizes without values (on device `meta`)."""


def largest_batch(method: Method, data: SkeletonDataModule, devices: int = 1) -> LargestBatch:
    """Return one device's share of a training batch with very many persons.

    The number of persons is the mean over training clips plus three standard deviations of the sum
    over a batch, which random batches exceed about once in 700 times.
    """
    clips = data.train.eval_view()
    batch_size = max(1, min(data.train_batch_size, len(clips)) // devices)
    counts = _count_persons(clips)
    maximum = batch_size * clips.persons
    likely = batch_size * counts.mean() + 3 * math.sqrt(batch_size) * counts.std()
    padded = method.persons == "padded"
    persons = maximum if padded else min(maximum, max(1, math.ceil(likely)))
    whole = clips.sampling == "whole"
    frames = min(int(clips.lengths.max()), MAX_FRAMES) if whole else clips.frames
    joints, channels = len(clips.store.skeleton), clips.store.channels

    def empty(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    planes = empty(channels, batch_size, clips.persons, frames, joints, dtype=torch.float32)
    batch: Batch = {
        "clip": planes.movedim(0, -1),  # memory layout of `collate`
        "present": empty(batch_size, clips.persons, dtype=torch.bool),
        "sequence": empty(persons),
        "frame": empty(batch_size, frames),
        "label": empty(batch_size),
        "index": empty(batch_size),
    }
    return LargestBatch(batch_size, persons, batch)


def _count_persons(clips: ClipDataset) -> np.ndarray:
    """Count the persons in an evenly spaced sample of clips."""
    indices = np.unique(np.linspace(0, len(clips) - 1, _SAMPLE).astype(int))
    return np.array([int(clips[int(index)]["present"].sum()) for index in indices])


def is_small(method: Method, largest: LargestBatch) -> bool:
    """Check whether a training step is too small for its memory to matter on any machine."""
    frames, joints = largest.batch["clip"].shape[2:4]
    parameters = sum(
        parameter.numel()
        for module in method.modules()
        if isinstance(module, Backbone)
        for parameter in module.parameters()
    )
    return largest.persons * frames * joints * parameters < _SMALL


def free_memory(device: torch.device) -> int | None:
    """Return the free memory of a device in bytes, or None if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration, ValueError):
        return None
    try:  # limit of a container
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):
        return free


def fits(memory: Memory, free: int | None) -> bool:
    """Check whether a training step is expected to fit into the free memory."""
    return free is None or memory.peak <= _USABLE * free


def checkpoint_bytes(method: Method) -> int:
    """Return the size of a checkpoint: weights and optimizer state."""
    weights = sum(value.nbytes for value in method.state_dict().values())
    moments = 2 if method.optim.optimizer == "adamw" else int(method.optim.momentum > 0)
    return weights + moments * sum(p.nbytes for p in method.parameters() if p.requires_grad)


def seconds_per_step(
    method: Method,
    data: SkeletonDataModule,
    device: torch.device,
    masking: Masking | None,
    autocast: AbstractContextManager[Any],
) -> float:
    """Measure the duration of a training step, including data loading, on a few real batches.

    Args:
        method: Model; it is trained by these steps and must not be used afterwards.
        data: Training clips (without augmentation for a frozen backbone).
        device: Training device.
        masking: Masking of the masked pathway, if any.
        autocast: Mixed precision context, entered in each step.
    """
    method.to(device).train(trains_backbone(method))
    method.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    attach_masking(method, masking)
    others = [module for name, module in method.named_children() if name != "backbone"]
    trained = any(parameter.requires_grad for parameter in method.parameters())
    optimizer = method.optim.build(method.backbone, others, 1, 1)[0] if trained else None
    durations: list[float] = []
    now = start = time.monotonic()
    for cpu_batch in _repeat_epochs(data):
        batch = cast(Batch, method.transfer_batch_to_device(cpu_batch, device, 0))
        loss = step_loss(method, batch, autocast)
        if loss is not None and optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now, before = time.monotonic(), now
        durations.append(now - before)
        if len(durations) > _STEPS or (now - start > _PATIENCE and len(durations) > 1):
            break
    return float(np.median(durations[1:]))  # the first step starts workers and selects kernels


def _repeat_epochs(data: SkeletonDataModule) -> Iterator[Any]:
    while True:
        yield from data.train_dataloader()


def format_bytes(count: float) -> str:
    """Format a number of bytes in MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def format_duration(seconds: float) -> str:
    """Format a duration with about two digits."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
