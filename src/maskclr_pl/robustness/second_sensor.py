"""Evaluation on the same clips from another sensor or pose estimator (a second store).

Clips are matched by name, and only matching clips are compared. Poses are not aligned: the
difference between both stores is what is measured.
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
from maskclr_pl.robustness.runner import Passes, PassKey, measure_robustness
from maskclr_pl.sources.format_detection import find_format_problem
from maskclr_pl.transforms import Convert
from maskclr_pl.types import Batch, InputError
from maskclr_pl.visibility import DIMENSIONS

NAME = "second_store"


def evaluate_second_store(
    method: Classifier,
    store: Store,
    test: ClipDataset,
    first: Passes,
    load: Callable[[ClipDataset], Iterable[Batch]],
) -> Passes:
    """Evaluate a model on the test clips of a second store.

    Args:
        method: Model in eval mode.
        store: The second store; its joints are converted to the layout of the model.
        test: Test clips of the first store.
        first: Results on these clips; the first pass is clean.
        load: Returns the batches of a dataset on the device of the model.

    Returns:
        Two passes over the clips of both stores: `clean` in the first store, and `second_store`
        with level 1.

    Raises:
        InputError: If no clip is in both stores, or classes or units differ.
    """
    if store.coordinates != test.store.coordinates:
        raise InputError(
            f"{NAME}={store.path}: coordinates are {store.coordinates}, expected "
            f"{test.store.coordinates} as in {test.store.path}"
        )
    problem = find_format_problem(store)
    if problem and problem != find_format_problem(test.store):  # units must match those of training
        raise InputError(f"{NAME}={store.path}: {problem}")
    test_index, store_index = match_clips(store, test)
    clips = ClipDataset(
        store,
        store_index,
        test.frames,
        test.persons,
        False,
        test.seed,
        sampling=test.sampling,
        released=test.released,
    )
    converted = with_input_joints(method, store)
    second = measure_robustness(
        lambda clip, batch: converted.predict_clips(clip, batch).logits,
        load(clips),
        clips.names,
        corruptions=[],
        poses=Poses(store.skeleton, DIMENSIONS[store.coordinates]),
    )
    return Passes(
        first.name[test_index],
        first.label[test_index],
        [first.keys[0], PassKey(NAME, 1.0, 0)],
        correct=np.stack((first.correct[0, test_index], second.correct[0])),
        correct_top5=np.stack((first.correct_top5[0, test_index], second.correct_top5[0])),
    )


def match_clips(
    store: Store, test: ClipDataset
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Return indices of matching clips in the test set and in a second store.

    Names are compared literally and, if none matches, without file extensions.

    Raises:
        InputError: If no clip matches, or a matching clip has another class.
    """
    test_names, store_names = test.names, [store.name(i) for i in range(len(store))]
    matches = _unique_matches(test_names, store_names) or _unique_matches(
        [PurePath(name).stem for name in test_names], [PurePath(name).stem for name in store_names]
    )
    if not matches:
        raise InputError(
            f"{NAME}={store.path}: no clip has the name of a test clip (for example "
            f"{store_names[0]!r}, test clips: {test_names[0]!r}); expected the same clips from "
            "another sensor or pose estimator"
        )
    for i, j in matches:
        label, other = test.labels[i], store.label[j]
        class_name, other_name = test.store.class_names[label], store.class_names[other]
        if label != other or class_name != other_name:
            raise InputError(
                f"{NAME}={store.path}: clip {store_names[j]!r} has class {other} ({other_name!r}), "
                f"expected class {label} ({class_name!r}) as in {test.store.path}"
            )
    test_index, store_index = np.array(matches).T
    return test_index, store_index


def _unique_matches(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Return index pairs of the names that occur once in both sequences."""
    index = {name: j for j, name in enumerate(second)}
    counts, other_counts = Counter(first), Counter(second)
    return [
        (i, index[name]) for i, name in enumerate(first) if counts[name] == other_counts[name] == 1
    ]


def describe_second_store(
    method: Classifier, store: Store, second: Passes, test: ClipDataset
) -> str:
    """Describe the matching clips and the joints that the second store lacks."""
    missing = Convert(store.skeleton, method.skeleton).missing
    joints = f"; joints without data: {', '.join(missing)}" if missing else ""
    return f"has {len(second.name)} of the {len(test)} test clips{joints}"


def with_input_joints(method: Classifier, store: Store) -> Classifier:
    """Return a copy of a model for the joint layout of another store; missing joints are zeros."""
    converted = copy.deepcopy(method)
    steps = cast(nn.Sequential, converted.preprocess)  # see checkpoint.build_method
    old = cast(Convert, steps[0])
    steps[0] = Convert(store.skeleton, method.skeleton, old.confidence, old.released_scores)
    return converted.to(method.device)
