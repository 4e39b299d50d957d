"""On toy data with known truth: what a trained backbone attends to, and what is hidden then.

A joint carries the cue in the clips of some actions and not in those of others. The same joint is
compared with itself, so that what a backbone prefers for other reasons cancels out.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskclr_pl.backbones import Backbone, DSTformer, STTFormer, Transformer
from maskclr_pl.data.synthetic import ACTIONS, SKELETON, SyntheticSource, cue_joints
from maskclr_pl.heads import ActionHead
from maskclr_pl.losses import ClassContrast, CrossEntropy, SampleContrast, WeightedSum
from maskclr_pl.masking import AttentionGuidedMasking, Masking
from maskclr_pl.methods import Method, Recognizer
from maskclr_pl.optim import Optim
from maskclr_pl.transforms import CropScale, RandomMove
from maskclr_pl.types import Batch

FRAMES, CLASSES, V = 12, len(ACTIONS), len(SKELETON)
SIZES = {"joints": V, "dim": 32, "depth": 2, "heads": 4, "max_frames": FRAMES}
BACKBONES = {
    "dstformer": lambda: DSTformer(rep_dim=32, init_std=0.08, **SIZES),
    "transformer": lambda: Transformer(**SIZES),
    "sttformer": lambda: STTFormer(blocks=[[24, 24, 8], [24, 32, 8]], joints=V),
}
CUES = torch.zeros(CLASSES, V, dtype=torch.bool)
for label, action in enumerate(ACTIONS):
    CUES[label, list(cue_joints(action, "strong"))] = True
ARMS = CUES.any(0)  # a cue somewhere; none is one everywhere


def toy_clips() -> tuple[Tensor, Tensor]:
    """Clips (B, 1, T, V, C) cut into 12 frames, and labels."""
    clips, labels = [], []
    for one in SyntheticSource(clips=512, bystander=0.0):
        frames = np.arange(FRAMES) * one.keypoint.shape[1] // FRAMES
        xy = (one.keypoint[:, frames].astype(np.float32) - (640, 360)) / 640
        score = one.score[:, frames, :, None].astype(np.float32)
        clips.append(np.concatenate((xy * (score > 0), score), axis=-1))
        labels.append(one.label)
    return torch.from_numpy(np.stack(clips)).float(), torch.tensor(labels)


def batch_of(clip: Tensor, label: Tensor) -> Batch:
    n = torch.arange(len(clip))
    there = torch.ones(len(clip), 1, dtype=torch.bool)
    frame = torch.arange(FRAMES).expand(len(clip), -1)
    return {
        **{"clip": clip, "label": label, "present": there},
        **{"sequence": n, "index": n, "frame": frame},
    }


def recognizer(backbone: Backbone) -> Recognizer:
    terms = {"ce": CrossEntropy(), "sample": SampleContrast(), "class": ClassContrast()}
    return Recognizer(
        backbone=backbone,
        head=ActionHead(backbone.dim, V, CLASSES, hidden=64, dropout=0.1),
        loss=WeightedSum(terms, {"ce": 1.0, "sample": 0.1, "class": 0.1}),
        num_classes=CLASSES,
        optim=Optim(),
        skeleton=SKELETON,
        augment=torch.nn.Sequential(RandomMove(), CropScale((1.5, 2.5))),
        preprocess=CropScale((2.0, 2.0)),
    )


def contrast(values: Tensor, label: Tensor) -> float:
    """How much larger (N, V) is for a joint where it is the cue than where it is not."""
    cue = CUES[label].float()
    on = (values * cue).sum(0) / cue.sum(0).clamp_min(1)
    off = (values * (1 - cue)).sum(0) / (1 - cue).sum(0)
    return (on[ARMS] / off[ARMS]).mean().item()


def train(name: str, masking: Masking | None, epochs: int, seed: int = 0) -> dict[str, float]:
    torch.manual_seed(seed)
    clip, label = toy_clips()
    test = torch.arange(len(clip)) // CLASSES % 4 == 3  # some of each action
    model = recognizer(BACKBONES[name]())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    known = (~test).nonzero().squeeze(1)
    hidden, labels = [], []
    for epoch in range(epochs):
        model.train().masking = masking if epoch >= epochs // 3 else None
        for chosen in known[torch.randperm(len(known))].split(32):
            outputs = model.training_step(batch_of(clip[chosen], label[chosen]), 0)
            optimizer.zero_grad()
            outputs["loss"].backward()
            optimizer.step()
            if outputs["mask"] is not None and epoch >= epochs * 2 // 3:
                hidden.append(outputs["mask"].float().mean(1))
                labels.append(label[chosen])
    model.eval()
    with torch.no_grad():
        seen = model.preprocess(clip[test])
        logits = model.predict_clips(clip[test], batch_of(clip[test], label[test])).logits
        share = model.backbone(seen[:, 0], with_importance=True).importance.sum(1)
    cue = CUES[label[test]]
    found = {
        "accuracy": (logits.argmax(1) == label[test]).float().mean().item(),
        "attended": contrast(share, label[test]),
        "ratio": (share[cue].mean() / share[~cue].mean()).item(),
    }
    if hidden:
        found["hidden"] = contrast(torch.cat(hidden), torch.cat(labels))
    return found
