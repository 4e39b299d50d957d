"""Which clips make a batch, and which rank of a step gets them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from torch.utils.data import Sampler

from maskclr_pl.distributed import rank_and_world_size
from maskclr_pl.types import InputError

Key = tuple[int, int]
"""(epoch, index in the split): all that the randomness of a sample depends on, with the seed."""


def clips_per_rank(batch_size: int, ranks: int, key: str = "data.batch_size") -> int:
    """Share of each rank in the training batch of a step.

    Args:
        batch_size: Clips of the step, of all ranks together.
        ranks: Number of processes.
        key: Setting that the size comes from, for the message.

    Raises:
        InputError: If the clips cannot be divided equally, or a rank gets a single one of several,
            which BatchNorm cannot normalize.
    """
    share = batch_size // ranks
    if ranks == 1 or (batch_size % ranks == 0 and share > 1):
        return share
    below, above = (max(2, number) * ranks for number in (share, share + 1))
    sizes = " or ".join(str(size) for size in dict.fromkeys((below, above)))
    raise InputError(
        f"{key} makes batches of {batch_size} clips, which {ranks} devices cannot share equally, "
        f"two clips or more on each; pass a {key} that makes {sizes}, or another trainer.devices"
    )


def check_balanced(value: object) -> None:
    """Refuse a `data.balanced` that does not say how many classes and clips of each.

    Raises:
        InputError: If it is neither None nor {classes: P, samples: K} with whole numbers from 1.
    """
    if value is None:
        return
    sizes = list(value.values()) if isinstance(value, dict) else []
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes)
    if not isinstance(value, dict) or value.keys() != {"classes", "samples"} or not whole:
        raise InputError(
            f"data.balanced={value}: expected {{classes: P, samples: K}} with whole numbers from 1"
        )


class EpochBatches(Sampler[list[Key]]):
    """Batches of shuffled clips; each rank gets its own share of the same batch.

    A training step learns from the same clips whatever the number of ranks.

    Args:
        size: Number of clips.
        batch_size: Clips per batch, of all ranks together. The last incomplete batch is left out in
            training, unless it is the only one.
        seed: Seed of the permutations.
        shuffle: False for validation and test: file order, nothing left out or repeated.
        done: Asked at the start of a pass how many batches of this epoch a continued training has
            behind it; they are left out.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        done: Callable[[], int] = lambda: 0,
    ):
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.done, self.epoch = done, 0

    @property
    def sampler(self) -> "EpochBatches":
        """Lightning calls `set_epoch` on the sampler of a batch sampler, not on the latter."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch, before its first batch is fetched."""
        self.epoch = epoch

    def _share(self) -> tuple[int, int]:
        return rank_and_world_size()

    def __len__(self) -> int:
        """Batches of a whole epoch, also where a continued one starts in the middle."""
        if self.shuffle:
            return max(1, self.size // self.batch_size)
        rank, world = self._share()
        return -(-len(range(rank, self.size, world)) // max(1, self.batch_size // world))

    def __iter__(self) -> Iterator[list[Key]]:
        if not self.shuffle:
            yield from self._in_order()
            return
        rank, world = self._share()
        epoch, done = self.epoch, self.done()
        for batch in islice(self._batches(epoch), done, None):
            # a split smaller than a batch loses what cannot be shared
            whole = len(batch) == self.batch_size
            share = clips_per_rank(len(batch), world) if whole else len(batch) // world
            yield [(epoch, int(index)) for index in batch[rank * share : (rank + 1) * share]]

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        """The clips of each step of an epoch, of all ranks."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _in_order(self) -> Iterator[list[Key]]:
        rank, world = self._share()
        share, own = max(1, self.batch_size // world), range(rank, self.size, world)
        for first in range(0, len(own), share):
            yield [(self.epoch, index) for index in own[first : first + share]]


class ClassBalancedBatches(EpochBatches):
    """Batches of `classes` classes with `samples` clips each (P x K), so that classes meet.

    In a random batch of 16 clips and 60 classes only one clip in five has another of its class; the
    contrast between classes then says little more than the contrast between clips. The ranks share
    the P x K clips, class by class; the losses see those of all ranks.

    Args:
        labels: Class of each clip.
        classes: P, at most the number of classes there are.
        samples: K. Classes with fewer clips repeat them.
        seed: Seed of the draws.
        done: See `EpochBatches`.

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
        done: Callable[[], int] = lambda: 0,
    ):
        super().__init__(len(labels), classes * samples, seed=seed, shuffle=True, done=done)
        self.classes, self.samples = classes, samples
        self.members = [np.flatnonzero(np.asarray(labels) == label) for label in np.unique(labels)]
        if classes > len(self.members):
            raise InputError(
                f"class-balanced batches of {classes} classes asked for, but the training split "
                f"has {len(self.members)}; pass data.balanced.classes={len(self.members)}"
            )

    def _batches(self, epoch: int) -> Iterator[np.ndarray]:
        # the same draws on every rank; the 0 stood for the rank once
        rng = np.random.default_rng((self.seed, epoch, 0))
        for _ in range(len(self)):
            chosen = rng.choice(len(self.members), self.classes, replace=False)
            members = [self.members[label] for label in chosen]
            yield np.concatenate(
                [rng.choice(m, self.samples, replace=len(m) < self.samples) for m in members]
            )
