"""Communication between the processes of a training, and random numbers they agree on.

In a single process nothing is sent.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, distributed
from torch.distributed.nn.functional import all_gather

from maskclr_pl.types import Batch

Fill = Callable[[Tensor, Generator | None], Tensor]
"""Fills a tensor in place from a generator (None: the global one of torch)."""


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


class _Step(NamedTuple):
    batch: Batch
    generator: Generator | None


_STEP: ContextVar[_Step | None] = ContextVar("step", default=None)


@contextmanager
def shared_draws(batch: Batch, seed: int) -> Iterator[None]:
    """Make the random numbers of a clip independent of the process that the clip is on.

    Inside, every process draws for the clips of the whole batch from a generator in the same state
    and keeps the rows of its own clips. Numbers for persons are drawn for as many persons as a clip
    can hold, so they do not depend on how many persons the other clips show.

    Args:
        batch: Batch of this process; all processes have equally many clips.
        seed: Seed of the step, equal in all processes. A single process draws from the global
            generator of torch instead.
    """
    is_shared = rank_and_world_size()[1] > 1
    generator = Generator(batch["clip"].device).manual_seed(seed) if is_shared else None
    token = _STEP.set(_Step(batch, generator))
    try:
        yield
    finally:
        _STEP.reset(token)


def draw_for_clips(shape: Sequence[int], device: torch.device, fill: Fill) -> Tensor:
    """Draw float32 numbers whose first axis is the clips (one clip outside of `shared_draws`)."""
    step = _STEP.get()
    if step is None:
        return fill(torch.empty(tuple(shape), device=device), None)
    (rank, ranks), clips = rank_and_world_size(), shape[0]
    numbers = fill(torch.empty((ranks * clips, *shape[1:]), device=device), step.generator)
    return numbers[rank * clips : (rank + 1) * clips]


def draw_for_persons(
    shape: Sequence[int], device: torch.device, fill: Fill, generator: Generator | None = None
) -> Tensor:
    """Draw float32 numbers whose first axis is the person sequences.

    Args:
        shape: Shape of the result.
        device: Device to draw on.
        fill: See `Fill`.
        generator: Draw from this generator, for these sequences alone.
    """
    step = _STEP.get()
    if step is None or generator is not None:
        return fill(torch.empty(tuple(shape), device=device), generator)
    clips, persons = step.batch["present"].shape
    rank, ranks = rank_and_world_size()
    # person by person, so that additional absent persons do not change the other numbers
    numbers = torch.empty((persons, ranks * clips, *shape[1:]), device=device)
    numbers = fill(numbers, step.generator)[:, rank * clips : (rank + 1) * clips]
    numbers = numbers.transpose(0, 1).flatten(0, 1)  # (B * M, ...)
    if shape[0] == clips * persons:  # padded, or all persons are present
        return numbers
    return numbers.index_select(0, step.batch["sequence"])
