"""Collective operations over the processes of a training; no-ops in a single process."""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gather(x: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, differentiably; every rank has equally many."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return x
    if x.requires_grad:
        return torch.cat(all_gather(x.contiguous()))
    parts = [torch.empty_like(x) for _ in range(world_size)]
    distributed.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def mean_count(count: Tensor) -> Tensor:
    """Return a count summed over all ranks (at least 1) over the number of ranks, detached.

    Dividing this rank's sum by it gives a loss whose mean over the ranks is the mean over all
    values, and so is its gradient, however the values are distributed.
    """
    _, world_size = rank_and_world_size()
    total = count.detach().float()
    if world_size > 1:
        total = total.clone()
        distributed.all_reduce(total)
    return total.clamp_min(1) / world_size


def gather_objects(value: Any) -> list[Any]:
    """Return the value of each process, in the order of ranks, on all of them."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    distributed.all_gather_object(values, value)
    return values
