"""What the processes of one training tell each other; in a single process, nothing is sent."""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def rank_and_world_size() -> tuple[int, int]:
    """The rank of this process, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, with gradient; `x` itself in a single process."""
    ranks = rank_and_world_size()[1]
    if ranks == 1:
        return x
    if x.requires_grad:
        return torch.cat(all_gather(x.contiguous()))
    parts = [torch.empty_like(x) for _ in range(ranks)]
    distributed.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def mean_count(count: Tensor) -> Tensor:
    """A count (at least 1) of all ranks, divided by their number; without gradient.

    A sum over this rank's values divided by it is a loss whose mean over the ranks is the mean over
    all values, and so is its gradient, however many values each rank has.
    """
    ranks = rank_and_world_size()[1]
    total = count.detach().float()
    if ranks > 1:
        total = total.clone()
        distributed.all_reduce(total)
    return total.clamp_min(1) / ranks


def gather_objects(value: Any) -> list[Any]:
    """The value of each process of this run, on all of them."""
    ranks = rank_and_world_size()[1]
    if ranks == 1:
        return [value]
    values: list[Any] = [None] * ranks
    distributed.all_gather_object(values, value)
    return values
