"""Which pictures of a trained model there are, and how they are drawn.

`draw` runs the model; `draw_run_figures` draws what a run folder holds already.
"""

import copy
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch

from maskclr_pl.analysis.attention import clip_attention, importance_of, write_attention
from maskclr_pl.analysis.confusion import confused_pairs, confusion, per_class, write_per_class
from maskclr_pl.analysis.examples import example_clips, example_pose, model_poses
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.dataset import ClipDataset, collate
from maskclr_pl.figures.attention import AttendedClip, attention_animation, attention_strip
from maskclr_pl.figures.confusion import class_scores, confusion_matrix
from maskclr_pl.figures.features import features_plane
from maskclr_pl.figures.masked import masked_classes, masked_over_epochs, masking_stages
from maskclr_pl.figures.skeletons import joint_shares
from maskclr_pl.finite import with_wrong_answers
from maskclr_pl.masking import AttentionGuidedMasking
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.methods.protocols.one_shot import eval_mode
from maskclr_pl.runs.predictions import Predictions, read_predictions
from maskclr_pl.runs.read import masked_by_class, masked_history
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import Batch, InputError

DEFAULT = ("confusion", "per_class", "attention", "activated_joints")
"""What is drawn if nothing is asked for: some seconds, and two passes over the clips."""

_CLIPS = 4  # shown as poses
_POINTS = 3000  # clips whose features are laid out; more take minutes


def available(method: Method) -> list[str]:
    """The names of the pictures that can be drawn of a model."""
    return [name for name in PICTURES if isinstance(method, Classifier) or name not in _LABELLED]


def check_figure_names(names: Sequence[str], method: Method | None = None) -> None:
    """Refuse names of pictures that do not exist, or not of this method.

    Raises:
        InputError: If there is one.
    """
    known = list(PICTURES) if method is None else available(method)
    listed = ", ".join(known)
    for name in names:
        if name not in PICTURES:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise InputError(f"no figure named {name!r}{hint}; there are {listed}")
        if name not in known:
            kind = type(method).__name__
            raise InputError(f"figure {name}: {kind} tells no classes apart; there are {listed}")


def draw(
    method: Method,
    data: SkeletonDataModule,
    device: torch.device,
    folder: Path,
    names: Sequence[str] | None = None,
    *,
    split: Literal["test", "val"] = "test",
    into: Path | None = None,
) -> list[Path]:
    """Draw pictures of a trained model; an existing file of the same name is replaced.

    Random numbers of the training are not drawn, and the model stays in its mode.

    Args:
        method: On the device.
        data: What it is shown.
        device: Where the model is.
        folder: Run folder, where tables go (per_class.csv, attention.json).
        names: Of `PICTURES`; None is `DEFAULT`, as far as the method has them.
        split: The clips: `test`, or `val` while a training goes on.
        into: Where the pictures go; `folder/figures` if None.

    Returns:
        The files, tables included.

    Raises:
        InputError: If there is no picture of a name, or it cannot be drawn of this model.
    """
    if names is None:
        names = [name for name in DEFAULT if name in available(method)]
    check_figure_names(names, method)
    part = (data.val if split == "val" else data.test).as_tested()
    if not len(part):
        raise InputError(f"figures: there are no {split} clips to draw")
    subject = Subject(method, data, part, device, folder, into or folder / "figures")
    with torch.no_grad(), eval_mode(method):
        return [file for name in dict.fromkeys(names) for file in PICTURES[name](subject)]


def draw_run_figures(folder: Path, class_names: Sequence[str], skeleton: Skeleton) -> list[Path]:
    """Draw what a run folder holds: predictions.npz, metrics.csv, masked_by_class.csv.

    Args:
        folder: Of the run; the confusion matrix and what was hidden go to its `figures/`, and
            per_class.csv into it.
        class_names: One name per class.
        skeleton: Of the model.

    Returns:
        The files; what the folder has no record of is left out.
    """
    files, figures = [], folder / "figures"
    if (folder / "predictions.npz").is_file():
        files += _confusion_of(read_predictions(folder), class_names, folder, figures)
    history = masked_history(folder)
    if history:
        files += masked_over_epochs(history, skeleton, figures / "masked_epochs.png")
    names, shares = masked_by_class(folder)
    if names:
        files += masked_classes(np.array(shares), names, skeleton, figures / "masked_classes.png")
    return files


