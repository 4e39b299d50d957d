"""Record of the clips a model was trained on, kept in checkpoints to detect leaks in later runs.

Clips are identified by their poses (digests in the store), or by their NTU sample name, which does
not depend on the kind of pose (2D, 3D, pose estimator). Equal names in other data sets may be a
coincidence, so they only cause a note.
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


def _empty() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class ClipSet:
    """A set of clips as sorted, unique 64-bit hashes.

    Args:
        poses: Digests of the poses.
        names: Hashes of the NTU sample names, and of other names with their classes.
    """

    poses: Int64[np.ndarray, " p"] = field(default_factory=_empty)
    names: Int64[np.ndarray, " n"] = field(default_factory=_empty)

    @classmethod
    def from_dataset(cls, clips: ClipDataset) -> "ClipSet":
        """Return the set of clips of a dataset."""
        poses, names, _ = _hashes(clips)
        return cls(np.unique(poses[poses != 0]), np.unique(names))

    def __or__(self, other: "ClipSet") -> "ClipSet":
        return ClipSet(np.union1d(self.poses, other.poses), np.union1d(self.names, other.names))

    def find_in(
        self, clips: ClipDataset
    ) -> tuple[Bool[np.ndarray, " clips"], Bool[np.ndarray, " clips"]]:
        """Return masks of the clips in the set, and of clips that share only a name with it."""
        poses, names, is_ntu = _hashes(clips)
        same_name = np.isin(names, self.names)
        same = (np.isin(poses, self.poses) & (poses != 0)) | (same_name & is_ntu)
        return same, same_name & ~same


def _hashes(clips: ClipDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per clip: digest of the poses (0: unknown), hash of the name, True for an NTU sample name."""
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


_SAVED_SETS = ("labelled", "unlabelled")  # keys in checkpoints, as in version 0.1


@dataclass(frozen=True)
class TrainingRecord:
    """Clips that a model was trained on, in its run and the runs it started from.

    Args:
        labeled: Clips trained on with labels.
        unlabeled: Clips trained on without labels.
        unrecorded: Earlier runs whose clips are unknown.
    """

    labeled: ClipSet = field(default_factory=ClipSet)
    unlabeled: ClipSet = field(default_factory=ClipSet)
    unrecorded: tuple[str, ...] = ()

    @classmethod
    def read(cls, content: Mapping[str, Any], name: str) -> "TrainingRecord":
        """Read the record of a checkpoint.

        Args:
            content: Content of the checkpoint.
            name: Its run, listed as unrecorded if it has no record.
        """
        try:
            saved = content["maskclr_pl"]["trained_on"]
            labeled, unlabeled = (
                ClipSet(*(saved[kind][key].numpy() for key in ("poses", "names")))
                for kind in _SAVED_SETS
            )
            return cls(labeled, unlabeled, tuple(map(str, saved["unrecorded"])))
        except Exception:  # weights remain usable without a record
            return cls(unrecorded=(name,))

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain values for a checkpoint."""
        sets = dict(zip(_SAVED_SETS, (self.labeled, self.unlabeled), strict=True))
        return {
            **{
                kind: {"poses": torch.from_numpy(s.poses), "names": torch.from_numpy(s.names)}
                for kind, s in sets.items()
            },
            "unrecorded": list(self.unrecorded),
        }

    def trained(self, clips: ClipDataset, labels: bool) -> "TrainingRecord":
        """Return the record after training on a dataset, with labels or without."""
        own = ClipSet.from_dataset(clips)
        if labels:
            return TrainingRecord(self.labeled | own, self.unlabeled, self.unrecorded)
        return TrainingRecord(self.labeled, self.unlabeled | own, self.unrecorded)


def check_start(
    record: TrainingRecord,
    parts: Mapping[str, ClipDataset],
    run: str,
    advice: str,
    keep: bool,
) -> list[str]:
    """Find evaluation clips of this run that its initial model was trained on.

    Args:
        record: Record of the initial model.
        parts: Evaluation clips by name: validation, test, exemplar.
        run: Path of the initial model, for messages.
        advice: How to avoid an overlap.
        keep: Accept clips that the model was trained on with labels.

    Returns:
        Notes.

    Raises:
        InputError: If it was trained on such clips with labels and `keep` is false.
    """
    notes = [
        f"{name} has no record of its training clips; they may include validation or test clips "
        "of this run"
        for name in record.unrecorded
    ]
    overlaps, first = [], ""
    for name, part in parts.items():
        same, namesakes = record.labeled.find_in(part)
        if same.any():
            overlaps.append(f"{same.sum()} of the {len(part)} {name} clips")
            first = first or part.names[int(same.argmax())]
        elif namesakes.any():
            notes.append(
                f"{run} was trained on clips with the names and classes of {namesakes.sum()} of "
                f"the {len(part)} {name} clips, but with other poses; check that they are not "
                "the same recordings"
            )
        same, _ = record.unlabeled.find_in(part)
        if name == "test" and same.any():
            notes.append(f"{run} saw {same.sum()} of the {len(part)} test clips, without labels")
    if not overlaps:
        return notes
    problem = (
        f"{run}, or a run that it started from, was trained with labels on "
        f"{' and '.join(overlaps)} of this run, the first is {first!r}"
    )
    if not keep:
        raise InputError(f"init_from={problem}; {advice}, or init_overlap=keep to accept it")
    return [*notes, f"{problem} (init_overlap=keep)"]


def start_advice(data: Mapping[str, Any], origin_data: Mapping[str, Any]) -> str:
    """Advise how to evaluate on clips that the initial model was not trained on.

    Args:
        data: Settings `data` of this run.
        origin_data: Settings `data` of the run that it starts from.
    """
    if not origin_data:
        return "use clips that it has not seen"

    def differing(*keys: str) -> str:
        return " ".join(
            f"data.{key}={origin_data.get(key)}"
            for key in keys
            if data.get(key) != origin_data.get(key)
        )

    if settings := differing("train_split", "test_split", "val_split"):
        return f"pass {settings} as it had"
    if not origin_data.get("val_split") and not origin_data.get("val_fraction"):
        return "pass monitor_split=last, which holds no clips out, as it did"
    if settings := differing("seed", "val_fraction"):
        return f"pass {settings} to hold out the same clips"
    return "use clips that it has not seen"
