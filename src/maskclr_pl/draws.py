"""Random numbers for clips: which process a clip is on changes nothing.

Inside of `per_clip`, every process draws for the clips of the whole batch, from a generator that is
in the same state on all, and takes the rows of its own clips. For the persons of a clip, places are
drawn for as many as a clip can have, so that it does not matter how many the other clips have.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from maskclr_pl.distributed import rank_and_world_size
from maskclr_pl.types import Batch

Fill = Callable[[Tensor, Generator | None], Tensor]
"""Fills a tensor in place, from a generator (None: torch's own)."""


class _Step(NamedTuple):
    batch: Batch
    seed: int
    generator: Generator | None


_STEP: ContextVar[_Step | None] = ContextVar("step", default=None)


@contextmanager
def per_clip(batch: Batch, seed: int) -> Iterator[None]:
    """Draw as the module says.

    Args:
        batch: Of this process; all processes have as many clips.
        seed: Of the step, the same in all processes. A single process draws from torch's own
            generator instead, which goes on from step to step.
    """
    device = batch["clip"].device
    several = rank_and_world_size()[1] > 1
    generator = Generator(device).manual_seed(seed) if several else None
    token = _STEP.set(_Step(batch, seed, generator))
    try:
        yield
    finally:
        _STEP.reset(token)


def for_clips(shape: Sequence[int], device: torch.device, fill: Fill) -> Tensor:
    """Float32 numbers for clips, which are the first axis (a single clip outside of `per_clip`)."""
    step = _STEP.get()
    if step is None:
        return fill(torch.empty(tuple(shape), device=device), None)
    (rank, ranks), clips = rank_and_world_size(), shape[0]
    whole = fill(torch.empty((ranks * clips, *shape[1:]), device=device), step.generator)
    return whole[rank * clips : (rank + 1) * clips]


def for_persons(
    shape: Sequence[int], device: torch.device, fill: Fill, generator: Generator | None = None
) -> Tensor:
    """Float32 numbers for person sequences, which are the first axis.

    Args:
        shape: Of the numbers.
        device: To draw on.
        fill: See `Fill`.
        generator: Draw from this one, for these sequences alone.
    """
    step = _STEP.get()
    if step is None or generator is not None:
        return fill(torch.empty(tuple(shape), device=device), generator)
    clips, persons = step.batch["present"].shape
    rank, ranks = rank_and_world_size()
    # person by person, so that further persons who are absent change nothing
    sizes = (persons, ranks * clips, *shape[1:])
    whole = fill(torch.empty(sizes, device=device), step.generator)
    drawn = whole[:, rank * clips : (rank + 1) * clips].transpose(0, 1).flatten(0, 1)
    if shape[0] == clips * persons:  # padded, or everybody is there
        return drawn
    return drawn.index_select(0, step.batch["sequence"])
