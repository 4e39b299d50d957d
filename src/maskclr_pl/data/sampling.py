"""Which clips make a batch, and which clips are held out for validation."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import distributed
from torch.utils.data import Sampler

from maskclr_pl.types import InputError

Key = tuple[int, int]
"""(epoch, index in the split): all that the randomness of a sample depends on, with the seed."""


class EpochBatches(Sampler[list[Key]]):
    """Batches of shuffled clips; each rank gets its own share of the same permutation.

    Args:
        size: Number of clips.
        batch_size: Clips per batch and rank. The last incomplete batch is left out in training,
            unless it is the only one.
        seed: Seed of the permutations.
        shuffle: False for validation and test: file order, nothing left out or repeated.
    """

    def __init__(self, size: int, batch_size: int, *, seed: int, shuffle: bool):
        self.size, self.batch_size, self.seed, self.shuffle = size, batch_size, seed, shuffle
        self.epoch = 0

    @property
    def sampler(self) -> "EpochBatches":
        """Lightning calls `set_epoch` on the sampler of a batch sampler, not on the latter."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    def _share(self) -> tuple[int, int]:
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    def __len__(self) -> int:
        rank, world = self._share()
        if not self.shuffle:
            return -(-len(range(rank, self.size, world)) // self.batch_size)
        return max(1, self.size // world // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        rank, world = self._share()
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
            order = order[: max(world, self.size // world * world)]
        mine = order[rank::world]
        for batch in range(len(self)):
            chosen = mine[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in chosen]


class ClassBalancedBatches(EpochBatches):
    """Batches of `classes` classes with `samples` clips each (P x K), so that classes meet.

    In a random batch of 16 clips and 60 classes only one clip in five has another of its class; the
    contrast between classes then says little more than the contrast between clips.

    Args:
        labels: Class of each clip.
        classes: P, at most the number of classes there are.
        samples: K. Classes with fewer clips repeat them.
        seed: Seed of the draws.

    Raises:
        InputError: If there are fewer than P classes.
    """

    def __init__(
        self, labels: Sequence[int] | np.ndarray, classes: int, samples: int, *, seed: int
    ):
        super().__init__(len(labels), classes * samples, seed=seed, shuffle=True)
        self.classes, self.samples = classes, samples
        self.members = [np.flatnonzero(np.asarray(labels) == label) for label in np.unique(labels)]
        if classes > len(self.members):
            raise InputError(
                f"class-balanced batches of {classes} classes asked for, but the training split "
                f"has {len(self.members)}; type data.balanced.classes={len(self.members)}"
            )

    def __iter__(self) -> Iterator[list[Key]]:
        rank, _ = self._share()
        rng = np.random.default_rng((self.seed, self.epoch, rank))
        for _ in range(len(self)):
            batch: list[Key] = []
            for label in rng.choice(len(self.members), self.classes, replace=False):
                members = self.members[label]
                chosen = rng.choice(members, self.samples, replace=len(members) < self.samples)
                batch += [(self.epoch, int(index)) for index in chosen]
            yield batch


def hold_out(
    labels: np.ndarray, subjects: np.ndarray | None, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a validation part from a training split.

    Where the subjects are known and there are at least three, whole subjects are held out, until
    the fraction is reached; otherwise clips are, the same share of each class.

    Args:
        labels: (n,) classes.
        subjects: (n,) subject ids, -1 for unknown, or None.
        fraction: Share to hold out, in (0, 1).
        seed: Seed of the choice.

    Returns:
        Positions (sorted) of the training part and of the validation part; disjoint.
    """
    rng = np.random.default_rng((seed, 1))
    held = np.zeros(len(labels), dtype=bool)
    known = np.unique(subjects) if subjects is not None else np.empty(0)
    if len(known) >= 3 and known.min() >= 0:
        sizes = {subject: int(np.count_nonzero(subjects == subject)) for subject in known}
        # a large subject could be most of the data: none that overshoots by more than half, unless
        # all do
        room = max(1.5 * fraction * len(labels), min(sizes.values()))
        count = 0
        for subject in rng.permutation(known)[:-1]:
            if count + sizes[subject] <= room and count < fraction * len(labels):
                held |= subjects == subject
                count += sizes[subject]
        if not count:  # the smallest was the last
            held |= subjects == min(sizes, key=lambda subject: sizes[subject])
    else:
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            count = max(1, round(fraction * len(members))) if len(members) > 1 else 0
            held[members[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
