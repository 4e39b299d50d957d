"""NTU RGB+D: what its sample names say, its benchmark protocols, its published sizes.

A sample is called SsssCcccPpppRrrrAaaa: setup, camera, subject (performer), replication, action.
Protocols: Shahroudy et al. 2016 (NTU RGB+D 60) and Liu et al. 2019 (NTU RGB+D 120).
"""

import re
from collections.abc import Mapping, Sequence
from itertools import compress

import numpy as np
from jaxtyping import Bool, Int

from maskclr_pl.sources.names import read_names
from maskclr_pl.types import InputError

NTU_NAME = re.compile(r"(?<![A-Za-z0-9])S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(?!\d)", re.ASCII)
"""Groups: setup, camera, subject, replication, action."""

MISSING = frozenset(read_names("ntu_missing.txt"))
"""The 535 samples with missing or incomplete skeletons that the authors of the set ask to leave
out; 302 of them are in NTU RGB+D 60."""

_SUBJECTS_60 = (1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38)
_SUBJECTS_120 = (
    *(*_SUBJECTS_60, 45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78, *range(80, 87)),
    *(89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
)
_LAST = (32, 3, 106, 2, 120)

_ALL = "the set"
PUBLISHED = {
    "NTU RGB+D 60": {
        _ALL: 56_578,
        **{"xsub_train": 40_091, "xsub_val": 16_487},
        **{"xview_train": 37_646, "xview_val": 18_932},
    },
    "NTU RGB+D 120": {
        _ALL: 113_945,
        **{"xsub_train": 63_026, "xsub_val": 50_919},
        **{"xset_train": 54_468, "xset_val": 59_477},
        **{"ntu60_xsub_train": 40_091, "ntu60_xsub_val": 16_487},
        **{"ntu60_xview_train": 37_646, "ntu60_xview_val": 18_932},
        **{"oneshot_auxiliary": 95_001, "oneshot_exemplars": 20, "oneshot_val": 18_924},
    },
}
"""Clips of each set and split without the missing ones."""


def ids(name: str) -> dict[str, int]:
    """Subject, camera and setup from the name of a sample; {} for a name of another kind."""
    match = NTU_NAME.search(name)
    if match is None:
        return {}
    setup, camera, subject = (int(group) for group in match.groups()[:3])
    return {"subject": subject, "camera": camera, "setup": setup}


def label(name: str) -> int:
    """The 0-based class of a sample: its action number - 1.

    Raises:
        InputError: If the name says no action, or action 0.
    """
    match = NTU_NAME.search(name)
    action = 0 if match is None else int(match[5])
    if action < 1:
        raise InputError(
            f"{name!r} names no action; expected SsssCcccPpppRrrrAaaa such as S001C002P003R001A001"
        )
    return action - 1


def protocols(names: Sequence[str]) -> dict[str, list[str]]:
    """The training and test parts of the benchmark protocols.

    Args:
        names: The samples of a set.

    Returns:
        Split name -> samples, in the order of `names`; `_val` is the test part, so called in the
        published files. For samples of NTU RGB+D 60 alone: xsub (cross-subject) and xview
        (cross-view). With others: xsub, xset (cross-setup), the protocols of the smaller set as
        ntu60_xsub and ntu60_xview, and the one-shot protocol: oneshot_auxiliary (the samples of
        100 classes), oneshot_exemplars (one sample for each of the 20 novel classes, of those that
        are there) and oneshot_val (the other samples of the novel classes). {} if a name is no
        name of an NTU sample.
    """
    numbers = sample_numbers(names)
    if numbers is None:
        return {}
    setup, camera, subject, _, action = numbers.T
    small = (setup <= 17) & (action <= 60)
    halves_60 = {"xsub": np.isin(subject, _SUBJECTS_60), "xview": camera != 1}
    if small.all():
        masks = _parts(halves_60, small)
    else:
        halves = {"xsub": np.isin(subject, _SUBJECTS_120), "xset": setup % 2 == 0}
        masks = _parts(halves, np.ones_like(small))
        masks |= {f"ntu60_{name}": mask for name, mask in _parts(halves_60, small).items()}
        masks |= _one_shot(numbers)
    return {split: list(compress(names, mask.tolist())) for split, mask in masks.items()}


def sample_numbers(names: Sequence[str]) -> Int[np.ndarray, "n 5"] | None:
    """Setup, camera, subject, replication and action of each sample, from 1.

    None if there is no name, or one that is not of the set.
    """
    found = [NTU_NAME.search(name) for name in names]
    numbers = np.array([match.groups() for match in found if match], dtype=np.int64)
    if not names or len(numbers) < len(names):
        return None
    return numbers if ((numbers >= 1) & (numbers <= _LAST)).all() else None


def _parts(
    halves: Mapping[str, Bool[np.ndarray, " n"]], among: Bool[np.ndarray, " n"]
) -> dict[str, Bool[np.ndarray, " n"]]:
    """The training and test part of each protocol, given which samples are for training."""
    return {
        f"{name}_{part}": among & (training == (part == "train"))
        for name, training in halves.items()
        for part in ("train", "val")
    }


def _one_shot(numbers: Int[np.ndarray, "n 5"]) -> dict[str, Bool[np.ndarray, " n"]]:
    setup, camera, subject, replication, action = numbers.T
    novel = action % 6 == 1  # A1, A7, ..., A115
    first = setup == np.where(action <= 60, 1, 18)
    exemplar = novel & first & (camera == 3) & (subject == 8) & (replication == 1)
    return {
        "oneshot_auxiliary": ~novel,
        "oneshot_exemplars": exemplar,
        "oneshot_val": novel & ~exemplar,
    }


def check_splits(splits: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[str]:
    """Where the splits that a file gives differ from the protocol of the same name.

    Args:
        splits: Split name -> samples, as the file has them. Samples that are not in the set, and
            splits that are no protocol's, are passed over.
        names: The samples of the set.

    Returns:
        One line for each split that differs; none if the names are not those of NTU samples.
    """
    there, lines = set(names), []
    for split, expected in protocols(names).items():
        if split not in splits:
            continue
        given = there & set(splits[split])
        lacking = [name for name in expected if name not in given]
        foreign = sorted(given - set(expected))
        found = [
            f"{len(samples):,} of {of:,} {what}, the first is {samples[0]}"
            for samples, of, what in (
                (lacking, len(expected), "clips of the protocol are not in it"),
                (foreign, len(given), "clips in it belong to another part"),
            )
            if samples
        ]
        if found:
            lines.append(f"split {split} differs from the protocol: {'; '.join(found)}")
    return lines


def check_counts(splits: Mapping[str, int], total: int, names: Sequence[str] = ()) -> list[str]:
    """Compare the size of a set with the published ones.

    Args:
        splits: Split name -> number of clips. Splits that are no protocol's are passed over.
        total: Number of clips. A set is taken for NTU RGB+D 120 if it has more clips than were
            ever captured for NTU RGB+D 60, or a cross-setup split.
        names: The samples, where their names are known: then setups and cameras of which there is
            no clip at all are listed.

    Returns:
        One line if all agrees, or if less than half of the clips are there; else a line for each
        way in which numbers differ, and one for what is absent altogether.
    """
    large = total > 56_880 or not {"xset_train", "xset_val"}.isdisjoint(splits)
    data = "NTU RGB+D 120" if large else "NTU RGB+D 60"
    published = PUBLISHED[data]
    if 2 * total < published[_ALL]:
        return [f"{data}: {total:,} of {published[_ALL]:,} clips"]
    found = {_ALL: total, **{split: n for split, n in splits.items() if split in published}}
    differ: dict[str, list[str]] = {}
    for part, n in found.items():
        if n != published[part]:
            share = f"{part} {n:,} ({n / published[part]:.1%} of {published[part]:,})"
            differ.setdefault(_looks_like(data, part, n), []).append(share)
    lines = [f"{reason}: {', '.join(parts)}" for reason, parts in differ.items()]
    if not lines:
        sizes = ", ".join(f"{part} {n:,}" for part, n in found.items())
        lines = [f"as many clips as published: {sizes}"]
    return [f"{data}: {line}" for line in lines + _absent(names, setups=32 if large else 17)]


def _looks_like(data: str, part: str, count: int) -> str:
    """What may have happened to a part that has another size than the published one."""
    missing = sorted(MISSING) if data.endswith("120") else [m for m in MISSING if label(m) < 60]
    kept = {
        "as captured, clips with missing skeletons are in it": missing,
        "only those missing in NTU RGB+D 60 were left out": [m for m in missing if label(m) >= 60],
    }
    published = PUBLISHED[data][part]
    for reason, samples in kept.items():
        more = len(samples if part == _ALL else protocols(samples).get(part, []))
        if count == published + more:
            return reason
    return "fewer clips than published" if count < published else "more clips than published"


def _absent(names: Sequence[str], setups: int) -> list[str]:
    """A line for the setups, and one for the cameras, that no sample comes from."""
    numbers, lines = sample_numbers(names), []
    for what, column, last in (("setup", 0, setups), ("camera", 1, 3)):
        there = [] if numbers is None else numbers[:, column].tolist()
        gone = sorted(set(range(1, last + 1)).difference(there))
        if there and gone:
            lines.append(f"no clip of {what} {', '.join(map(str, gone))}")
    return lines
