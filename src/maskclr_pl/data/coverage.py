"""Classes without clips, splits that lack some, and clips that nobody is seen in."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from maskclr_pl.data.contents import held_out
from maskclr_pl.data.store.reader import Store

_NAMED = 10  # classes or clips in a line


def store_notes(store: Store) -> list[str]:
    """What a store lacks, a line each: classes, clips of splits, persons."""
    alone = f"all clips are of one class, {store.class_names[0]}: a classifier needs two"
    return [
        *([alone] if len(store.class_names) == 1 else []),
        *class_lines(store.label, store.class_names),
        *split_lines(store.label, store.class_names, store.splits),
        *empty_splits(store.splits),
        *_overlaps(store),
        *_nobody_in_store(store),
    ]


def class_lines(label: Int[np.ndarray, " n"], class_names: Sequence[str]) -> list[str]:
    """Classes without any clip; labels that do not count from 0.

    Args:
        label: Class of each clip.
        class_names: One name per class.
    """
    first = first_label(label, class_names)
    result = []
    if first:
        below = "class 0 has" if first == 1 else f"classes 0 to {first - 1} have"
        result.append(
            f"the lowest label is {first}, so {below} no clip; if the labels count from {first}, "
            f"pass first_label={first} to prepare"
        )
    empty = np.setdiff1d(np.arange(first, len(class_names)), label)
    if len(empty):
        result.append(
            f"no clip of {len(empty)} of {number(len(class_names), 'class')}: "
            f"{few([class_names[i] for i in empty])}; check class_names and the labels"
        )
    return result


def first_label(label: Int[np.ndarray, " n"], class_names: Sequence[str]) -> int:
    """The lowest label, if it is plausible that labels count from it; 0 if not.

    A class below it with a name of its own is a class, which happens to have no clips.
    """
    lowest = int(label.min(initial=len(class_names)))
    counted = list(class_names[:lowest]) == [str(i) for i in range(lowest)]
    return lowest if counted and lowest < len(class_names) else 0


def split_lines(
    label: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    splits: Mapping[str, Int[np.ndarray, " m"]],
) -> list[str]:
    """Classes of test splits that the training split lacks."""
    result = []
    for train, test in held_out(splits):
        only = np.setdiff1d(label[splits[test]], label[splits[train]])
        if len(only) and len(splits[train]):
            result.append(
                f"no clip in {train}, but in {test}, of {number(len(only), 'class')}: "
                f"{few([class_names[i] for i in only])}; check the splits"
            )
    return result


def empty_splits(splits: Mapping[str, Sequence[int] | np.ndarray]) -> list[str]:
    """Splits that no clip is in."""
    return [f"split {name} has no clips" for name, rows in splits.items() if not len(rows)]


def training_notes(
    train: Int[np.ndarray, " n"], test: Int[np.ndarray, " m"], store: Store
) -> list[str]:
    """Classes that a classifier cannot learn, or whose test clips it cannot get right.

    Args:
        train: Class of each training clip.
        test: Class of each test clip.
        store: Where they are from.
    """
    names = store.class_names
    untrained = ~np.isin(test, train)
    if untrained.all():
        return ["no test clip is of a class that is trained on; pass another data.test_split="]
    notes = []
    if untrained.any():
        lacking = np.unique(test[untrained])
        notes.append(
            f"{number(int(untrained.sum()), 'test clip')} of {number(len(lacking), 'class')} "
            f"without a training clip ({few([names[i] for i in lacking])}) cannot be recognized "
            "but count as wrong; pass data.train_split= and data.test_split= with the same classes"
        )
    unused = np.setdiff1d(np.arange(len(names)), np.union1d(train, test))
    if len(unused):
        first = first_label(store.label, names)
        advice = (
            f"; if labels count from {first}, prepare with first_label={first}" if first else ""
        )
        notes.append(
            f"{len(unused)} of {number(len(names), 'class')} have no training and no test clip "
            f"({few([names[i] for i in unused])}), but an output of the model each"
            + (advice if first else "")
        )
    return notes


def nobody_notes(store: Store, parts: Mapping[str, Int[np.ndarray, " n"]]) -> list[str]:
    """Clips that nobody is seen in, in one line; none if there are none or a store is too old.

    Args:
        store: Where the clips are.
        parts: Part of the data -> rows of its clips.
    """
    empty = {part: rows[nobody(store)[rows]] for part, rows in parts.items()}
    counts = [
        f"{len(rows)} of {number(len(parts[part]), f'{part} clip')}"
        for part, rows in empty.items()
        if len(rows)
    ]
    if not counts:
        return []
    clips = np.unique(np.concatenate(list(empty.values())))
    return [f"nobody is seen in {' and '.join(counts)}: {_kept(store, clips)}"]


def nobody(store: Store) -> np.ndarray:
    """(n,) bool: clips without a visible joint; the store has no hash of their poses."""
    return np.zeros(len(store), dtype=bool) if store.digest is None else store.digest == 0


def number(count: int, noun: str) -> str:
    """A count with its noun: 1 class, 2 classes."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def few(names: Sequence[str]) -> str:
    """The first ten names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _nobody_in_store(store: Store) -> list[str]:
    rows = np.flatnonzero(nobody(store))
    if not len(rows):
        return []
    inside = [
        f"{len(both)} in {split}"
        for split, members in store.splits.items()
        if len(both := np.intersect1d(members, rows))
    ]
    where = f" ({few(inside)})" if inside else ""
    clips = number(len(store), "clip")
    return [f"nobody is seen in {len(rows)} of {clips}{where}: {_kept(store, rows)}"]


def _kept(store: Store, rows: np.ndarray) -> str:
    """Names of clips without a person, and why they are there."""
    more = f"; check=true input={store.path} lists all" if len(rows) > _NAMED else ""
    names = few([store.name(int(i)) for i in rows])
    return f"{names}; kept, since test scores count every clip of a split{more}"


def _overlaps(store: Store) -> list[str]:
    """Clips on both sides of a training and a test split."""
    result = []
    for a, b in (*held_out(store.splits), *held_out(store.splits, "val")):
        both = np.intersect1d(store.splits[a], store.splits[b])
        if len(both):
            names = few([store.name(int(i)) for i in both])
            result.append(f"{number(len(both), 'clip')} in {a} and in {b}: {names}")
    return result
