"""Batch samplers that give the same batches for any number of ranks."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from torch.utils.data import Sampler

from maskclr_pl.distributed import rank_and_world_size
from maskclr_pl.types import InputError

Key = tuple[int, int]
"""(epoch, index in the split); with the seed, it determines the randomness of a sample."""


def clips_per_rank(batch_size: int, ranks: int, key: str = "data.batch_size") -> int:
    """Divide a training batch among the ranks.

    Args:
        batch_size: Clips per batch, over all ranks.
        ranks: Number of processes.
        key: Setting that determines the batch size, for the message.

    Raises:
        InputError: If the ranks cannot get equal shares of at least two clips (BatchNorm cannot
            normalize one).
    """
    share = batch_size // ranks
    if ranks == 1 or (batch_size % ranks == 0 and share > 1):
        return share
    below, above = (max(2, number) * ranks for number in (share, share + 1))
    sizes = " or ".join(str(size) for size in dict.fromkeys((below, above)))
    raise InputError(
        f"{key} gives batches of {batch_size} clips, which {ranks} devices cannot share equally "
        f"with at least two clips each; pass a {key} that gives {sizes}, or other trainer.devices"
    )


def check_balanced(value: object) -> None:
    """Validate `data.balanced`.

    Raises:
        InputError: If it is neither None nor {classes: P, samples: K} with integers from 1.
    """
    if value is None:
        return
    sizes = list(value.values()) if isinstance(value, dict) else []
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes)
    if not isinstance(value, dict) or value.keys() != {"classes", "samples"} or not whole:
        raise InputError(
            f"data.balanced={value}: expected {{classes: P, samples: K}} with integers from 1"
        )


class EpochBatches(Sampler[list[Key]]):
    """Shuffled or sequential batches, each shared among the ranks.

    A training step uses the same clips for any number of ranks.

    Args:
        size: Number of clips.
        batch_size: Clips per batch, over all ranks. Training drops the last incomplete batch,
            unless it is the only one.
        seed: Seed of the permutations.
        shuffle: False for validation and test: file order, every clip exactly once.
        completed: Returns the number of batches of this epoch to skip when training is resumed.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        completed: Callable[[], int] = lambda: 0,
    ):
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.completed, self.epoch = completed, 0

    @property
    def sampler(self) -> "EpochBatches":
        """Return self: Lightning calls `set_epoch` on the sampler of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the trainer calls this before it fetches the first batch."""
        self.epoch = epoch

    def _share(self) -> tuple[int, int]:
        return rank_and_world_size()

    def __len__(self) -> int:
        """Count the batches of a full epoch, also when training resumes in the middle of one."""
        if self.shuffle:
            return max(1, self.size // self.batch_size)
        rank, world = self._share()
        return -(-len(range(rank, self.size, world)) // max(1, self.batch_size // world))

    def __iter__(self) -> Iterator[list[Key]]:
        if not self.shuffle:
            yield from self._sequential()
            return
        rank, world = self._share()
        epoch = self.epoch
        for batch in islice(self._batches(epoch), self.completed(), None):
            # a split smaller than a batch drops the clips that cannot be shared equally
            full = len(batch) == self.batch_size
            share = clips_per_rank(len(batch), world) if full else len(batch) // world
            yield [(epoch, int(index)) for index in batch[rank * share : (rank + 1) * share]]

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the clips of each step of an epoch, over all ranks."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _sequential(self) -> Iterator[list[Key]]:
        rank, world = self._share()
        share, own = max(1, self.batch_size // world), range(rank, self.size, world)
        for first in range(0, len(own), share):
            yield [(self.epoch, index) for index in own[first : first + share]]


class ClassBalancedBatches(EpochBatches):
    """Batches of P classes with K clips each, which give class contrast its positives.

    In a random batch of 16 clips from 60 classes, only one clip in five shares its class with
    another. The ranks share the P x K clips class by class; losses gather all of them.

    Args:
        labels: Class of each clip.
        classes: P, at most the number of classes.
        samples: K. Classes with fewer clips repeat them.
        seed: Seed of the draws.
        completed: See `EpochBatches`.

    Raises:
        InputError: If there are fewer than P classes.
    """

    def __init__(
        self,
        labels: Sequence[int] | np.ndarray,
        classes: int,
        samples: int,
        *,
        seed: int,
        completed: Callable[[], int] = lambda: 0,
    ):
        super().__init__(
            len(labels), classes * samples, seed=seed, shuffle=True, completed=completed
        )
        self.classes, self.samples = classes, samples
        self.members = [np.flatnonzero(np.asarray(labels) == label) for label in np.unique(labels)]
        if classes > len(self.members):
            raise InputError(
                f"data.balanced.classes={classes}, but the training split has {len(self.members)} "
                f"classes; pass data.balanced.classes={len(self.members)}"
            )

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        # identical on every rank; the 0 keeps the draws of earlier versions
        rng = np.random.default_rng((self.seed, epoch, 0))
        for _ in range(len(self)):
            chosen = rng.choice(len(self.members), self.classes, replace=False)
            members = [self.members[label] for label in chosen]
            yield np.concatenate(
                [rng.choice(m, self.samples, replace=len(m) < self.samples) for m in members]
            )