@dataclass
class Subject:
    """A model, the clips it is shown, and where pictures of it go."""

    method: Method
    data: SkeletonDataModule
    part: ClipDataset
    device: torch.device
    folder: Path
    figures: Path

    @property
    def class_names(self) -> list[str]:
        """One name per class."""
        return self.data.store.class_names

    def batches(self, part: ClipDataset | None = None) -> Iterator[Batch]:
        """All clips in order, on the device."""
        for batch in self.data.in_order(self.part if part is None else part):
            yield self.to_device(batch)

    def to_device(self, batch: Batch) -> Batch:
        """A batch on the device of the model."""
        moved: Batch = self.method.transfer_batch_to_device(batch, self.device, 0)
        return moved

    @cached_property
    def predictions(self) -> Predictions:
        """What a classifier says of the clips."""
        method = cast(Classifier, self.method)  # `check_figure_names` has seen to it
        rows = [
            (b["index"], b["label"], method.predict_clips(b["clip"], b).logits.float())
            for b in self.batches()
        ]
        index, label, logits = (torch.cat(c).cpu() for c in zip(*rows, strict=True))
        names = np.array(self.part.names)[index.numpy()]
        judged = with_wrong_answers(logits, label).numpy()
        return Predictions(str(self.folder), names, label.numpy(), judged)

    @cached_property
    def attended(self) -> list[AttendedClip]:
        """Some clips of different classes that show a person."""
        chosen = example_clips(self.part, _CLIPS)
        if not chosen:
            raise InputError("figures: none of the clips shows a person; nothing can be drawn")
        return [self.look_at(index) for index in chosen]

    def look_at(self, index: int) -> AttendedClip:
        """A clip with what is attended to in it."""
        batch = self.to_device(collate([self.part[index]]))
        points, visible = model_poses(self.method, batch, self.part.store.coordinates)
        importance, sequence = importance_of(self.method, batch)
        everybody = torch.zeros(visible.shape, device=importance.device)
        everybody[sequence] = importance
        name = self.part.store.name(int(self.part.rows[index]))
        true, predicted = self.class_names[int(batch["label"])], None
        if isinstance(self.method, Classifier):
            said = self.method.predict_clips(batch["clip"], batch).logits.argmax()
            predicted = self.class_names[int(said)]
        return AttendedClip(name, true, predicted, points, visible, everybody.cpu().numpy())


def _confusion_of(
    found: Predictions, class_names: Sequence[str], folder: Path, figures: Path
) -> list[Path]:
    counts = write_per_class(folder, found, class_names)
    path = figures / "confusion.png"
    files = confusion_matrix(counts, class_names, confused_pairs(counts), path)
    return [folder / "per_class.csv", *files]


def _confusion(subject: Subject) -> list[Path]:
    names = subject.class_names
    return _confusion_of(subject.predictions, names, subject.folder, subject.figures)


def _per_class(subject: Subject) -> list[Path]:
    names, said = subject.class_names, subject.predictions
    rows = per_class(confusion(said.label, said.logits), names)
    return class_scores(rows, subject.figures / "per_class.png")


def _attention(subject: Subject) -> list[Path]:
    path = subject.figures / "attention.png"
    return attention_strip(subject.attended, subject.method.skeleton, path)


def _attention_gif(subject: Subject) -> list[Path]:
    path = subject.figures / "attention.gif"
    return attention_animation(subject.attended, subject.method.skeleton, path)


def _activated_joints(subject: Subject) -> list[Path]:
    """The measure, and the attention of each joint."""
    method = subject.method
    values = write_attention(subject.folder, method, clip_attention(method, subject.batches()))
    title = (
        f"{values['activated_joints']:.2f} ± {values['activated_joints_std']:.2f} of "
        f"{values['joints']} joints activated (effective number; {values['clips']} clips)"
    )
    what = f"share of the attention ({values['read_from']})"
    pose = example_pose(method, subject.part)
    path = subject.figures / "activated_joints.png"
    files = joint_shares(values["share"], method.skeleton, pose, path, title, what, limit=None)
    return [subject.folder / "attention.json", *files]


def _masking(subject: Subject) -> list[Path]:
    """The strategy of the run, or that of the paper where it has none that is guided."""
    strategy = masking_of(subject.method)
    method, clip = subject.method, subject.attended[0]
    person = int(clip.importance.sum((1, 2)).argmax())
    importance = torch.from_numpy(clip.importance[[person]])
    generator = torch.Generator().manual_seed(0)
    draw = strategy.sampling_steps(importance, method.backbone.stride, generator)
    scores, odds, mask = (step[0].numpy() for step in draw)
    steps, joints = mask.shape
    uniform = 1 / (steps * joints if strategy.scope == "clip" else joints)
    settings = f"ratio {strategy.ratio:g}, temperature {strategy.temperature:g}, {strategy.scope}"
    title = "   ".join([f"Attention-guided masking ({settings}):", *clip.lines()])
    path = subject.figures / "masking.png"
    arrays = (scores, odds, mask, method.skeleton)
    return masking_stages(*arrays, path, title, uniform, method.backbone.stride)


def _features(subject: Subject, kind: Literal["tsne", "pca"] = "tsne") -> list[Path]:
    """`Method.embed` of clips, as `embed` writes it."""
    part = copy.copy(subject.part)
    every = np.linspace(0, len(part) - 1, min(len(part), _POINTS)).round().astype(int)
    part.rows = part.rows[every]
    rows = [(subject.method.embed(b).float(), b["label"]) for b in subject.batches(part)]
    features, label = (torch.cat(c).cpu().numpy() for c in zip(*rows, strict=True))
    there = features.any(1)  # a clip that shows nobody has no place
    found = {subject.folder.name: (features[there], label[there])}
    return features_plane(found, subject.class_names, subject.figures / f"{kind}.png", kind)


PICTURES: Mapping[str, Callable[[Subject], list[Path]]] = {
    "confusion": _confusion,
    "per_class": _per_class,
    "attention": _attention,
    "attention_gif": _attention_gif,
    "activated_joints": _activated_joints,
    "masking": _masking,
    "tsne": _features,
    "pca": partial(_features, kind="pca"),
}
"""Name -> how it is drawn."""

_LABELLED = ("confusion", "per_class")


def masking_of(method: Method) -> AttentionGuidedMasking:
    """The attention-guided masking that a method was trained with; if with none, the paper's."""
    settings = dict(method.metadata.get("config", {}).get("masking", {}).get("strategy") or {})
    if str(settings.pop("_target_", "")).endswith(f".{AttentionGuidedMasking.__name__}"):
        return AttentionGuidedMasking(**settings)
    return AttentionGuidedMasking()
