"""Needs of a training, before it starts: memory, disk space, time."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from maskclr_pl.analysis.memory import Memory, step_loss, trains_backbone
from maskclr_pl.backbones import Backbone
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.dataset import MAX_FRAMES, ClipDataset
from maskclr_pl.masking import Masking
from maskclr_pl.methods import Method
from maskclr_pl.types import Batch

_SAMPLE = 128  # clips whose persons are counted
_SMALL = 3_000_000_000
"""Joints in a batch times parameters of the backbones, below which memory is no question (0.1 to
0.7 GiB were estimated for small models of each backbone) and an estimate is not worth its time."""
_ENOUGH = 0.9
"""Share of the free memory that a step may need: an allocator leaves some unused, and a CUDA
context and the workspaces of kernels are not counted."""
_STEPS, _PATIENCE = 10, 30.0  # steps that are timed, unless they take so many seconds


class LargestBatch(NamedTuple):
    """The largest batch that is to be expected."""

    batch_size: int
    persons: int
    mean: float
    """Persons a clip."""
    batch: Batch
    """Of the right sizes, without values (on the device `meta`)."""


def largest_batch(method: Method, data: SkeletonDataModule, devices: int = 1) -> LargestBatch:
    """A device's share of a training batch with very many persons.

    Random clips have more but once in 700 batches: the mean over the training clips and three
    standard deviations of a batch's sum.
    """
    clips = data.train.as_tested()
    size = max(1, min(data.step_clips, len(clips)) // devices)
    counts = _persons(clips)
    most = size * clips.persons
    likely = size * counts.mean() + 3 * math.sqrt(size) * counts.std()
    padded = method.persons == "padded"
    persons = most if padded else min(most, max(1, math.ceil(likely)))
    whole = clips.sampling == "whole"
    frames = min(int(clips.lengths.max()), MAX_FRAMES) if whole else clips.frames
    joints, channels = len(clips.store.skeleton), clips.store.channels

    def empty(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    planes = empty(channels, size, clips.persons, frames, joints, dtype=torch.float32)
    batch: Batch = {
        "clip": planes.movedim(0, -1),  # as `collate` lays it out
        "present": empty(size, clips.persons, dtype=torch.bool),
        "sequence": empty(persons),
        "frame": empty(size, frames),
        "label": empty(size),
        "index": empty(size),
    }
    return LargestBatch(size, persons, float(counts.mean()), batch)


def _persons(clips: ClipDataset) -> np.ndarray:
    """Persons who are present in a sample of clips, evenly spaced."""
    chosen = np.unique(np.linspace(0, len(clips) - 1, _SAMPLE).astype(int))
    return np.array([int(clips[int(index)]["present"].sum()) for index in chosen])


def is_small(method: Method, load: LargestBatch) -> bool:
    """Whether a step is too small for its memory to matter on any machine."""
    frames, joints = load.batch["clip"].shape[2:4]
    parameters = sum(
        parameter.numel()
        for module in method.modules()
        if isinstance(module, Backbone)
        for parameter in module.parameters()
    )
    return load.persons * frames * joints * parameters < _SMALL


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process can still take on a device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration, ValueError):
        return None
    try:  # of a container
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):
        return free


def fits(memory: Memory, free: int | None) -> bool:
    """Whether a step can be expected to run in the memory that is free."""
    return free is None or memory.peak <= _ENOUGH * free


def checkpoint_bytes(method: Method) -> int:
    """Size of a checkpoint: what the method saves, and the state of its optimizer."""
    saved = sum(value.nbytes for value in method.state_dict().values())
    moments = 2 if method.optim.optimizer == "adamw" else int(method.optim.momentum > 0)
    return saved + moments * sum(p.nbytes for p in method.parameters() if p.requires_grad)


def seconds_per_step(
    method: Method,
    data: SkeletonDataModule,
    device: torch.device,
    masking: Masking | None,
    autocast: AbstractContextManager[Any],
) -> float:
    """Duration of a step, loading of its clips included, measured on a few real ones.

    Args:
        method: Is trained by these steps, so that it is of no further use.
        data: Gives the training clips; those as tested to a backbone that does not learn.
        device: To train on.
        masking: Of the masked pathway, where the method has one.
        autocast: Context of mixed precision; entered in each step.
    """
    method.to(device).train(trains_backbone(method))
    method.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    if masking is not None:
        setattr(method, "masking", masking)  # noqa: B010  # see MaskingCallback
    others = [module for name, module in method.named_children() if name != "backbone"]
    trained = any(parameter.requires_grad for parameter in method.parameters())
    optimizer = method.optim.build(method.backbone, others, 1, 1)[0] if trained else None
    durations: list[float] = []
    last = began = time.monotonic()
    for batch in _endless(data):
        held = cast(Batch, method.transfer_batch_to_device(batch, device, 0))
        loss = step_loss(method, held, autocast)
        if loss is not None and optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        last, before = time.monotonic(), last
        durations.append(last - before)
        if len(durations) > _STEPS or (last - began > _PATIENCE and len(durations) > 1):
            break
    return float(np.median(durations[1:]))  # the first starts loaders and chooses kernels


def _endless(data: SkeletonDataModule) -> Iterator[Any]:
    while True:
        yield from data.train_dataloader()


def format_bytes(count: float) -> str:
    """Bytes as text: MiB, or GiB from one on."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def format_duration(seconds: float) -> str:
    """A stretch of time as text, to two digits or so."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
