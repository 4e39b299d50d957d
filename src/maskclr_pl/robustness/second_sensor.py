"""The same clips as another sensor or pose estimator saw them: a second store of them.

Clips are matched by name, and only those matched are compared. No pose is aligned with the other
store's: the difference between the two is what is measured.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import cast

import numpy as np
from jaxtyping import Int
from torch import nn

from maskclr_pl.data import Store
from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.methods import Classifier
from maskclr_pl.robustness.corruptions import Poses
from maskclr_pl.robustness.runner import Passes, measure_robustness
from maskclr_pl.sources.format_detection import find_format_problem
from maskclr_pl.transforms import Convert
from maskclr_pl.types import Batch, InputError

NAME = "second_store"


def second_passes(
    method: Classifier,
    store: Store,
    test: ClipDataset,
    first: Passes,
    load: Callable[[ClipDataset], Iterable[Batch]],
) -> Passes:
    """Which clips are recognised in the second store.

    Args:
        method: In eval mode.
        store: The second store; its joints are converted to those that the method knows.
        test: The test clips of the first store.
        first: What is known of them; its first pass is over the clean clips.
        load: Clips of a part to batches, on the device of the method.

    Returns:
        Two passes over the clips that both stores have: clean, in the first store, and
        `second_store` with level 1.

    Raises:
        InputError: If no clip is in both, or classes or coordinates differ.
    """
    if store.coordinates != test.store.coordinates:
        raise InputError(
            f"{NAME}={store.path}: it holds {store.coordinates}, {test.store.path} holds "
            f"{test.store.coordinates}"
        )
    odd = find_format_problem(store)
    if odd and odd != find_format_problem(
        test.store
    ):  # a model must be tested on the units it was trained on
        raise InputError(f"{NAME}={store.path}: {odd}")
    here, there = matching(store, test)
    part = ClipDataset(
        *(store, there, test.frames, test.persons, False, test.seed),
        sampling=test.sampling,
        released=test.released,
    )
    knowing = with_joints_of(method, store)
    poses = Poses(store.skeleton, 2 if store.coordinates == "pixels" else 3)
    found = measure_robustness(
        lambda clip, batch: knowing.predict_clips(clip, batch).logits,
        *(load(part), part.names, [], poses),
    )
    return Passes(
        *(first.name[here], first.label[here], [first.keys[0], (NAME, 1.0, 0)]),
        correct=np.stack((first.correct[0, here], found.correct[0])),
        among5=np.stack((first.among5[0, here], found.among5[0])),
    )


def matching(
    store: Store, test: ClipDataset
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Places of the test clips that a second store has, too, and of their counterparts there.

    Names are compared as they are and, if none is the same, without their extensions.

    Raises:
        InputError: If no clip is in both, or one is of another class in the second.
    """
    mine, theirs = test.names, [store.name(i) for i in range(len(store))]
    pairs = _same(mine, theirs) or _same(_stems(mine), _stems(theirs))
    if not pairs:
        raise InputError(
            f"{NAME}={store.path}: none of its {len(theirs)} clips is named like a test clip (one "
            f"of them is {theirs[0]!r}, one of the test clips {mine[0]!r}); expected the same "
            "clips from another sensor or estimator"
        )
    for i, j in pairs:
        label, other = test.labels[i], store.label[j]
        names = test.store.class_names[label], store.class_names[other]
        if label != other or names[0] != names[1]:
            raise InputError(
                f"{NAME}={store.path}: clip {theirs[j]!r} is of class {other} ({names[1]!r}), the "
                f"test clip of {test.store.path} of class {label} ({names[0]!r}); expected the "
                "same clips and classes"
            )
    here, there = np.array(pairs).T
    return here, there


def _same(mine: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    place = {name: j for j, name in enumerate(theirs)}
    once = Counter(mine), Counter(theirs)
    return [(i, place[name]) for i, name in enumerate(mine) if once[0][name] == once[1][name] == 1]


def _stems(names: Sequence[str]) -> list[str]:
    return [PurePath(name).stem for name in names]


def matched(method: Classifier, store: Store, second: Passes, test: ClipDataset) -> str:
    """How many clips a second store has, and which joints it lacks, in words."""
    missing = Convert(store.skeleton, method.skeleton).missing
    lacking = f"; its joints make no {', '.join(missing)}" if missing else ""
    return f"has {len(second.name)} of the {len(test)} test clips{lacking}"


def with_joints_of(method: Classifier, store: Store) -> Classifier:
    """The method, for clips with the joints of another store; those it cannot build are zeros."""
    other = copy.deepcopy(method)
    steps = cast(nn.Sequential, other.preprocess)  # as checkpoint.build_method makes it
    known = cast(Convert, steps[0])
    steps[0] = Convert(store.skeleton, method.skeleton, known.confidence, known.released_scores)
    return other.to(method.device)
