"""Data loader of a training that may be resumed."""

from collections.abc import Iterator
from typing import Any

import lightning as L
from torch.utils.data import DataLoader


class EpochLoader(DataLoader[Any]):
    """Data loader that fetches the first batch of an epoch only on request.

    Lightning creates the iterator before it sets the epoch and restores the progress of a
    checkpoint, and workers prefetch immediately: a resumed run would repeat the clips and random
    draws of epoch 0.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Return a generator: nothing is fetched before `next`."""
        yield from super().__iter__()


def completed_batches(trainer: L.Trainer | None) -> int:
    """Count the batches of the current epoch that a resumed training has already seen."""
    if trainer is None or not trainer.training:
        return 0
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready
