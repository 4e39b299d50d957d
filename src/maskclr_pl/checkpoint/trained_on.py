"""The clips that a model was trained on, kept in its checkpoints and recognized in later runs.

A clip is recognized by its poses (the digest of the store), or by its NTU sample name, which stays
the same where the poses do not: 2D and 3D, another pose estimator. Another set may have a clip of
the same name by chance; such clips are mentioned and nothing more.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.errors import InputError
from maskclr_pl.sources.ntu.protocols import NTU_NAME


def _nothing() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class ClipSet:
    """A set of clips as 64-bit hashes, each array sorted and without repeats.

    Args:
        poses: Digests of the poses.
        names: Hashes of the NTU sample names, and of other names with their classes.
    """

    poses: Int64[np.ndarray, " p"] = field(default_factory=_nothing)
    names: Int64[np.ndarray, " n"] = field(default_factory=_nothing)

    @classmethod
    def of(cls, clips: ClipDataset) -> "ClipSet":
        """The clips of a part."""
        poses, names, _ = _keys(clips)
        return cls(np.unique(poses[poses != 0]), np.unique(names))

    def __or__(self, other: "ClipSet") -> "ClipSet":
        return ClipSet(np.union1d(self.poses, other.poses), np.union1d(self.names, other.names))

    def among(
        self, clips: ClipDataset
    ) -> tuple[Bool[np.ndarray, " clips"], Bool[np.ndarray, " clips"]]:
        """Which clips of a part are in the set, and which others merely have a name from it."""
        poses, names, ntu = _keys(clips)
        named = np.isin(names, self.names)
        same = (np.isin(poses, self.poses) & (poses != 0)) | (named & ntu)
        return same, named & ~same


def _keys(clips: ClipDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each clip the digest of its poses (0: unknown), a hash of its name, if that is of NTU."""
    store, rows = clips.store, clips.rows
    poses = np.zeros(len(rows), np.int64)
    if store.digest is not None:
        poses = store.digest[rows].astype(np.uint64).view(np.int64)
    samples = [NTU_NAME.search(name) for name in clips.names]
    classes = (store.class_names[label] for label in clips.labels)
    texts = [
        sample.group() if sample else f"{name}\0{class_name}"
        for sample, name, class_name in zip(samples, clips.names, classes, strict=True)
    ]
    hashed = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    names = np.frombuffer(b"".join(hashed), "<i8").astype(np.int64)
    return poses, names, np.array([sample is not None for sample in samples], bool)


@dataclass(frozen=True)
class TrainingRecord:
    """The clips that a model was trained on, in its run and in those that this one started from.

    Args:
        labelled: Trained on with their labels.
        unlabelled: Trained on without.
        unrecorded: Runs that the model started from and whose clips are not known.
    """

    labelled: ClipSet = field(default_factory=ClipSet)
    unlabelled: ClipSet = field(default_factory=ClipSet)
    unrecorded: tuple[str, ...] = ()

    @classmethod
    def read(cls, content: Mapping[str, Any], name: str) -> "TrainingRecord":
        """The record in a checkpoint; versions before this one kept none.

        Args:
            content: Of the checkpoint.
            name: Its run, to be named where there is no record.
        """
        try:
            plain = content["maskclr_pl"]["trained_on"]
            labelled, unlabelled = (
                ClipSet(*(plain[kind][key].numpy() for key in ("poses", "names")))
                for kind in ("labelled", "unlabelled")
            )
            return cls(labelled, unlabelled, tuple(map(str, plain["unrecorded"])))
        except Exception:  # the weights count, whatever a damaged file says of them
            return cls(unrecorded=(name,))

    def plain(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint."""
        sets = {"labelled": self.labelled, "unlabelled": self.unlabelled}
        return {
            **{
                kind: {"poses": torch.from_numpy(s.poses), "names": torch.from_numpy(s.names)}
                for kind, s in sets.items()
            },
            "unrecorded": list(self.unrecorded),
        }

    def trained(self, clips: ClipDataset, labels: bool) -> "TrainingRecord":
        """The record after a training on the clips of a part, with their labels or without."""
        own = ClipSet.of(clips)
        if labels:
            return TrainingRecord(self.labelled | own, self.unlabelled, self.unrecorded)
        return TrainingRecord(self.labelled, self.unlabelled | own, self.unrecorded)


def check_start(
    record: TrainingRecord,
    parts: Mapping[str, ClipDataset],
    run: str,
    advice: str,
    keep: bool,
) -> list[str]:
    """Look for clips of this run that the model it starts from was trained on.

    Args:
        record: Of that model.
        parts: Name -> clips that this run is measured on: validation, test, exemplar.
        run: Where that model is, for the messages.
        advice: What to pass to avoid an overlap.
        keep: Accept clips that it was trained on with labels.

    Returns:
        Notes, a line each.

    Raises:
        InputError: If it was trained, with labels, on such clips, and `keep` is false.
    """
    notes = [
        f"{name} does not record which clips it was trained on; whether they are validation or "
        "test clips of this run is not known"
        for name in record.unrecorded
    ]
    seen, first = [], ""
    for name, part in parts.items():
        same, namesakes = record.labelled.among(part)
        if same.any():
            seen.append(f"{same.sum()} of the {len(part)} {name} clips")
            first = first or part.names[int(same.argmax())]
        elif namesakes.any():
            notes.append(
                f"{run} was trained on clips with the names and classes of {namesakes.sum()} of "
                f"the {len(part)} {name} clips, but with other poses; make sure that they are not "
                "the same recordings"
            )
        same, _ = record.unlabelled.among(part)
        if name == "test" and same.any():
            notes.append(f"{run} saw {same.sum()} of the {len(part)} test clips, without labels")
    if not seen:
        return notes
    what = (
        f"{run}, or a run that it started from, was trained with labels on {' and '.join(seen)} of "
        f"this run, the first is {first!r}"
    )
    if not keep:
        raise InputError(f"init_from={what}; {advice}, or init_overlap=keep to accept it")
    return [*notes, f"{what} (init_overlap=keep)"]


def start_advice(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What to pass so that a run does not measure itself on clips that its start was trained on.

    Args:
        ours: Settings `data` of this run.
        theirs: Those of the other run.
    """
    if not theirs:
        return "use clips that it has not seen"
    splits = ("train_split", "test_split", "val_split")
    differ = [f"data.{key}={theirs.get(key)}" for key in splits if ours.get(key) != theirs.get(key)]
    if differ:
        return f"pass {' '.join(differ)} as it had"
    if not theirs.get("val_split") and not theirs.get("val_fraction"):
        return "pass monitor_split=last, which holds no clips out, as it did"
    differ = [
        f"data.{key}={theirs.get(key)}"
        for key in ("seed", "val_fraction")
        if ours.get(key) != theirs.get(key)
    ]
    if differ:
        return f"pass {' '.join(differ)} to hold out the same clips"
    return "use clips that it has not seen"
