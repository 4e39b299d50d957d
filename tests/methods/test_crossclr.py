from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskclr_pl.backbones import STTFormer
from maskclr_pl.methods import CrosSCLR
from maskclr_pl.methods.pretrain.crossclr import cross_view_loss, crossclr_loss
from maskclr_pl.optim import Optim
from maskclr_pl.transforms import CropScale, Stream
from tests.methods.test_aimclr import FRAMES, at, shared, step, sttformer
from tests.methods.test_momentum import units
from tests.methods.test_recognizer import MIXED, SKELETON, logged, make_batch
from tests.reference import contrastive as oracle

__all__ = ["logged"]  # a fixture that is used by every test here

STREAMS = ("joint", "joint_motion", "bone")


def crossclr(**options: Any) -> CrosSCLR:
    given = {"embed_dim": 6, "queue_size": 12, "coordinates": "pixels", **shared(), **options}
    return CrosSCLR(sttformer(), **given)


def vectors() -> list[dict[str, Tensor]]:
    return [
        {name: units(rows, 5, seed=10 * i + j) for j, name in enumerate(STREAMS)}
        for i, rows in enumerate((4, 4, 7))
    ]


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("topk", [None, 1, 3])
def test_loss_against_loops(topk, context):
    actual = crossclr_loss(*vectors(), 0.07, topk, context)
    doubles = [{name: t.double().numpy() for name, t in one.items()} for one in vectors()]
    expected = oracle.crossclr(*doubles, 0.07, topk, context)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].item() == pytest.approx(value, rel=1e-5), name


def test_two_streams_sum_both_directions():
    parts = [{name: one[name] for name in STREAMS[:2]} for one in vectors()]
    losses = crossclr_loss(*parts, 0.07, 1)
    assert losses["loss"] == losses["loss_joint"] + losses["loss_joint_motion"]


def test_first_step_equals_its_components(logged):
    """Key equals query for equal views, in every stream; then the loss against loops."""
    model, batch = crossclr(augment=CropScale((2.0, 2.0))), make_batch(MIXED, FRAMES)
    start = model.queue.keys.clone()
    outputs = step(model, batch)
    rows = model.queue.keys[:4]
    assert torch.equal(rows[:, 0], outputs["embedding"])
    assert torch.equal(model.queue.keys[4:], start[4:])
    query = {name: rows[:, i].double().numpy() for i, name in enumerate(STREAMS)}
    queue = {name: start[:, i].double().numpy() for i, name in enumerate(STREAMS)}
    expected = oracle.crossclr(query, query, queue, 0.07, None, True)
    assert set(logged) == {f"train/{name}" for name in expected}
    for name, value in expected.items():
        # float32: logits of up to 14 are rounded by 1e-6, whatever the loss is
        assert logged[f"train/{name}"].item() == pytest.approx(value, rel=1e-5, abs=2e-6)


def test_each_backbone_encodes_its_own_stream(monkeypatch):
    seen: list[tuple[nn.Module, Tensor]] = []
    forward = STTFormer.forward

    def spy(self, x, **options):
        seen.append((self, x))
        return forward(self, x, **options)

    monkeypatch.setattr(STTFormer, "forward", spy)
    augment = CropScale((2.0, 2.0))
    model, batch = crossclr(augment=augment), make_batch(MIXED, FRAMES)
    step(model, batch)
    joints = augment(batch["clip"])
    queries = [model.backbone, model.backbones["joint_motion"], model.backbones["bone"]]
    for i, kind in enumerate(STREAMS):
        expected = model.pack(Stream(SKELETON, kind, confidence=True)(joints), batch)[0]
        network, x = seen[2 * i]
        key, positive = seen[2 * i + 1]
        assert network is queries[i]
        assert key is model.keys[kind].backbone
        torch.testing.assert_close(x, expected)
        torch.testing.assert_close(positive, expected)


def test_keys_come_from_another_view():
    """The networks are equal, so that only another view can make them differ from the queries."""
    model = crossclr()
    outputs = step(model, make_batch(MIXED, FRAMES))
    assert not torch.isclose(model.queue.keys[:4, 0], outputs["embedding"], atol=1e-4).all(1).any()


@pytest.mark.parametrize("context", [True, False])
def test_mining_stream_gets_a_gradient_through_the_context(context):
    """Through the products alone, as published; the choice of positives has none."""
    own, other = (torch.rand(3, 8, requires_grad=True) for _ in range(2))
    cross_view_loss(own, other, 0.07, 2, context).backward()
    assert own.grad.any()
    assert (other.grad is not None and bool(other.grad.any())) == context


def test_streams_share_no_parameters_and_are_all_trained():
    model = crossclr()
    networks = [[*b.parameters(), *p.parameters()] for b, p in map(model.network, STREAMS)]
    ids = [id(parameter) for network in networks for parameter in network]
    assert len(ids) == len(set(ids)) == 3 * len(networks[0])
    model.crossing = True
    step(model, make_batch(MIXED, FRAMES))
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("keys."), name
    at(model, 0)
    model.trainer.estimated_stepping_batches = 10
    groups = model.configure_optimizers()["optimizer"].param_groups
    assert {id(p) for group in groups for p in group["params"]} == set(ids)


@pytest.mark.parametrize("crossing", [False, True])
def test_every_key_network_is_updated_in_both_stages(crossing):
    model = crossclr(momentum=0.9)
    model.crossing = crossing
    with torch.no_grad():
        for kind in STREAMS:
            model.network(kind)[1].fc1.weight.add_(1)
    before = {kind: model.keys[kind].projector.fc1.weight.clone() for kind in STREAMS}
    step(model, make_batch(MIXED, FRAMES))
    for kind in STREAMS:
        torch.testing.assert_close(model.keys[kind].projector.fc1.weight, before[kind] + 0.1)


def test_crossing_is_a_function_of_the_epoch():
    model, actual = crossclr(cross_epoch=0.5), []
    for epoch in range(4):
        at(model, epoch, epochs=4)
        model.on_train_epoch_start()
        actual.append(model.crossing)
    assert actual == [False, False, True, True]


def test_loaded_weights_are_copied_to_all_keys():
    model = crossclr()
    for kind in STREAMS:
        nn.init.normal_(model.network(kind)[0].input_map[0].weight)
    at(model, 0)
    model.on_train_start()
    for kind in STREAMS:
        for name, value in model.network(kind)[0].state_dict().items():
            assert torch.equal(model.keys[kind].backbone.state_dict()[name], value)


@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize(
    "present", [MIXED, [[True, False]], [[False, False]] * 3], ids=["mixed", "one clip", "nobody"]
)
def test_training_step_is_finite(present, crossing, logged):
    model = crossclr()
    model.crossing = crossing
    outputs = step(model, make_batch(present, FRAMES))
    assert all(value.isfinite() for value in logged.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert outputs["embedding"].shape == (len(present), 6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"streams": ["joint"]},
        {"streams": ["joint", "joint"]},
        {"streams": ["joint", "velocity"]},
        {"topk": 13},
        {"cross_epoch": -1},
        {"optim": Optim(backbone_lr=0.1)},
        {"optim": Optim(layer_decay=0.5)},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError):
        crossclr(**wrong)


@pytest.mark.parametrize("crossing", [False, True])
def test_training_step_does_not_synchronize_the_device(crossing, monkeypatch):
    """On the meta device, where values do not exist, whatever needs one fails."""
    # which has no autocast to be switched off
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    model = crossclr().to("meta").train()
    model.crossing = crossing
    batch = {key: value.to("meta") for key, value in make_batch(MIXED, FRAMES).items()}
    model.training_step(batch, 0)["loss"].backward()
