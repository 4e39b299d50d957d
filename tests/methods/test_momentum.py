from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributed, multiprocessing, nn

from maskclr_pl.backbones import STTFormer
from maskclr_pl.heads import Projector
from maskclr_pl.methods.pretrain.moco import (
    EMAEncoder,
    FeatureQueue,
    check_contrast,
    distribution_target,
    key_target,
    mined_target,
    similarities,
    soft_cross_entropy,
)
from maskclr_pl.types import InputError
from tests.reference import contrastive as oracle

RANKS = 2
# float32 logits up to 1 / 0.07, against double precision
LOSS = {"rtol": 1e-5, "atol": 1e-5}


def units(*shape: int, seed: int = 0) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(rows, dim=-1)


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    backbone = STTFormer(blocks=[[8, 8, 4], [8, 8, 4]], heads=2, tuple_frames=2, joints=3)
    return backbone, Projector(8, 6, embed_dim=4)


def test_key_equals_query_at_the_start():
    backbone, projector = networks()
    key = EMAEncoder(backbone, projector, 0.999)
    x, clip_index = torch.randn(3, 4, 3, 3), torch.tensor([0, 1, 1])
    actual = key(x, clip_index, 2)
    assert torch.equal(actual, projector(backbone(x).tokens, clip_index, 2))
    assert not actual.requires_grad
    assert not any(parameter.requires_grad for parameter in key.parameters())
    shared = {id(p) for p in key.parameters()} & {id(p) for p in backbone.parameters()}
    assert not shared
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@given(st.floats(0, 1), st.integers(1, 5))
def test_moving_average_closed_form(momentum, steps):
    query = [nn.Linear(3, 2), nn.Linear(2, 2)]
    key = EMAEncoder(*query, momentum)
    start = [parameter.detach().double().clone() for parameter in key.parameters()]
    latest = [p for network in query for p in network.parameters()]
    for parameter in latest:
        nn.init.normal_(parameter)
    for _ in range(steps):
        key.update(*query)
    for own, first, last in zip(key.parameters(), start, latest, strict=True):
        expected = momentum**steps * first + (1 - momentum**steps) * last.detach().double()
        # float32 rounding of each step
        torch.testing.assert_close(own.double(), expected, rtol=1e-5, atol=1e-6)


def test_key_is_updated_once_per_optimizer_step():
    """The kind: with accumulated gradients, what is done at a step was done at every batch."""
    query = [nn.Linear(3, 2), nn.Linear(2, 2)]
    key = EMAEncoder(*query, 0.5)
    start = [parameter.clone() for parameter in key.parameters()]
    latest = [p for network in query for p in network.parameters()]
    for parameter in latest:
        nn.init.normal_(parameter)
    for step in (0, 0, 0, 1, 1):
        key.update_once(*query, step)
    for own, first, last in zip(key.parameters(), start, latest, strict=True):
        torch.testing.assert_close(own, first / 4 + last * 3 / 4)


def test_key_buffers_follow_its_own_forward_passes():
    backbone, projector = networks()
    key = EMAEncoder(backbone, projector, 0.5)
    x, clip_index = torch.randn(3, 4, 3, 3), torch.arange(3)
    backbone(x)
    key.update(backbone, projector)
    name = "input_map.1.running_mean"
    assert torch.equal(key.backbone.state_dict()[name], torch.zeros(8))
    key(x, clip_index, 3)
    torch.testing.assert_close(key.backbone.state_dict()[name], backbone.state_dict()[name])


def test_copy_from_copies_parameters_and_buffers():
    backbone, projector = networks()
    key = EMAEncoder(backbone, projector, 0.999)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter)
    backbone(torch.randn(3, 4, 3, 3))
    key.copy_from(backbone, projector)
    for name, value in backbone.state_dict().items():
        assert torch.equal(key.backbone.state_dict()[name], value), name


@given(st.integers(1, 9), st.lists(st.integers(0, 20), max_size=6))
def test_queue_is_first_in_first_out(size, batches):
    """Against a deque of numbered keys; any batch fits, also one larger than the queue."""
    queue = FeatureQueue(size, (2,))
    expected = deque(((row.tolist(), 0) for row in queue.keys), maxlen=size)
    number = 0
    for count in batches:
        rows = torch.arange(number, number + count).float().unsqueeze(1).expand(-1, 2)
        number += count
        queue.enqueue(rows)
        expected = deque(((row, age + 1) for row, age in expected), maxlen=size)
        expected.extend((row, 0) for row in rows.tolist())
    pointer = int(queue.pointer)
    assert queue.keys.roll(-pointer, 0).tolist() == [row for row, _ in expected]
    assert queue.age.roll(-pointer).tolist() == [age for _, age in expected]


def test_queue_starts_with_unit_vectors_and_survives_a_checkpoint(tmp_path: Path):
    queue = FeatureQueue(7, (3, 4))
    torch.testing.assert_close(queue.keys.norm(dim=-1), torch.ones(7, 3))
    queue.enqueue(units(5, 3, 4))
    torch.save(queue.state_dict(), tmp_path / "queue.pt")
    other = FeatureQueue(7, (3, 4))
    other.load_state_dict(torch.load(tmp_path / "queue.pt", weights_only=True))
    for one in (queue, other):
        one.enqueue(units(4, 3, 4, seed=1))
    for name, value in queue.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert set(queue.state_dict()) == {"keys", "pointer", "age"}


