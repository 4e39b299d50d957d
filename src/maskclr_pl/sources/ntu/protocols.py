"""NTU RGB+D: sample names, benchmark protocols, published numbers of clips.

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
"""The 535 samples with missing or incomplete skeletons that the authors of the data set ask to
leave out; 302 of them are in NTU RGB+D 60."""

_TRAIN_SUBJECTS_60 = (1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38)
# fmt: off
_TRAIN_SUBJECTS_120 = (
    *_TRAIN_SUBJECTS_60, 45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78, *range(80, 87),
    89, 91, 92, 93, 94, 95, 97, 98, 100, 103,
)
# fmt: on
_LAST_NUMBERS = (32, 3, 106, 2, 120)
_CAPTURED_60 = 56_880

_TOTAL = "the set"
PUBLISHED = {
    "NTU RGB+D 60": {
        _TOTAL: 56_578,
        "xsub_train": 40_091,
        "xsub_val": 16_487,
        "xview_train": 37_646,
        "xview_val": 18_932,
    },
    "NTU RGB+D 120": {
        _TOTAL: 113_945,
        "xsub_train": 63_026,
        "xsub_val": 50_919,
        "xset_train": 54_468,
        "xset_val": 59_477,
        "ntu60_xsub_train": 40_091,
        "ntu60_xsub_val": 16_487,
        "ntu60_xview_train": 37_646,
        "ntu60_xview_val": 18_932,
        "oneshot_auxiliary": 95_001,
        "oneshot_exemplars": 20,
        "oneshot_val": 18_924,
    },
}
"""Number of clips of each data set and split, without the missing samples."""


def sample_ids(name: str) -> dict[str, int]:
    """Return subject, camera and setup from a sample name; {} for any other name."""
    match = NTU_NAME.search(name)
    if match is None:
        return {}
    setup, camera, subject = (int(group) for group in match.groups()[:3])
    return {"subject": subject, "camera": camera, "setup": setup}


def sample_label(name: str) -> int:
    """Return the 0-based class of a sample: its action number - 1.

    Raises:
        InputError: If the name has no action, or action 0.
    """
    match = NTU_NAME.search(name)
    action = 0 if match is None else int(match[5])
    if action < 1:
        raise InputError(
            f"{name!r} has no action number; expected SsssCcccPpppRrrrAaaa such as "
            "S001C002P003R001A001"
        )
    return action - 1


def sample_numbers(names: Sequence[str]) -> Int[np.ndarray, "n 5"] | None:
    """Return setup, camera, subject, replication and action of each sample, from 1.

    None if there are no names, or one is not a sample name of NTU RGB+D.
    """
    matches = [NTU_NAME.search(name) for name in names]
    numbers = np.array([match.groups() for match in matches if match], dtype=np.int64)
    if not names or len(numbers) < len(names):
        return None
    return numbers if ((numbers >= 1) & (numbers <= _LAST_NUMBERS)).all() else None


def protocol_splits(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the training and test splits of the benchmark protocols.

    Args:
        names: Samples of a data set.

    Returns:
        Split name -> samples, in the order of `names`; `_val` is the test split, as in the
        published files. For samples of NTU RGB+D 60 alone: xsub (cross-subject) and xview
        (cross-view). With others: xsub, xset (cross-setup), the protocols of NTU RGB+D 60 as
        ntu60_xsub and ntu60_xview, and the one-shot protocol: oneshot_auxiliary (100 classes),
        oneshot_exemplars (one sample for each of the 20 novel classes) and oneshot_val (the other
        samples of the novel classes). {} if a name is not a sample name.
    """
    numbers = sample_numbers(names)
    if numbers is None:
        return {}
    setup, camera, subject, _, action = numbers.T
    in_ntu60 = (setup <= 17) & (action <= 60)
    training_60 = {"xsub": np.isin(subject, _TRAIN_SUBJECTS_60), "xview": camera != 1}
    if in_ntu60.all():
        masks = _train_and_val(training_60, in_ntu60)
    else:
        training = {"xsub": np.isin(subject, _TRAIN_SUBJECTS_120), "xset": setup % 2 == 0}
        masks = _train_and_val(training, np.ones_like(in_ntu60))
        small = _train_and_val(training_60, in_ntu60)
        masks |= {f"ntu60_{split}": mask for split, mask in small.items()}
        masks |= _one_shot(numbers)
    return {split: list(compress(names, mask.tolist())) for split, mask in masks.items()}


