"""Persons outside of a crop are neither encoded nor averaged."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskclr_pl.analysis.attention import sequence_importance
from maskclr_pl.backbones import Backbone, DSTformer, STTFormer, Transformer
from maskclr_pl.backbones.layers import BatchNorm2d
from maskclr_pl.heads import EmbeddingHead, LinearHead
from maskclr_pl.inference.export_wrapper import ExportWrapper
from maskclr_pl.losses import CrossEntropy, WeightedSum
from maskclr_pl.masking import RandomMasking
from maskclr_pl.methods import (
    AimCLR,
    CrosSCLR,
    Lift,
    MaskedAutoencoder,
    Method,
    OneShot,
    Recognizer,
)
from maskclr_pl.methods.pretrain.decoders import LinearDecoder
from maskclr_pl.optim import Optim
from maskclr_pl.transforms import Center, TemporalCrop, ValidCropResize
from maskclr_pl.types import Batch
from tests.methods.test_recognizer import CLASSES, MIXED, SKELETON, V, batch_of, logged
from tests.transforms.test_temporal import padded
from tests.transforms.test_transforms_3d import bodies, seeds

__all__ = ["logged"]  # a fixture that is used by every test here

FRAMES = 8


class Keep(nn.Module):
    """A crop in time that is the same for every clip."""

    def __init__(self, first: int, last: int):
        super().__init__()
        self.frames = slice(first, last)

    def forward(self, clip: Tensor) -> Tensor:
        return clip[..., self.frames, :, :].contiguous()


EARLY, LATE = Keep(0, FRAMES), Keep(FRAMES, 2 * FRAMES)


def late_guests() -> Batch:
    """In each clip, the first person is present in all 16 frames, the second in the last 8, if at
    all; clip 3 shows its first person in the last 8 frames alone."""
    clip = bodies(4, 2, 2 * FRAMES, V, away=0.2)
    clip[:, 1, :FRAMES] = 0
    clip[0, 1] = 0
    clip[3, 0, :FRAMES] = 0
    return batch_of(clip, (clip != 0).flatten(2).any(-1))


def backbone(name: str) -> Backbone:
    torch.manual_seed(0)
    if name == "sttformer":
        return STTFormer(blocks=[[8, 8, 4], [8, 8, 4]], heads=2, tuple_frames=2, joints=V)
    if name == "transformer":
        return Transformer(
            dim=8, depth=1, heads=2, patch_frames=4, max_frames=FRAMES, joints=V, drop_path=0.0
        )
    return DSTformer(dim=8, rep_dim=8, depth=1, heads=2, max_frames=FRAMES, joints=V)


def shared(augment: nn.Module, preprocess: nn.Module | None = None) -> dict[str, Any]:
    transforms = {"augment": augment, "preprocess": preprocess or augment}
    return {"optim": Optim(), "skeleton": SKELETON, **transforms}


def recognizer(name: str, augment: nn.Module, preprocess: nn.Module | None = None) -> Recognizer:
    encoder = backbone(name)
    loss = WeightedSum({"ce": CrossEntropy()})
    options = shared(augment, preprocess)
    return Recognizer(encoder, LinearHead(encoder.dim, CLASSES), loss, CLASSES, **options)


def method_of(kind: str, augment: nn.Module) -> Method:
    """One method of each kind; those with a BatchNorm use the backbone that has one."""
    options = shared(augment)
    views = {"embed_dim": 6, "queue_size": 12}
    if kind == "aimclr":
        return AimCLR(backbone("sttformer"), extreme=augment, **views, **options)
    if kind == "crossclr":
        return CrosSCLR(backbone("sttformer"), coordinates="metres", **views, **options)
    if kind == "masked_autoencoder":
        model = MaskedAutoencoder(backbone("sttformer"), LinearDecoder, **options)
        model.masking = RandomMasking(0.5)
        return model
    if kind == "lift":
        steps = {"view": nn.Identity(), "noise": nn.Identity(), "drop": nn.Identity()}
        return Lift(backbone("dstformer"), **steps, **options)
    if kind == "oneshot":
        return OneShot(backbone("dstformer"), EmbeddingHead(8, V, 6), CLASSES, **options)
    return recognizer("sttformer", augment)


KINDS = ("recognizer", "aimclr", "crossclr", "masked_autoencoder", "lift", "oneshot")


@pytest.mark.parametrize("kind", KINDS)
def test_persons_outside_a_crop_are_not_encoded(kind, monkeypatch):
    """Kind: persons who are not in what the model sees count as present (issue 13, B.10)."""
    sequences: list[Tensor] = []
    for family in (DSTformer, STTFormer):
        forward = family.forward

        def spy(self, x, forward=forward, **options):
            sequences.append(x)
            return forward(self, x, **options)

        monkeypatch.setattr(family, "forward", spy)
    batch = late_guests()
    batch["clip"][3, 0] = batch["clip"][2, 0]  # each clip shows somebody
    model = method_of(kind, EARLY).train()
    outputs = model.training_step(batch, 0)
    assert outputs["loss"].isfinite()
    assert sequences
    for x in sequences:
        assert len(x) == len(batch["sequence"]) == 7
        assert (x != 0).flatten(1).any(1).all()


@pytest.mark.parametrize("name", ["dstformer", "sttformer", "transformer"])
@torch.no_grad()
def test_persons_outside_a_crop_are_not_averaged(name):
    """The logits, features and exported logits are those of the clips without them."""
    model, batch = recognizer(name, EARLY).eval(), late_guests()
    clip = batch["clip"].clone()
    clip[:, 1] = 0
    without = batch_of(clip, (clip != 0).flatten(2).any(-1))
    expected = model.predict_clips(without["clip"], without).logits
    actual = model.predict_clips(batch["clip"], batch).logits
    exact = {"rtol": 1e-5, "atol": 1e-6}  # batches of another size add up in another order
    torch.testing.assert_close(actual[:3], expected[:3], **exact)
    torch.testing.assert_close(model.embed(batch)[:3], model.embed(without)[:3], **exact)
    torch.testing.assert_close(ExportWrapper(model)(batch["clip"]), actual, rtol=1e-5, atol=1e-5)
    # clip 3 shows nobody
    assert not model.embed(batch)[3].any()
    late = recognizer(name, LATE).eval().predict_clips(batch["clip"], batch).logits
    assert not torch.allclose(late, actual, atol=1e-4)


def test_pack_returns_sequences_and_clip_indices():
    model, batch = recognizer("dstformer", EARLY), late_guests()
    x, clip_index = model.pack(EARLY(batch["clip"]), batch)
    assert batch["sequence"].tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert clip_index.tolist() == [0, 1, 4, 2, 4, 4, 4]  # 4: no clip
    first = EARLY(batch["clip"])[:, 0]
    for row, clip in zip(x, (0, 1, 1, 2, 2, 3, 3), strict=True):
        assert torch.equal(row, first[clip])
    assert not x[-1].any()  # nobody is left to take the place
    everybody, clip_index = model.pack(LATE(batch["clip"]), batch)
    assert clip_index.tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(everybody, LATE(batch["clip"]).flatten(0, 1)[batch["sequence"]])
    batch["clip"][1, 1, 0, 0, 0] = torch.nan  # is there, and must not be lost
    x, clip_index = model.pack(EARLY(batch["clip"]), batch)
    assert clip_index[2] == 1
    assert x[2].isnan().any()


def test_padded_persons_match_the_published_code():
    model, batch = recognizer("dstformer", EARLY), late_guests()
    model.persons = "padded"
    x, clip_index = model.pack(EARLY(batch["clip"]), batch)
    assert torch.equal(x, EARLY(batch["clip"]).flatten(0, 1))
    assert clip_index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_batch_norm_statistics_exclude_absent_persons():
    """Equal to those of a batch of the visible persons, one of them twice."""
    batch = late_guests()
    seen = EARLY(batch["clip"])[[0, 1, 1, 2, 2], 0]
    models = [recognizer("sttformer", EARLY).train() for _ in range(2)]
    batch = {name: value[:3] for name, value in batch.items() if name != "sequence"}  # type: ignore[assignment]
    batch["sequence"] = batch["present"].flatten().nonzero().squeeze(1)
    models[0].training_step(batch, 0)
    models[1].encode(seen)
    statistics = [
        [layer.running_mean for layer in model.modules() if isinstance(layer, BatchNorm2d)]
        for model in models
    ]
    assert statistics[0]
    for one, two in zip(*statistics, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_views_of_one_clip_may_show_different_persons(monkeypatch):
    """AimCLR's normal and extreme views have a crop each; so has the key."""
    clip_indices: list[list[int]] = []
    model = AimCLR(
        backbone("sttformer"),
        extreme=EARLY,
        **{"embed_dim": 6, "queue_size": 12, **shared(LATE)},
    ).train()
    forward = type(model.projector).forward

    def spy(self, tokens, clip_index, clips):
        clip_indices.append(clip_index.tolist())
        return forward(self, tokens, clip_index, clips)

    monkeypatch.setattr(type(model.projector), "forward", spy)
    model.training_step(late_guests(), 0)
    late, early = [0, 1, 1, 2, 2, 3, 3], [0, 1, 4, 2, 4, 4, 4]
    assert clip_indices == [late, early, early, late]


