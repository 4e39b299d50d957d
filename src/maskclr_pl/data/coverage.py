"""Notes about classes without clips, incomplete splits, and clips without persons."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from maskclr_pl.data.contents import exclusive_splits
from maskclr_pl.data.store.reader import Store

_LISTED = 10  # names in a line


def store_notes(store: Store) -> list[str]:
    """List classes without clips, incomplete or overlapping splits, and clips without persons."""
    single = f"all clips have class {store.class_names[0]}; a classifier needs at least two"
    return [
        *([single] if len(store.class_names) == 1 else []),
        *class_notes(store.label, store.class_names),
        *split_notes(store.label, store.class_names, store.splits),
        *empty_split_notes(store.splits),
        *_overlaps(store),
        *_empty_in_store(store),
    ]


def class_notes(label: Int[np.ndarray, " n"], class_names: Sequence[str]) -> list[str]:
    """List classes without clips, and labels that do not start at 0.

    Args:
        label: Class of each clip.
        class_names: One name per class.
    """
    first = first_label(label, class_names)
    result = []
    if first:
        below = "class 0 has" if first == 1 else f"classes 0 to {first - 1} have"
        result.append(
            f"the lowest label is {first}, so {below} no clip; if labels start at {first}, pass "
            f"first_label={first} to prepare"
        )
    empty = np.setdiff1d(np.arange(first, len(class_names)), label)
    if len(empty):
        result.append(
            f"no clip of {len(empty)} of {number(len(class_names), 'class')}: "
            f"{few([class_names[i] for i in empty])}; check class_names and the labels"
        )
    return result


def first_label(label: Int[np.ndarray, " n"], class_names: Sequence[str]) -> int:
    """Return the lowest label if labels plausibly start there, otherwise 0.

    They do not if a lower class has a name other than its number.
    """
    lowest = int(label.min(initial=len(class_names)))
    unnamed = list(class_names[:lowest]) == [str(i) for i in range(lowest)]
    return lowest if unnamed and lowest < len(class_names) else 0


def split_notes(
    label: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    splits: Mapping[str, Int[np.ndarray, " m"]],
) -> list[str]:
    """List classes of test splits that the training split lacks."""
    result = []
    for train, test in exclusive_splits(splits):
        only = np.setdiff1d(label[splits[test]], label[splits[train]])
        if len(only) and len(splits[train]):
            result.append(
                f"{number(len(only), 'class')} in {test} but not in {train}: "
                f"{few([class_names[i] for i in only])}; check the splits"
            )
    return result


def empty_split_notes(splits: Mapping[str, Sequence[int] | np.ndarray]) -> list[str]:
    """List splits without clips."""
    return [f"split {name} has no clips" for name, rows in splits.items() if not len(rows)]


def training_notes(
    train: Int[np.ndarray, " n"], test: Int[np.ndarray, " m"], store: Store
) -> list[str]:
    """List test classes without training clips, and classes without any clip.

    Args:
        train: Class of each training clip.
        test: Class of each test clip.
        store: Store of the clips.
    """
    names = store.class_names
    untrained = ~np.isin(test, train)
    if untrained.all():
        return ["no class of the test clips occurs in training; pass another data.test_split="]
    notes = []
    if untrained.any():
        missing = np.unique(test[untrained])
        notes.append(
            f"{number(int(untrained.sum()), 'test clip')} of {number(len(missing), 'class')} "
            f"without training clips ({few([names[i] for i in missing])}) will count as wrong; "
            "pass data.train_split= and data.test_split= with the same classes"
        )
    unused = np.setdiff1d(np.arange(len(names)), np.union1d(train, test))
    if len(unused):
        first = first_label(store.label, names)
        advice = f"; if labels start at {first}, prepare with first_label={first}" if first else ""
        notes.append(
            f"{len(unused)} of {number(len(names), 'class')} have no training or test clips "
            f"({few([names[i] for i in unused])}); the model has an output for each" + advice
        )
    return notes


def empty_clip_notes(store: Store, parts: Mapping[str, Int[np.ndarray, " n"]]) -> list[str]:
    """Describe clips without persons in one line; empty if there are none.

    Args:
        store: Store of the clips; stores of older versions do not know.
        parts: Part of the data -> rows of its clips.
    """
    empty = {part: rows[is_empty(store)[rows]] for part, rows in parts.items()}
    counts = [
        f"{len(rows)} of {number(len(parts[part]), f'{part} clip')}"
        for part, rows in empty.items()
        if len(rows)
    ]
    if not counts:
        return []
    clips = np.unique(np.concatenate(list(empty.values())))
    return [f"no person in {' and '.join(counts)}: {_empty_names(store, clips)}"]


def is_empty(store: Store) -> np.ndarray:
    """Return (n,) bool, True for clips without a visible joint (their poses have no hash)."""
    return np.zeros(len(store), dtype=bool) if store.digest is None else store.digest == 0


def number(count: int, noun: str) -> str:
    """Format a count with its noun: 1 class, 2 classes."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def few(names: Sequence[str]) -> str:
    """Join the first ten names and the number of the others."""
    others = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {others:,} more" if others > 0 else "")


def _empty_in_store(store: Store) -> list[str]:
    rows = np.flatnonzero(is_empty(store))
    if not len(rows):
        return []
    counts = [
        f"{len(both)} in {split}"
        for split, members in store.splits.items()
        if len(both := np.intersect1d(members, rows))
    ]
    by_split = f" ({few(counts)})" if counts else ""
    clips = number(len(store), "clip")
    return [f"no person in {len(rows)} of {clips}{by_split}: {_empty_names(store, rows)}"]


def _empty_names(store: Store, rows: np.ndarray) -> str:
    """List clips without a person, and explain why they are kept."""
    more = f"; check=true input={store.path} lists all" if len(rows) > _LISTED else ""
    names = few([store.name(int(i)) for i in rows])
    return f"{names}; kept because every clip of a split counts in the scores{more}"


def _overlaps(store: Store) -> list[str]:
    """List clips shared by training and test splits."""
    result = []
    for a, b in (*exclusive_splits(store.splits), *exclusive_splits(store.splits, "val")):
        both = np.intersect1d(store.splits[a], store.splits[b])
        if len(both):
            names = few([store.name(int(i)) for i in both])
            result.append(f"{number(len(both), 'clip')} in both {a} and {b}: {names}")
    return result
