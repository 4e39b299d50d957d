from typing import Any
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from maskclr_pl.backbones import DSTformer
from maskclr_pl.callbacks import MaskingCallback
from maskclr_pl.heads import ActionHead
from maskclr_pl.losses import (
    ClassContrast,
    CrossEntropy,
    SampleContrast,
    SupervisedContrast,
    WeightedSum,
)
from maskclr_pl.masking import AttentionGuidedMasking, PartMasking, RandomMasking, TopMasking
from maskclr_pl.methods import Method, Recognizer
from maskclr_pl.optim import Optim
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.transforms import Convert, CropScale, RandomMove
from maskclr_pl.types import Batch, InputError

CLASSES = 4
SKELETON = Skeleton("s", ("head", "hip", "left_foot", "right_foot"), (1, -1, 1, 1))
V = len(SKELETON)
MASKINGS = {
    "attention": AttentionGuidedMasking(),
    "top": TopMasking(),
    "random": RandomMasking(scope="tube"),
    "parts": PartMasking(parts=[[0, 1], [2], [3]]),
}


def recognizer(
    augment: nn.Module | None = None, embedding: str = "hidden", joints: int = V, **options: Any
) -> Recognizer:
    torch.manual_seed(0)
    backbone = DSTformer(dim=16, rep_dim=12, depth=2, heads=2, max_frames=8, joints=joints)
    terms = {
        "ce": CrossEntropy(),
        "sample": SampleContrast(),
        "class": ClassContrast(),
        "supcon": SupervisedContrast(),
    }
    return Recognizer(
        backbone=backbone,
        head=ActionHead(12, joints, CLASSES, hidden=10, dropout=0.0, embedding=embedding),
        loss=WeightedSum(terms),
        num_classes=CLASSES,
        optim=Optim(),
        skeleton=SKELETON if joints == V else SKELETONS["h36m17"],
        augment=augment or CropScale((2.0, 2.0)),
        preprocess=CropScale((2.0, 2.0)),
        **options,
    )


def make_batch(present: list[list[bool]], frames: int = 5, seed: int = 1, joints: int = V) -> Batch:
    there = torch.tensor(present)
    clip = torch.rand(
        *there.shape, frames, joints, 3, generator=torch.Generator().manual_seed(seed)
    )
    clip = (clip + 0.1) * there[..., None, None, None]
    return batch_of(clip, there)


def batch_of(clip: Tensor, present: Tensor) -> Batch:
    clips = len(clip)
    return {
        "clip": clip,
        "present": present,
        "sequence": present.flatten().nonzero().squeeze(1),
        "frame": torch.arange(clip.shape[2]).expand(clips, -1).contiguous(),
        "label": torch.arange(clips) % CLASSES,
        "index": torch.arange(clips),
    }


MIXED = [[True, False], [True, True], [False, True], [True, False]]


@pytest.fixture(autouse=True)
def logged(monkeypatch) -> dict[str, Any]:
    """Values logged by a step, without a trainer."""
    values: dict[str, Any] = {}
    monkeypatch.setattr(Method, "log_dict", lambda self, new, **_: values.update(new))
    monkeypatch.setattr(Method, "log", lambda self, name, value, **_: values.update({name: value}))
    return values


def train_step(model: Recognizer, batch: Batch, masking: Any = None) -> dict[str, Any]:
    model.train()
    model.masking = masking
    torch.manual_seed(5)
    outputs = model.training_step(batch, 0)
    outputs["loss"].backward()
    return outputs


def test_absent_persons_change_nothing():
    model = recognizer().eval()
    alone = make_batch([[True]] * 3)
    padded = batch_of(
        torch.cat((alone["clip"], torch.zeros_like(alone["clip"])), dim=1),
        torch.tensor([[True, False]] * 3),
    )
    one, two = (model.predict_clips(batch["clip"], batch) for batch in (alone, padded))
    assert torch.equal(one.logits, two.logits)
    assert torch.equal(one.embedding, two.embedding)


