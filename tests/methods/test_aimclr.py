from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskclr_pl.backbones import STTFormer
from maskclr_pl.methods import AimCLR
from maskclr_pl.methods.pretrain.aimclr import aimclr_loss, energy_drop
from maskclr_pl.optim import Optim
from maskclr_pl.transforms import CropScale, RandomMove
from tests.methods.test_momentum import units
from tests.methods.test_recognizer import MIXED, SKELETON, V, logged, make_batch
from tests.reference import contrastive as oracle

__all__ = ["logged"]  # a fixture that is used by every test here

FRAMES = 4


def sttformer() -> STTFormer:
    torch.manual_seed(0)
    return STTFormer(blocks=[[8, 8, 4], [8, 8, 4]], heads=2, tuple_frames=2, joints=V)


def shared() -> dict[str, Any]:
    return {
        "optim": Optim(),
        "skeleton": SKELETON,
        "augment": nn.Sequential(RandomMove(), CropScale((1.0, 3.0))),
        "preprocess": CropScale((2.0, 2.0)),
    }


def aimclr(**options: Any) -> AimCLR:
    given = {"embed_dim": 6, "queue_size": 12, "extreme": RandomMove(30.0), **shared(), **options}
    return AimCLR(sttformer(), **given)


def step(model: Any, batch: Any) -> dict[str, Any]:
    model.train()
    torch.manual_seed(5)
    outputs = model.training_step(batch, 0)
    outputs["loss"].backward()
    return outputs


def at(model: Any, epoch: int, epochs: int = 10, steps: int = 0) -> None:
    """Stand in for the trainer at an epoch."""
    model._trainer = SimpleNamespace(
        current_epoch=epoch,
        max_epochs=epochs,
        global_step=steps,
        global_rank=0,
        precision="32-true",
        train_dataloader=(),
        num_training_batches=1,
        accumulate_grad_batches=1,
    )


@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 4),
    st.floats(0.625, 0.75),
    st.integers(0, 99),
)
def test_energy_drop_against_loops(steps, joints, channels, threshold, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, steps, joints, channels, generator=generator)
    tokens *= torch.rand(2, 1, joints, 1, generator=generator) * 3  # joints of different scale
    kept, share = energy_drop(tokens, threshold)
    expected = np.stack([oracle.energy_drop(t, threshold, 1e-4) for t in tokens.double().numpy()])
    np.testing.assert_allclose(kept.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert share.item() == pytest.approx((expected == 0).mean(), abs=1e-6)


def test_energy_drop_treats_sequences_independently():
    torch.manual_seed(0)
    tokens = torch.randn(5, 4, 6, 8) * torch.rand(5, 1, 6, 1)
    kept, share = energy_drop(tokens, 0.7)
    assert 0 < share < 1
    for i in range(5):
        assert torch.equal(energy_drop(tokens[i : i + 1], 0.7)[0][0], kept[i])
    other = torch.cat((tokens[:1], 100 * torch.randn(4, 4, 6, 8)))
    assert torch.equal(energy_drop(other, 0.7)[0][0], kept[0])


@pytest.mark.parametrize("threshold", [0.0, 0.5, 2.0])
def test_energy_drop_of_all_or_no_values_is_the_identity(threshold):
    torch.manual_seed(0)
    tokens = torch.randn(3, 4, 5, 6)
    tokens[1] = 0
    kept, share = energy_drop(tokens, threshold)
    torch.testing.assert_close(kept, tokens)
    assert share == 0


def test_energy_drop_accepts_an_empty_batch():
    kept, share = energy_drop(torch.zeros(0, 4, 5, 6), 0.7)
    assert kept.shape == (0, 4, 5, 6)
    assert share == 0


def test_energy_drop_selection_has_no_gradient():
    torch.manual_seed(0)
    tokens = torch.randn(2, 4, 5, 6, requires_grad=True)
    kept, share = energy_drop(tokens, 0.7)
    kept.sum().backward()
    torch.testing.assert_close(tokens.grad, (kept / tokens).detach(), rtol=1e-4, atol=1e-6)
    assert 0 < share < 1


@pytest.mark.parametrize("topk", [None, 1, 3])
def test_loss_against_loops(topk):
    rows = [units(4, 5, seed=i) for i in range(4)]
    queue = units(7, 5, seed=9)
    actual = aimclr_loss(*rows, queue, 0.07, topk)
    expected = oracle.aimclr(*(t.double().numpy() for t in (*rows, queue)), 0.07, topk)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].item() == pytest.approx(value, rel=1e-5), name


def test_no_gradient_into_targets_keys_and_queue():
    query, extreme, dropped, key = (units(4, 5, seed=i).requires_grad_() for i in range(4))
    losses = aimclr_loss(query, extreme, dropped, key.detach(), units(7, 5, seed=9), 0.07, 2)
    losses["loss_d3m"].backward()
    assert query.grad is None or not query.grad.any()
    assert extreme.grad.any()
    assert dropped.grad.any()


def test_first_step_equals_its_components(logged):
    """Key equals query for equal views; then the loss against loops."""
    model, batch = aimclr(augment=CropScale((2.0, 2.0))), make_batch(MIXED, FRAMES)
    start = model.queue.keys.clone()
    outputs = step(model, batch)
    query = outputs["embedding"]
    torch.testing.assert_close(query.norm(dim=-1), torch.ones(4))
    assert not query.requires_grad
    assert torch.equal(model.queue.keys[:4], query)
    assert torch.equal(model.queue.keys[4:], start[4:])
    rows = query.double().numpy()
    expected = oracle.aimclr(rows, rows, rows, rows, start.double().numpy(), 0.07, None)
    assert logged["train/loss_contrast"].item() == pytest.approx(
        expected["loss_contrast"], rel=1e-5
    )
    assert set(logged) == {f"train/{name}" for name in (*expected, "dropped")}
    assert outputs["mask"] is None