def _train_and_val(
    training: Mapping[str, Bool[np.ndarray, " n"]], members: Bool[np.ndarray, " n"]
) -> dict[str, Bool[np.ndarray, " n"]]:
    """Return a mask for each half of each protocol, given which samples are for training."""
    return {
        f"{protocol}_{half}": members & (mask == (half == "train"))
        for protocol, mask in training.items()
        for half in ("train", "val")
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


def compare_splits(splits: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[str]:
    """Compare splits that a file defines with the protocols of the same names.

    Args:
        splits: Split name -> samples, as in the file. Samples that are not in the data set, and
            splits of other names, are ignored.
        names: Samples of the data set.

    Returns:
        One line for each split that differs.
    """
    known, lines = set(names), []
    for split, expected in protocol_splits(names).items():
        if split not in splits:
            continue
        actual = known & set(splits[split])
        lacking = [name for name in expected if name not in actual]
        foreign = sorted(actual - set(expected))
        differences = []
        if lacking:
            differences.append(
                f"{len(lacking):,} of {len(expected):,} clips of the protocol are missing, the "
                f"first is {lacking[0]}"
            )
        if foreign:
            differences.append(
                f"{len(foreign):,} of {len(actual):,} clips belong to another split, the first is "
                f"{foreign[0]}"
            )
        if differences:
            lines.append(f"split {split} differs from the protocol: {'; '.join(differences)}")
    return lines


def compare_counts(splits: Mapping[str, int], total: int, names: Sequence[str] = ()) -> list[str]:
    """Compare the size of a data set with the published numbers.

    Args:
        splits: Split name -> number of clips. Splits of no protocol are ignored.
        total: Number of clips. More than were ever captured for NTU RGB+D 60, or a cross-setup
            split, mean NTU RGB+D 120.
        names: Samples, if known: then setups and cameras without any clip are listed.

    Returns:
        One line if all numbers agree, or if less than half of the clips are present; otherwise one
        line for each way in which numbers differ, and for absent setups and cameras.
    """
    large = total > _CAPTURED_60 or not {"xset_train", "xset_val"}.isdisjoint(splits)
    data = "NTU RGB+D 120" if large else "NTU RGB+D 60"
    published = PUBLISHED[data]
    if 2 * total < published[_TOTAL]:
        return [f"{data}: {total:,} of {published[_TOTAL]:,} clips"]
    counts = {_TOTAL: total, **{split: n for split, n in splits.items() if split in published}}
    differences: dict[str, list[str]] = {}
    for split, count in counts.items():
        if count != published[split]:
            share = f"{split} {count:,} ({count / published[split]:.1%} of {published[split]:,})"
            differences.setdefault(_explain(data, split, count), []).append(share)
    lines = [f"{reason}: {', '.join(shares)}" for reason, shares in differences.items()]
    if not lines:
        sizes = ", ".join(f"{split} {count:,}" for split, count in counts.items())
        lines = [f"as many clips as published: {sizes}"]
    return [f"{data}: {line}" for line in lines + _absent(names, setups=32 if large else 17)]


def _explain(data: str, split: str, count: int) -> str:
    """Find a likely reason why a split has another size than published."""
    missing = sorted(MISSING)
    if data == "NTU RGB+D 60":
        missing = [name for name in missing if sample_label(name) < 60]
    not_left_out = {
        "as captured, clips with missing skeletons are included": missing,
        "only those missing in NTU RGB+D 60 were left out": [
            name for name in missing if sample_label(name) >= 60
        ],
    }
    published = PUBLISHED[data][split]
    for reason, samples in not_left_out.items():
        extra = samples if split == _TOTAL else protocol_splits(samples).get(split, [])
        if count == published + len(extra):
            return reason
    return "fewer clips than published" if count < published else "more clips than published"


def _absent(names: Sequence[str], setups: int) -> list[str]:
    """List the setups and the cameras without any sample, a line each."""
    numbers, lines = sample_numbers(names), []
    if numbers is None:
        return []
    for column, (kind, last) in enumerate((("setup", setups), ("camera", 3))):
        absent = sorted(set(range(1, last + 1)).difference(numbers[:, column].tolist()))
        if absent:
            lines.append(f"no clip of {kind} {', '.join(map(str, absent))}")
    return lines