@pytest.mark.parametrize("masking", [None, *MASKINGS])
def test_absent_persons_change_nothing_in_training(masking):
    grads, losses = [], []
    for persons in (1, 3):
        model = recognizer()
        batch = make_batch([[True]] * 4)
        there = torch.tensor([[True] + [False] * (persons - 1)] * 4)
        clip = torch.zeros(4, persons, *batch["clip"].shape[2:])
        clip[:, :1] = batch["clip"]
        outputs = train_step(model, batch_of(clip, there), MASKINGS.get(masking))
        losses.append(outputs["loss"])
        grads.append([p.grad for p in model.parameters()])
    assert torch.equal(*losses)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_content_of_absent_slots_is_ignored():
    model = recognizer().eval()
    batch = make_batch(MIXED)
    expected = model.predict_clips(batch["clip"], batch).logits
    clip = batch["clip"].clone()
    clip[..., :2][~batch["present"]] = 7.0  # with confidence 0
    assert torch.equal(model.predict_clips(clip, batch).logits, expected)


def test_predictions_are_invariant_to_person_order():
    model = recognizer().eval()
    batch = make_batch(MIXED)
    other = batch_of(batch["clip"].flip(1), batch["present"].flip(1))
    torch.testing.assert_close(
        model.predict_clips(other["clip"], other).logits,
        model.predict_clips(batch["clip"], batch).logits,
        rtol=1e-5,  # the mean over two persons in another order
        atol=1e-6,
    )


def test_packing_keeps_persons_with_their_clips():
    model, batch = recognizer(), make_batch(MIXED)
    x, clip_index = model.pack(batch["clip"], batch)
    assert clip_index.tolist() == [0, 1, 1, 2, 3]
    slots = [(0, 0), (1, 0), (1, 1), (2, 1), (3, 0)]
    for row, slot in zip(x, slots, strict=True):
        assert torch.equal(row, batch["clip"][slot])


def test_padded_persons_are_averaged_in_as_published():
    batch = make_batch(MIXED)
    padded = recognizer(persons="padded").eval()
    x, clip_index = padded.pack(batch["clip"], batch)
    assert torch.equal(x, batch["clip"].flatten(0, 1))
    assert clip_index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    packed = recognizer().eval()
    packed.load_state_dict(padded.state_dict())
    one, two = (model.predict_clips(batch["clip"], batch).logits for model in (packed, padded))
    torch.testing.assert_close(one[1], two[1])  # both persons are there
    assert not torch.allclose(one[0], two[0], atol=1e-4)


