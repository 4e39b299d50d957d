"""On toy data with known truth: what trained backbones attend to, and what is hidden then.

The head averages over the joints, so that attention has to find the ones that matter; with a head
that reads them side by side the tokens of the cue reach it anyhow, and attention stays flatter.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from maskclr_pl.backbones import Backbone, DSTformer, STTFormer, Transformer
from maskclr_pl.heads import LinearHead
from maskclr_pl.losses import ClassContrast, CrossEntropy, SampleContrast, WeightedSum
from maskclr_pl.masking import AttentionGuidedMasking
from maskclr_pl.methods import Method, Recognizer
from maskclr_pl.optim import Optim
from maskclr_pl.sources.synthetic import ACTIONS, SKELETON, SyntheticSource, cue_joints
from maskclr_pl.transforms import CropScale, RandomMove
from maskclr_pl.types import Batch

FRAMES, V = 12, len(SKELETON)
CUES = torch.zeros(len(ACTIONS), V, dtype=torch.bool)
for number, action in enumerate(ACTIONS):
    CUES[number, list(cue_joints(action, "strong"))] = True


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
    return {
        "clip": clip,
        "present": torch.ones(len(clip), 1, dtype=torch.bool),
        "sequence": n,
        "frame": torch.arange(FRAMES).expand(len(clip), -1),
        "label": label,
        "index": n,
    }


def make_backbone(name: str) -> Backbone:
    if name == "transformer":
        return Transformer(dim=32, depth=2, heads=4, max_frames=FRAMES, joints=V)
    if name == "sttformer":
        return STTFormer(blocks=[(24, 24, 8), (24, 32, 8), (32, 32, 16)], joints=V)
    # either stream may be the one that finds the cue: its first maps show joints, read both
    sizes = {"dim": 32, "rep_dim": 32, "depth": 1, "heads": 4, "init_std": 0.08}
    both = ("st_spatial", "ts_spatial")
    return DSTformer(**sizes, max_frames=FRAMES, joints=V, importance=both)


def recognizer(name: str) -> Recognizer:
    backbone = make_backbone(name)
    terms = {"ce": CrossEntropy(), "sample": SampleContrast(), "class": ClassContrast()}
    return Recognizer(
        backbone=backbone,
        head=LinearHead(backbone.dim, len(ACTIONS)),
        loss=WeightedSum(terms, {"ce": 1.0, "sample": 0.1, "class": 0.1}),
        num_classes=len(ACTIONS),
        optim=Optim(),
        skeleton=SKELETON,
        augment=torch.nn.Sequential(RandomMove(), CropScale((1.5, 2.5))),
        preprocess=CropScale((2.0, 2.0)),
    )


def cue_over_rest(values: Tensor, label: Tensor) -> float:
    """Mean of (N, V) over the joints that carry the strong cue of their clip, over that of the
    others; 1 is chance."""
    cue = CUES[label]
    return (values[cue].mean() / values[~cue].mean()).item()


def trained(name: str, seed: int, lr: float, epochs: int) -> tuple[float, float, float]:
    """Accuracy, and what cue joints have over the others: importance on clips that were not
    trained on, and how often they were hidden in the last third of a MaskCLR training."""
    torch.manual_seed(seed)
    clip, label = toy_clips()
    test = torch.arange(len(clip)) // len(ACTIONS) % 4 == 3  # a quarter of each action
    model = recognizer(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    strategy = AttentionGuidedMasking(ratio=0.3, scope="tube", normalize="zscore")
    known = (~test).nonzero().squeeze(1)
    hidden, labels = [], []
    for epoch in range(epochs):
        model.train().masking = strategy if epoch >= epochs // 3 else None
        for chosen in known[torch.randperm(len(known))].split(32):
            outputs = model.training_step(batch_of(clip[chosen], label[chosen]), 0)
            optimizer.zero_grad()
            outputs["loss"].backward()
            optimizer.step()
            if epoch >= epochs * 2 // 3:
                hidden.append(outputs["mask"].float().mean(1))
                labels.append(label[chosen])
    model.eval()
    with torch.no_grad():
        logits = model.predict_clips(clip[test], batch_of(clip[test], label[test])).logits
        seen = model.preprocess(clip[test]).squeeze(1)
        attended = model.backbone(seen, with_importance=True).importance.sum(1)
    return (
        (logits.argmax(1) == label[test]).float().mean().item(),
        cue_over_rest(attended, label[test]),
        cue_over_rest(torch.cat(hidden), torch.cat(labels)),
    )


@pytest.mark.recipes
@pytest.mark.parametrize(
    ("name", "seeds", "lr", "epochs"),
    [
        ("transformer", 3, 2e-3, 12),
        pytest.param("sttformer", 2, 2e-3, 12, marks=pytest.mark.recipes),
        pytest.param("dstformer", 2, 3e-3, 16, marks=pytest.mark.recipes),
    ],
)
def test_cue_joints_are_attended_and_hidden_more_than_others(
    monkeypatch: pytest.MonkeyPatch, name: str, seeds: int, lr: float, epochs: int
) -> None:
    """In the mean over the seeds, which differ much from each other."""
    monkeypatch.setattr(Method, "log_dict", lambda *_, **__: None)
    runs = [trained(name, seed, lr, epochs) for seed in range(seeds)]
    accuracy, attended, hidden = np.mean(runs, axis=0)
    assert accuracy > 0.5, runs  # chance is 0.125
    # chance is 1; measured in the mean 1.3 (Transformer, six seeds), 1.2 and 1.5 (STTFormer, four
    # seeds on two machines) and 1.5 (DSTformer), and 1.7, 1.7 and 1.6 for what is hidden. A single
    # training is decided by how the machine rounds: STTFormer's first seed gave 1.1 and 2.1.
    assert attended > 1.05, runs
    assert hidden > 1.2, runs
