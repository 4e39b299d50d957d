"""The loader of a part, and where a continued training goes on."""

from collections.abc import Iterator
from typing import Any

import lightning as L
from torch.utils.data import DataLoader


class EpochLoader(DataLoader[Any]):
    """A loader that asks for the first batch of an epoch only when somebody wants it.

    Lightning makes the iterator of a training before it names the epoch and reads how far a
    checkpoint was, and the workers of an ordinary loader fetch ahead at once: a continued run would
    repeat the clips and draws of epoch 0.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """A generator: nothing is fetched before `next`."""
        yield from super().__iter__()


def batches_done(trainer: L.Trainer | None) -> int:
    """Batches of the current epoch that a fit has behind it when it asks for the first one.

    0, but for the epoch in which a checkpoint was written.
    """
    if trainer is None or not trainer.training:
        return 0
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready
