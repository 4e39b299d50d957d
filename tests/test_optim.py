import math

import pytest
import torch
from torch import nn

from maskclr_pl.backbones import DSTformer, STTFormer, Transformer
from maskclr_pl.optim import Optim

STEPS, EPOCHS = 400, 40


def rates(optim, steps=STEPS, epochs=EPOCHS):
    """The learning rate of every step, relative to the start value."""
    backbone = nn.Linear(2, 2)
    optimizer, schedule = optim.build(backbone, [], steps, steps // epochs)
    actual = []
    for _ in range(steps):
        actual.append(optimizer.param_groups[0]["lr"] / optim.lr)
        backbone(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        schedule.step()
    return actual


def test_cosine_ends_at_its_minimum():
    actual = rates(Optim(warmup_epochs=4, min_lr=0.25))
    assert actual[0] < actual[20] < actual[39] < 1
    assert actual[40] == pytest.approx(1)
    middle = 0.25 + 0.75 * 0.5 * (1 + math.cos(math.pi * 0.5))
    assert actual[220] == pytest.approx(middle)
    assert actual[-1] == pytest.approx(0.25, abs=1e-4)


def test_steps_at_milestones():
    actual = rates(Optim(schedule="step", gamma=0.1, milestones=[10, 30]))
    assert actual[99] == 1
    assert actual[100] == pytest.approx(0.1)
    assert actual[300] == pytest.approx(0.01)


def test_exponential_per_epoch():
    actual = rates(Optim(schedule="exponential", gamma=0.9))
    assert actual[::10] == pytest.approx([0.9**epoch for epoch in range(EPOCHS)])
    assert actual[9] == actual[0]


def tiny(kind):
    if kind is STTFormer:
        return STTFormer(blocks=[[8, 8, 4], [8, 8, 4], [8, 8, 4]], heads=2, joints=5)
    return kind(dim=8, depth=3, heads=2, joints=5)


@pytest.mark.parametrize("kind", [DSTformer, STTFormer, Transformer])
def test_layer_decay(kind):
    """Embeddings learn slowest, what is above the blocks at the full rate."""
    backbone, head = tiny(kind), nn.Linear(2, 2)
    optimizer, _ = Optim(lr=1.0, backbone_lr=0.5, layer_decay=0.8).build(backbone, [head], 10, 1)
    rate = {
        id(parameter): group["initial_lr"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(rate) == sum(1 for _ in (*backbone.parameters(), *head.parameters()))
    for name, parameter in backbone.named_parameters():
        layer = backbone.layer_index(name)
        layer = 4 if layer is None else layer
        assert rate[id(parameter)] == pytest.approx(0.5 * 0.8 ** (4 - layer)), name
        if "blocks" in name:
            assert layer == 1 + int(name.split(".")[1])
    assert rate[id(backbone.mask_token)] == pytest.approx(0.5 * 0.8**4)
    assert rate[id(head.weight)] == 1.0


@pytest.mark.parametrize(
    ("decay", "decayed"),
    [
        ("matrices", {"blocks.0.mlp.fc1.weight"}),
        ("tensors", {"blocks.0.mlp.fc1.weight", "pos_embed"}),
        ("all", {"blocks.0.mlp.fc1.weight", "pos_embed", "norm.bias"}),
    ],
)
def test_decayed_parameters(decay, decayed):
    backbone = tiny(Transformer)
    optimizer, _ = Optim(weight_decay=0.1, decay=decay).build(backbone, [], 10, 1)
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    actual = {
        names[id(parameter)]
        for group in optimizer.param_groups
        if group["weight_decay"]
        for parameter in group["params"]
    }
    asked = {"blocks.0.mlp.fc1.weight", "pos_embed", "norm.bias"}
    assert actual & asked == decayed


def test_frozen_parameters_are_left_out():
    backbone = tiny(Transformer)
    backbone.pos_embed.requires_grad_(False)
    optimizer, _ = Optim(optimizer="sgd").build(backbone, [], 10, 1)
    assert isinstance(optimizer, torch.optim.SGD)
    held = {id(one) for group in optimizer.param_groups for one in group["params"]}
    assert id(backbone.pos_embed) not in held


@pytest.mark.parametrize(
    "wrong", [{"schedule": "linear"}, {"optimizer": "adam"}, {"decay": "none"}]
)
def test_unknown_choices_are_refused(wrong):
    with pytest.raises((ValueError, TypeError)):
        Optim(**wrong)


def test_notes_list_milestones_beyond_the_end():
    optim = Optim(lr=0.1, warmup_epochs=5, schedule="step", milestones=[4, 60, 80])
    warmup, cuts = optim.notes(5)
    assert warmup.startswith("optim.warmup_epochs=5 of 5 epochs: the learning rate rises")
    assert "is not cut at 60, 80" in cuts
    assert not optim.notes(81)
    assert not Optim(milestones=[60]).notes(3)  # of the cosine