@torch.no_grad()
def test_importance_covers_visible_persons():
    model, batch = recognizer("dstformer", EARLY).eval(), late_guests()
    importance, sequence = sequence_importance(model, batch)
    assert sequence.tolist() == [0, 2, 4]
    assert importance.shape == (3, FRAMES, V)


crops = st.sampled_from(
    [
        ValidCropResize(20, [0.5, 1.0], min_frames=2),
        ValidCropResize(20, [0.3]),
        TemporalCrop(padding_ratio=1),
        TemporalCrop(padding_ratio=6),
    ]
)


@given(crops, st.integers(0, 19), st.integers(1, 20), seeds)
def test_crops_show_at_least_one_person(step, first, length, seed):
    """Kind: clips of nobody that are trained on with a label (issue 13, B.10).

    Of a clip in which somebody is seen, for a while, in any place of it.
    """
    clip = bodies(1, 20, 5, seed=seed)
    clip[:, :first], clip[:, first + length :] = 0, 0
    torch.manual_seed(seed)
    assert step(clip).any()
    empty = torch.zeros_like(clip)
    assert not step(empty).any()


def test_crops_with_a_person_are_kept():
    clip = padded([bodies(2, 30, 5), bodies(2, 25, 5)], 30)
    clip[:, 1, :24] = 0  # who comes late may be outside
    step = ValidCropResize(10, [0.5, 0.5], min_frames=2)
    torch.manual_seed(3)
    out = step(clip)
    torch.manual_seed(3)
    share, place = (torch.empty(2).uniform_(low, high) for low, high in ((0.5, 0.5), (0, 1)))
    expected = ValidCropResize.resize(
        clip, *ValidCropResize.crop(torch.tensor([30, 25]), share, place, 2), 10
    )
    assert torch.equal(out, expected)