def test_only_the_query_is_trained():
    model = aimclr()
    step(model, make_batch(MIXED, FRAMES))
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("key."), name
    at(model, 0)
    model.trainer.estimated_stepping_batches = 10
    groups = model.configure_optimizers()["optimizer"].param_groups
    trained = {id(p) for group in groups for p in group["params"]}
    expected = [*model.backbone.parameters(), *model.projector.parameters()]
    assert trained == {id(p) for p in expected}


def test_key_network_moves_by_one_minus_momentum():
    model, batch = aimclr(momentum=0.9), make_batch(MIXED, FRAMES)
    first = model.key.projector.fc1.weight.clone()
    with torch.no_grad():
        model.projector.fc1.weight.add_(1)
    step(model, batch)
    expected = 0.9 * first + 0.1 * model.projector.fc1.weight
    torch.testing.assert_close(model.key.projector.fc1.weight, expected)


def test_batch_norm_statistics_follow_the_normal_view():
    batch = make_batch(MIXED, FRAMES)
    model = aimclr(augment=CropScale((2.0, 2.0)), extreme=nn.Identity())
    other = aimclr(augment=CropScale((2.0, 2.0)), extreme=CropScale((1.0, 1.0)))
    for one in (model, other):
        step(one, batch)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(other.backbone.state_dict()[name], value), name
    assert model.backbone.state_dict()["input_map.1.running_mean"].any()


def test_three_views_are_drawn_independently(monkeypatch):
    seen: list[Tensor] = []
    forward = STTFormer.forward

    def spy(self, x, **options):
        seen.append(x)
        return forward(self, x, **options)

    monkeypatch.setattr(STTFormer, "forward", spy)
    batch = make_batch(MIXED, FRAMES)
    model = aimclr(extreme=CropScale((2.0, 2.0)))
    step(model, batch)
    normal, extreme, positive = seen
    assert not torch.allclose(normal, positive)
    assert torch.equal(extreme, model.pack(CropScale((2.0, 2.0))(batch["clip"]), batch)[0])


def test_keys_come_from_another_view():
    """The networks are equal, so that only another view can make them differ from the queries."""
    model = aimclr()
    outputs = step(model, make_batch(MIXED, FRAMES))
    assert not torch.isclose(model.queue.keys[:4], outputs["embedding"], atol=1e-4).all(1).any()


def test_mining_is_a_function_of_the_epoch(monkeypatch):
    actual = []
    for mining_epoch in (3, 0.3):
        model = aimclr(mining_epoch=mining_epoch)
        for epoch in range(5):
            at(model, epoch)
            model.on_train_epoch_start()
            actual.append(model.mining)
    assert actual == 2 * [False, False, False, True, True]


def test_mining_changes_the_loss(logged):
    losses = []
    for mining in (False, True):
        model = aimclr()
        model.mining = mining
        step(model, make_batch(MIXED, FRAMES))
        losses.append({name: value.item() for name, value in logged.items()})
    plain, mined = losses
    assert plain["train/loss_d3m"] == mined["train/loss_d3m"]
    assert plain["train/loss_contrast"] != mined["train/loss_contrast"]


@pytest.mark.parametrize("steps", [0, 7])
def test_loaded_weights_are_copied_to_the_key_at_step_0_only(steps):
    model = aimclr()
    with torch.no_grad():
        model.backbone.input_map[0].weight.add_(1)
    at(model, 0, steps=steps)
    model.on_train_start()
    same = torch.equal(model.key.backbone.input_map[0].weight, model.backbone.input_map[0].weight)
    assert same == (steps == 0)


@pytest.mark.parametrize("mining", [False, True])
@pytest.mark.parametrize(
    "present", [MIXED, [[True, False]], [[False, False]] * 3], ids=["mixed", "one clip", "nobody"]
)
def test_training_step_is_finite(present, mining, logged):
    model = aimclr()
    model.mining = mining
    outputs = step(model, make_batch(present, FRAMES))
    assert all(value.isfinite() for value in logged.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert outputs["embedding"].shape == (len(present), 6)
    assert model.queue.keys.isfinite().all()


def test_mixed_precision_step():
    expected = step(aimclr(), make_batch(MIXED, FRAMES))["loss"].item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = step(model := aimclr(), make_batch(MIXED, FRAMES))["loss"]
    assert loss.dtype == model.queue.keys.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=0.2)  # eight bits, divided by 0.07


def test_values_out_of_range_are_refused():
    for wrong in ({"temperature": 0}, {"topk": 13}, {"mining_epoch": -1}, {"momentum": 2}):
        with pytest.raises(ValueError):
            aimclr(**wrong)


@pytest.mark.parametrize("mining", [False, True])
def test_training_step_does_not_synchronize_the_device(mining, monkeypatch):
    """On the meta device, where values do not exist, whatever needs one fails."""
    # which has no autocast to be switched off
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    model = aimclr().to("meta").train()
    model.mining = mining
    batch = {key: value.to("meta") for key, value in make_batch(MIXED, FRAMES).items()}
    model.training_step(batch, 0)["loss"].backward()