@pytest.mark.parametrize("masking", [None, *MASKINGS])
@pytest.mark.parametrize(
    ("present", "frames"),
    [(MIXED, 5), (MIXED, 1), ([[True, False]] * 4, 5), ([[False, False]] * 4, 5)],
    ids=["mixed", "one frame", "one person each", "nobody"],
)
def test_training_step_is_finite(masking, present, frames, logged):
    model, batch = recognizer(), make_batch(present, frames)
    outputs = train_step(model, batch, MASKINGS.get(masking))
    assert all(value.isfinite() for value in logged.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    mask = outputs["mask"]
    if masking is None:
        assert mask is None
        assert set(logged) == {"train/loss", "train/loss_ce"}
    else:
        assert mask.shape == (int(batch["present"].sum()), frames, V)
        names = {"loss", "loss_ce", "loss_sample", "loss_class", "loss_supcon"}
        assert set(logged) == {f"train/{name}" for name in names}


@pytest.mark.parametrize("masking", [None, *MASKINGS])
@pytest.mark.parametrize("embedding", ["pooled", "fc1", "hidden"])
def test_every_parameter_gets_a_gradient(masking, embedding):
    model = recognizer(embedding=embedding)
    train_step(model, make_batch(MIXED), MASKINGS.get(masking))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert model.backbone.mask_token.grad.any() == (masking is not None)


@pytest.mark.parametrize("masking", MASKINGS)
def test_batch_norm_statistics_follow_the_standard_pathway(masking):
    batch = make_batch(MIXED)
    supervised, masked, both = recognizer(), recognizer(), recognizer(bn_stats="both")
    train_step(supervised, batch)
    train_step(masked, batch, MASKINGS[masking])
    train_step(both, batch, MASKINGS[masking])
    expected = supervised.head.bn.state_dict()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(masked.head.bn.state_dict()[name], expected[name])
        assert not torch.equal(both.head.bn.state_dict()[name], expected[name])


def test_masked_pathway_sees_visible_tokens_only(monkeypatch):
    """All hidden: the same for every clip. None hidden: as the standard pathway."""
    seen: list[Any] = []
    forward = WeightedSum.forward

    def spy(self, standard, masked, label):
        seen[:] = standard, masked
        return forward(self, standard, masked, label)

    monkeypatch.setattr(WeightedSum, "forward", spy)
    batch = make_batch([[True, False]] * 4)
    train_step(recognizer(embedding="pooled"), batch, RandomMasking(ratio=1.0))
    hidden = seen[1].embedding
    torch.testing.assert_close(hidden, hidden[:1].expand_as(hidden), rtol=1e-5, atol=1e-6)
    train_step(recognizer(embedding="pooled"), batch, RandomMasking(ratio=0.0))
    torch.testing.assert_close(seen[1].embedding, seen[0].embedding, rtol=1e-5, atol=1e-6)


def test_guided_masks_cover_attended_joints():
    model, batch = recognizer(), make_batch(MIXED)
    outputs = train_step(model, batch, TopMasking(ratio=0.25))
    x, _ = model.pack(model.augment(batch["clip"]), batch)
    importance = model.backbone(x, with_importance=True).importance
    for attended, mask in zip(importance, outputs["mask"], strict=True):
        assert attended[mask].min() >= attended[~mask].max()


@pytest.mark.parametrize("masking", [None, "attention"])
def test_mixed_precision_step(masking):
    augment = nn.Sequential(
        Convert(SKELETONS["coco17"], SKELETONS["h36m17"]), RandomMove(), CropScale((1.0, 3.0))
    )
    model, batch = recognizer(augment, joints=17), make_batch(MIXED, joints=17)
    expected = train_step(model, batch, MASKINGS.get(masking))["loss"].item()
    model = recognizer(augment, joints=17)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = train_step(model, batch, MASKINGS.get(masking))["loss"]
    assert loss.dtype == torch.float32
    # eight bits of mantissa in the features; the mask may differ in single tokens
    assert loss.item() == pytest.approx(expected, rel=0.1)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_masking_is_off_outside_training():
    model, batch = recognizer().eval(), make_batch(MIXED)
    expected = model.predict_clips(batch["clip"], batch)
    assert expected.importance is None
    model.masking = RandomMasking(ratio=1.0)
    assert torch.equal(model.predict_clips(batch["clip"], batch).logits, expected.logits)


def test_predictions_of_a_test_are_in_order(logged):
    model = recognizer().eval()
    first, second = make_batch(MIXED, seed=1), make_batch(MIXED[:3], seed=2)
    first["index"] += 3  # batches need not come in order
    model.test_step(first, 0)
    model.test_step(second, 1)
    model.on_test_epoch_end()
    assert model.predictions["index"].tolist() == list(range(7))
    parts = [model.predict_clips(b["clip"], b).logits for b in (second, first)]
    assert torch.equal(model.predictions["logits"], torch.cat(parts))
    assert model.predictions["label"].tolist() == [0, 1, 2, 0, 1, 2, 3]
    right = (torch.cat(parts).argmax(1) == model.predictions["label"]).float().mean()
    assert logged["test/top1"].item() == pytest.approx(100 * right.item(), abs=1e-4)
    assert logged["test/top5"].item() == 100  # four classes


def test_unknown_options_are_refused():
    for options in ({"bn_stats": "masked"}, {"persons": "all"}):
        with pytest.raises((ValueError, TypeError)):
            recognizer(**options)


def test_single_training_clip_is_refused():
    with pytest.raises(InputError, match="a BatchNorm needs two"):
        recognizer().check_clips(1)
    recognizer().check_clips(2)


def test_random_state_is_restored_from_the_checkpoint():
    model, checkpoint = recognizer(), {}
    model.on_save_checkpoint(checkpoint)
    expected = torch.rand(4)
    other = recognizer()
    other.on_load_checkpoint(checkpoint)
    torch.rand(17)
    other.on_train_start()
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_rank_restores_its_own_random_state(monkeypatch, rank):
    """One that was not there before starts another of its own."""
    monkeypatch.setattr(Method, "global_rank", rank)
    monkeypatch.setattr(Method, "global_step", 5)
    states = [torch.Generator().manual_seed(seed).get_state() for seed in (7, 8)]
    model = recognizer()
    model.on_load_checkpoint({"random_states": [{"cpu": state} for state in states]})
    torch.manual_seed(3)
    model.on_train_start()
    expected = torch.Generator().manual_seed((7, 8, 3 + 2 + 5)[rank])
    assert torch.equal(torch.rand(4), torch.rand(4, generator=expected))


def trainer(epoch: int) -> L.Trainer:
    alone = Mock(reduce=lambda values, reduce_op: values)
    return Mock(spec=L.Trainer, current_epoch=epoch, max_epochs=6, strategy=alone)


def test_masking_starts_and_ramps():
    strategy = AttentionGuidedMasking(ratio=0.6, temperature=0.5, scope="tube", tube_length=2)
    callback, model = MaskingCallback(strategy, start_epoch=2, ramp_epochs=2), recognizer()
    ratios = []
    for epoch in range(6):
        callback.on_train_epoch_start(trainer(epoch), model)
        ratios.append(model.masking.ratio if model.masking else None)
    assert ratios == [None, None, pytest.approx(0.2), pytest.approx(0.4), 0.6, 0.6]
    assert model.masking == strategy
    ramping = callback.masking_at(2)
    assert (ramping.temperature, ramping.scope, ramping.tube_length) == (0.5, "tube", 2)
    # a function of the epoch: a resumed run goes on where it was
    assert MaskingCallback(strategy, 2, 2).masking_at(3) == callback.masking_at(3)


@pytest.mark.parametrize("name", MASKINGS)
def test_every_strategy_ramps(name):
    callback = MaskingCallback(MASKINGS[name], ramp_epochs=3)
    ratios = [callback.masking_at(epoch).ratio for epoch in range(5)]
    full = MASKINGS[name].ratio
    assert ratios == pytest.approx([full / 4, full / 2, full * 3 / 4, full, full])


def test_masking_callback_records_masked_shares(logged):
    callback, model = MaskingCallback(TopMasking()), recognizer()
    callback.on_train_epoch_start(trainer(0), model)
    masks = torch.zeros(2, 3, 5, V, dtype=torch.bool)
    masks[:, :, :, 1] = True
    masks[1, :, :, 2] = True
    for index, mask in enumerate(masks):
        callback.on_train_batch_end(trainer(0), model, {"mask": mask}, None, index)
    callback.on_train_batch_end(trainer(0), model, {"mask": masks[0, :0]}, None, 2)  # nobody
    callback.on_train_epoch_end(trainer(0), model)
    shares = {name: value.item() for name, value in logged.items()}
    assert shares == {
        "masked/head": 0,
        "masked/hip": 1,
        "masked/left_foot": 0.5,
        "masked/right_foot": 0,
    }
    logged.clear()
    callback.on_train_epoch_start(trainer(1), model)
    callback.on_train_batch_end(trainer(1), model, {"mask": None}, None, 0)
    callback.on_train_epoch_end(trainer(1), model)
    assert not logged


def test_masking_callback_refuses_invalid_epochs():
    for epochs in ({"start_epoch": -1}, {"ramp_epochs": -1}):
        with pytest.raises(ValueError, match="negative"):
            MaskingCallback(TopMasking(), **epochs)
    with pytest.raises(TypeError, match="no masked pathway"):
        MaskingCallback(TopMasking()).setup(trainer(0), L.LightningModule(), "fit")