def test_the_pipeline_of_3d_clips_leaves_late_persons_out():
    """A second person is visible in the last 30 of 150 frames: about 3 in 10 draws miss them."""
    clip = bodies(400, 2, 150, V)
    clip[:, 1, :120] = 0
    present = torch.ones(400, 2, dtype=torch.bool)
    batch = batch_of(clip, present)
    steps = nn.Sequential(Center(0), ValidCropResize(FRAMES, [0.5, 1.0]))
    model = recognizer("dstformer", steps)
    torch.manual_seed(0)
    x, clip_index = model.pack(model.augment(batch["clip"]), batch)
    missed = (clip_index == 400).float().mean().item() * 2  # of the second persons
    assert 0.2 < missed < 0.4
    assert (x != 0).flatten(1).any(1).all()
    assert torch.equal(clip_index.unique(), torch.arange(401))


def test_packing_is_unchanged_if_all_persons_are_visible():
    for present in (MIXED, [[False, True]] * 4):
        there = torch.tensor(present)
        clip = bodies(4, 2, FRAMES, V) * there[..., None, None, None]
        batch = batch_of(clip, there)
        x, clip_index = recognizer("dstformer", EARLY).pack(clip, batch)
        assert torch.equal(x, clip.flatten(0, 1)[batch["sequence"]])
        assert torch.equal(clip_index, batch["sequence"] // 2)