def test_queue_may_be_written_before_the_backward_pass():
    gradients = []
    for write in (False, True):
        queue = FeatureQueue(6, (4,))
        queue.keys.copy_(units(6, 4))
        query = units(3, 4, seed=1).requires_grad_()
        key = units(3, 4, seed=2).requires_grad_()
        actual = similarities(query, key.detach(), queue.read())
        loss = soft_cross_entropy(actual / 0.07, key_target(actual))
        if write:
            queue.enqueue(key)
        loss.backward()
        gradients.append(query.grad)
        assert key.grad is None
        assert not queue.keys.requires_grad
    assert torch.equal(*gradients)


@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 99), st.sampled_from([0.07, 0.5]))
def test_logits_and_losses_against_loops(clips, size, seed, tau):
    query, key = units(clips, 5, seed=seed), units(clips, 5, seed=seed + 100)
    queue = units(size, 5, seed=seed + 200)
    actual = similarities(query, key, queue)
    rows = oracle.logits(*(t.double().numpy() for t in (query, key, queue)), tau)
    np.testing.assert_allclose((actual / tau).numpy(), rows, **LOSS)
    one_hot = np.zeros_like(rows)
    one_hot[:, 0] = 1
    expected = oracle.cross_entropy(rows, one_hot)
    assert soft_cross_entropy(actual / tau, key_target(actual)).item() == pytest.approx(
        expected, rel=1e-5, abs=1e-5
    )
    np.testing.assert_allclose(
        distribution_target(actual / tau).numpy(), oracle.softmax(rows), rtol=1e-4, atol=1e-6
    )


@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 99), st.data())
def test_mined_positives_against_loops(clips, size, seed, data):
    topk, context = data.draw(st.integers(1, size)), data.draw(st.booleans())
    actual = [torch.rand(clips, 1 + size, generator=torch.Generator().manual_seed(seed))]
    actual.append(actual[0].flip(1))
    slots = oracle.positives([one.numpy() for one in actual], topk)
    target = mined_target(actual, topk, context)
    if context:
        slots = [chosen | {slot + size for slot in chosen if slot} for chosen in slots]
    np.testing.assert_allclose(target.numpy(), oracle.uniform(slots, target.shape[1]), rtol=1e-6)
    assert target.shape[1] == 1 + size * (1 + context)


def test_targets_have_no_gradient():
    logits = torch.randn(2, 5, requires_grad=True)
    for target in (distribution_target(logits), mined_target([logits], 2)):
        assert not target.requires_grad
    other = torch.randn(2, 5, requires_grad=True)
    soft_cross_entropy(other, logits.softmax(-1)).backward()
    assert logits.grad is None
    assert other.grad is not None


def test_losses_stay_in_float32_under_autocast():
    query, key, queue = units(4, 8).requires_grad_(), units(4, 8, seed=1), units(6, 8, seed=2)
    plain = similarities(query, key, queue)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = similarities(query, key, queue)
        loss = soft_cross_entropy(actual / 0.07, key_target(actual))
    assert torch.equal(actual, plain)
    assert loss.dtype == torch.float32


def test_extreme_logits_give_a_finite_loss():
    logits = torch.tensor([[0.0, 1e4, -1e4]], requires_grad=True)
    loss = soft_cross_entropy(logits, key_target(logits.detach()))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert logits.grad.isfinite().all()


def test_queue_must_be_smaller_than_the_dataset():
    queue = FeatureQueue(100, (2,))
    queue.check_clips(101)
    for clips in (100, 60, 1):
        with pytest.raises(InputError) as caught:
            queue.check_clips(clips)
        problem = str(caught.value)
        suggested = int(problem.split("pass method.queue_size=")[1].split()[0])
        assert f"there are {clips} training clips" in problem
        assert 1 <= suggested <= clips


def test_values_out_of_range_are_refused():
    for wrong in ((0.0, 1, 8), (0.07, 0, 8), (0.07, 9, 8)):
        with pytest.raises(ValueError, match=r"temperature|topk"):
            check_contrast(*wrong)
    with pytest.raises(ValueError, match="queue_size"):
        FeatureQueue(0, (2,))
    with pytest.raises(ValueError, match="momentum"):
        EMAEncoder(*networks(), 1.5)


def rank_work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS
    )
    queue = FeatureQueue(7, (4,))
    queue.keys.copy_(units(7, 4))
    for step in range(3):
        queue.enqueue(units(RANKS * 2, 4, seed=step)[rank * 2 : rank * 2 + 2])
    torch.save(queue.state_dict(), f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.recipes
def test_queue_holds_the_keys_of_all_ranks(tmp_path: Path):
    multiprocessing.spawn(rank_work, (str(tmp_path),), nprocs=RANKS)
    queue = FeatureQueue(7, (4,))
    queue.keys.copy_(units(7, 4))
    for step in range(3):
        queue.enqueue(units(RANKS * 2, 4, seed=step))
    for rank in range(RANKS):
        actual = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for name, value in queue.state_dict().items():
            assert torch.equal(actual[name], value), name
