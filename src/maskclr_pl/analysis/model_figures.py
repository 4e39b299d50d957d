"""Figures of a trained model.

`draw_model_figures` runs the model; `draw_run_figures` draws from the files of a run folder.
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

from maskclr_pl.analysis.attention import clip_attention, sequence_importance, write_attention
from maskclr_pl.analysis.confusion import (
    class_table,
    confused_pairs,
    confusion,
    write_class_table,
)
from maskclr_pl.analysis.examples import example_clips, example_pose, model_poses
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.dataset import ClipDataset, collate
from maskclr_pl.figures.attention import AttendedClip, attention_animation, attention_strip
from maskclr_pl.figures.confusion import class_bars, confusion_matrix
from maskclr_pl.figures.features import Projection, draw_features
from maskclr_pl.figures.masked import masked_classes, masked_over_epochs, masking_stages
from maskclr_pl.figures.skeletons import joint_shares
from maskclr_pl.heads import count_non_finite_as_wrong
from maskclr_pl.masking import AttentionGuidedMasking
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.methods.protocols.features import eval_mode
from maskclr_pl.runs.predictions import Predictions, read_predictions
from maskclr_pl.runs.read import masked_by_class, masked_history
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import Batch, InputError

DEFAULT = ("confusion", "per_class", "attention", "activated_joints")
"""Figures drawn by default: two passes over the clips, and a few seconds."""

_EXAMPLES = 4  # clips shown as poses
_MAX_POINTS = 3000  # clips whose features are projected; more take minutes


def available(method: Method) -> list[str]:
    """Return the names of the figures that can be drawn of a model."""
    return [name for name in FIGURES if isinstance(method, Classifier) or name not in _CLASSIFIER]


def check_figure_names(names: Sequence[str], method: Method | None = None) -> None:
    """Check that figures exist and are available for a method.

    Raises:
        InputError: If one is not.
    """
    names_available = list(FIGURES) if method is None else available(method)
    expected = ", ".join(names_available)
    for name in names:
        if name not in FIGURES:
            close = difflib.get_close_matches(str(name), names_available, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise InputError(f"no figure named {name!r}{hint}; expected {expected}")
        if name not in names_available:
            kind = type(method).__name__
            raise InputError(f"figure {name}: {kind} is not a classifier; expected {expected}")


def draw_model_figures(
    method: Method,
    data: SkeletonDataModule,
    device: torch.device,
    folder: Path,
    names: Sequence[str] | None = None,
    *,
    split: Literal["test", "val"] = "test",
    into: Path | None = None,
) -> list[Path]:
    """Draw figures of a trained model; existing files are replaced.

    Neither the random state of a training nor the mode of the model changes.

    Args:
        method: Model on the device.
        data: Data to show to the model.
        device: Device of the model.
        folder: Run folder for tables (per_class.csv, attention.json).
        names: Keys of `FIGURES`; None: those of `DEFAULT` that are available.
        split: `test`, or `val` during a training.
        into: Folder for figures; None: `folder/figures`.

    Returns:
        All files written, including tables.

    Raises:
        InputError: If a figure is unknown or not available for this model.
    """
    if names is None:
        names = [name for name in DEFAULT if name in available(method)]
    check_figure_names(names, method)
    clips = (data.val if split == "val" else data.test).eval_view()
    if not len(clips):
        raise InputError(f"figures: the {split} split has no clips to draw")
    context = FigureContext(method, data, clips, device, folder, into or folder / "figures")
    with torch.no_grad(), eval_mode(method):
        return [file for name in dict.fromkeys(names) for file in FIGURES[name](context)]


def draw_run_figures(folder: Path, class_names: Sequence[str], skeleton: Skeleton) -> list[Path]:
    """Draw figures from predictions.npz, metrics.csv and masked_by_class.csv of a run folder.

    Also writes per_class.csv. Missing inputs are skipped. Returns the files written.
    """
    files, figures = [], folder / "figures"
    if (folder / "predictions.npz").is_file():
        files += _draw_confusion(read_predictions(folder), class_names, folder, figures)
    history = masked_history(folder)
    if history:
        files += masked_over_epochs(history, skeleton, figures / "masked_epochs.png")
    names, shares = masked_by_class(folder)
    if names:
        files += masked_classes(np.array(shares), names, skeleton, figures / "masked_classes.png")
    return files


@dataclass
class FigureContext:
    """A model, the clips to show to it, and output folders."""

    method: Method
    data: SkeletonDataModule
    clips: ClipDataset
    device: torch.device
    folder: Path
    figures: Path

    def batches(self, clips: ClipDataset | None = None) -> Iterator[Batch]:
        """Yield all clips in order, on the device."""
        for batch in self.data.sequential_loader(self.clips if clips is None else clips):
            yield self.to_device(batch)

    def to_device(self, batch: Batch) -> Batch:
        """Move a batch to the device of the model."""
        moved: Batch = self.method.transfer_batch_to_device(batch, self.device, 0)
        return moved

    @cached_property
    def predictions(self) -> Predictions:
        """Predictions of a classifier."""
        method = cast(Classifier, self.method)  # see check_figure_names
        rows = [
            (batch["index"], batch["label"], method.predict_clips(batch["clip"], batch).logits)
            for batch in self.batches()
        ]
        index, label, logits = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
        names = np.array(self.clips.names)[index.numpy()]
        logits = count_non_finite_as_wrong(logits.float(), label)
        return Predictions(str(self.folder), names, label.numpy(), logits.numpy())

    @cached_property
    def attended_clips(self) -> list[AttendedClip]:
        """Example clips of different classes with the attention of the model."""
        indices = example_clips(self.clips, _EXAMPLES)
        if not indices:
            raise InputError("figures: no clip shows a person, so there is nothing to draw")
        return [self.attended_clip(index) for index in indices]

    def attended_clip(self, index: int) -> AttendedClip:
        """Return a clip with the attention of the model."""
        batch = self.to_device(collate([self.clips[index]]))
        points, visible = model_poses(self.method, batch, self.clips.store.coordinates)
        importance, sequence = sequence_importance(self.method, batch)
        all_persons = torch.zeros(visible.shape, device=importance.device)
        all_persons[sequence] = importance
        predicted = None
        if isinstance(self.method, Classifier):
            logits = self.method.predict_clips(batch["clip"], batch).logits
            predicted = self.data.store.class_names[int(logits.argmax())]
        return AttendedClip(
            name=self.clips.store.name(int(self.clips.rows[index])),
            true=self.data.store.class_names[int(batch["label"])],
            predicted=predicted,
            points=points,
            visible=visible,
            importance=all_persons.cpu().numpy(),
        )


def _draw_confusion(
    predictions: Predictions, class_names: Sequence[str], folder: Path, figures: Path
) -> list[Path]:
    counts = write_class_table(folder, predictions, class_names)
    path = figures / "confusion.png"
    files = confusion_matrix(counts, class_names, confused_pairs(counts), path)
    return [folder / "per_class.csv", *files]


def _confusion(context: FigureContext) -> list[Path]:
    predictions, names = context.predictions, context.data.store.class_names
    return _draw_confusion(predictions, names, context.folder, context.figures)


def _per_class(context: FigureContext) -> list[Path]:
    predictions = context.predictions
    rows = class_table(
        confusion(predictions.label, predictions.logits), context.data.store.class_names
    )
    return class_bars(rows, context.figures / "per_class.png")


def _attention(context: FigureContext) -> list[Path]:
    path = context.figures / "attention.png"
    return attention_strip(context.attended_clips, context.method.skeleton, path)


def _attention_gif(context: FigureContext) -> list[Path]:
    path = context.figures / "attention.gif"
    return attention_animation(context.attended_clips, context.method.skeleton, path)


def _activated_joints(context: FigureContext) -> list[Path]:
    """Draw the share of attention of each joint, and write attention.json."""
    method = context.method
    values = write_attention(context.folder, method, clip_attention(method, context.batches()))
    files = joint_shares(
        values["share"],
        method.skeleton,
        example_pose(method, context.clips),
        context.figures / "activated_joints.png",
        title=(
            f"{values['activated_joints']:.2f} ± {values['activated_joints_std']:.2f} of "
            f"{values['joints']} joints activated (effective number; {values['clips']} clips)"
        ),
        label=f"share of the attention ({values['read_from']})",
        limit=None,
    )
    return [context.folder / "attention.json", *files]


def _masking(context: FigureContext) -> list[Path]:
    """Draw the attention-guided masking of the run, or that of the paper if the run has none."""
    method, clip = context.method, context.attended_clips[0]
    strategy, stride = masking_of(method), method.backbone.stride
    person = int(clip.importance.sum((1, 2)).argmax())
    importance = torch.from_numpy(clip.importance[[person]])
    generator = torch.Generator().manual_seed(0)
    stages = strategy.sampling_steps(importance, stride, generator)
    scores, probabilities, mask = (stage[0].numpy() for stage in stages)
    steps, joints = mask.shape
    settings = f"ratio {strategy.ratio:g}, temperature {strategy.temperature:g}, {strategy.scope}"
    return masking_stages(
        scores,
        probabilities,
        mask,
        method.skeleton,
        context.figures / "masking.png",
        title="   ".join([f"Attention-guided masking ({settings}):", *clip.captions()]),
        uniform=1 / (steps * joints if strategy.scope == "clip" else joints),
        stride=stride,
    )


def _features(context: FigureContext, projection: Projection = "tsne") -> list[Path]:
    """Draw the features of `Method.embed` in the plane."""
    clips = copy.copy(context.clips)
    number = min(len(clips), _MAX_POINTS)
    clips.rows = clips.rows[np.linspace(0, len(clips) - 1, number).round().astype(int)]
    rows = [(context.method.embed(b).float(), b["label"]) for b in context.batches(clips)]
    features, label = (torch.cat(column).cpu().numpy() for column in zip(*rows, strict=True))
    nonzero = features.any(1)  # clips without persons have zero features
    runs = {context.folder.name: (features[nonzero], label[nonzero])}
    path = context.figures / f"{projection}.png"
    return draw_features(runs, context.data.store.class_names, path, projection)


FIGURES: Mapping[str, Callable[[FigureContext], list[Path]]] = {
    "confusion": _confusion,
    "per_class": _per_class,
    "attention": _attention,
    "attention_gif": _attention_gif,
    "activated_joints": _activated_joints,
    "masking": _masking,
    "tsne": _features,
    "pca": partial(_features, projection="pca"),
}
"""Figure name -> drawing function."""

_CLASSIFIER = ("confusion", "per_class")
"""Figures that need a classifier."""


def masking_of(method: Method) -> AttentionGuidedMasking:
    """Return the attention-guided masking of a trained method, or that of the paper."""
    settings = dict(method.metadata.get("config", {}).get("masking", {}).get("strategy") or {})
    if str(settings.pop("_target_", "")).endswith(f".{AttentionGuidedMasking.__name__}"):
        return AttentionGuidedMasking(**settings)
    return AttentionGuidedMasking()
