"""Tolerances are those of golden/README.md, contrastive.npz."""

import numpy as np
import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from maskclr_pl.methods.pretrain.aimclr import aimclr_loss, energy_drop
from maskclr_pl.methods.pretrain.crossclr import cross_view_loss, crossclr_loss
from maskclr_pl.methods.pretrain.moco import (
    EMAEncoder,
    FeatureQueue,
    distribution_target,
    mined_target,
    similarities,
)
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("contrastive")
TAU = GOLDEN.config["temperature"]
TOPK = GOLDEN.config["topk"]
STREAMS = ("joint", "motion", "bone")
NORMAL, EXTREME, DROPPED = "z", "z_extreme", "z_dropped"


def negatives(name: str = "queue") -> Tensor:
    return GOLDEN.tensor(f"in/{name}").T.contiguous()


def queries(leaf: bool = False) -> list[Tensor]:
    found = [GOLDEN.tensor(f"in/{name}").clone() for name in (NORMAL, EXTREME, DROPPED)]
    return [one.requires_grad_(leaf) for one in found]


def aimclr(rows: list[Tensor], topk: int | None = None) -> dict[str, Tensor]:
    # gradients are those of the feature before normalisation
    units = [F.normalize(one, dim=-1) for one in rows]
    return aimclr_loss(*units, GOLDEN.tensor("in/k"), negatives(), TAU, topk)


def test_logits_and_distributions():
    found = [similarities(one, GOLDEN.tensor("in/k"), negatives()) / TAU for one in queries()]
    assert_close(found[0], GOLDEN["out/aimclr/logits"], atol=2e-5)
    for logits, name in zip(found, ("target", "prob_extreme", "prob_dropped"), strict=True):
        assert_close(distribution_target(logits), GOLDEN[f"out/aimclr/{name}"], atol=5e-6)


def test_first_stage_of_aimclr():
    rows = queries(leaf=True)
    losses = aimclr(rows)
    assert_close(losses["loss_contrast"], GOLDEN["out/aimclr/loss_infonce"], atol=1e-5)
    assert_close(losses["loss_d3m"], GOLDEN["out/aimclr/loss_d3m"], atol=1e-5)
    assert_close(losses["loss"], GOLDEN["out/aimclr/loss_stage1"], atol=1e-5)
    losses["loss"].backward()
    for row, name in zip(rows, (NORMAL, EXTREME, DROPPED), strict=True):
        assert_close(row.grad, GOLDEN[f"out/aimclr/grad_{name}"], atol=5e-6)


def test_each_strong_view_of_aimclr():
    z, extreme, dropped = queries()
    for one, name in ((extreme, "extreme"), (dropped, "dropped")):
        d3m = aimclr([z, one, one])["loss_d3m"]
        assert_close(d3m, GOLDEN[f"out/aimclr/loss_d3m_{name}"], atol=1e-5)


@pytest.mark.parametrize("topk", TOPK)
def test_second_stage_of_aimclr(topk):
    rows = queries(leaf=True)
    found = [similarities(one, GOLDEN.tensor("in/k"), negatives()) for one in queries()]
    mask = (mined_target(found, topk) > 0).float()
    assert_close(mask, GOLDEN[f"out/aimclr/nnm_mask_top{topk}"], atol=0)
    losses = aimclr(rows, topk)
    assert_close(losses["loss_contrast"], GOLDEN[f"out/aimclr/loss_nnm_top{topk}"], atol=1e-5)
    assert_close(losses["loss"], GOLDEN[f"out/aimclr/loss_stage2_top{topk}"], atol=1e-5)
    losses["loss"].backward()
    assert_close(rows[0].grad, GOLDEN[f"out/aimclr/grad_z_nnm_top{topk}"], atol=5e-6)


def test_queue():
    start = negatives()
    queue = FeatureQueue(len(start), start.shape[1:])
    queue.keys.copy_(start)
    queue.pointer.fill_(GOLDEN.config["queue_start_ptr"])
    for i in (1, 2):
        queue.enqueue(GOLDEN.tensor(f"in/keys_{i}"))
        assert_close(queue.keys.T, GOLDEN[f"out/queue_after_{i}"], atol=0)
        assert queue.pointer.item() == GOLDEN[f"out/queue_ptr_after_{i}"].item()


def test_moving_average():
    query, key = nn.ParameterDict(), nn.ParameterDict()
    names = sorted(GOLDEN.under("in/ema_q_"))
    for name in names:
        query[name] = GOLDEN.tensor(f"in/ema_q_{name}").clone()
        key[name] = GOLDEN.tensor(f"in/ema_k_{name}").clone()
    average = EMAEncoder(key, nn.Identity(), GOLDEN.config["momentum"])
    for i in (1, 2):
        average.update(query, nn.Identity())
        for name in names:
            expected = GOLDEN[f"out/ema_k_{name}_after_{i}"]
            assert_close(average.backbone[name], expected, atol=1e-6)


def streams(leaf: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    z = {s: GOLDEN.tensor(f"in/cross/z_{s}").clone().requires_grad_(leaf) for s in STREAMS}
    k = {s: GOLDEN.tensor(f"in/cross/k_{s}") for s in STREAMS}
    return z, k, {s: negatives(f"cross/queue_{s}") for s in STREAMS}


def test_first_stage_of_crossclr():
    losses = crossclr_loss(*streams(), TAU)
    expected = [GOLDEN[f"out/cross/loss_infonce_{stream}"] for stream in STREAMS]
    for stream, value in zip(STREAMS, expected, strict=True):
        assert_close(losses[f"loss_{stream}"], value, atol=1e-5)
    assert_close(losses["loss"], np.sum(expected, dtype=np.float32), atol=3e-5)  # three of them


@pytest.mark.parametrize("suffix", ["", "_nocontext"])
@pytest.mark.parametrize("topk", TOPK)
def test_second_stage_of_crossclr(topk, suffix):
    context = not suffix
    z, k, queue = streams(leaf=True)
    found = {s: similarities(F.normalize(z[s], dim=-1), k[s], queue[s]) for s in STREAMS}
    joint, motion = found["joint"], found["motion"]
    mask = (mined_target([motion], topk, context) > 0).float()
    form = f"top{topk}{suffix}"
    assert_close(mask, GOLDEN[f"out/cross/mask_motion_to_joint_{form}"], atol=0)
    loss = cross_view_loss(joint, motion, TAU, topk, context)
    assert_close(loss, GOLDEN[f"out/cross/loss_motion_to_joint_{form}"], atol=1e-5)
    back = cross_view_loss(motion, joint, TAU, topk, context)
    assert_close(back, GOLDEN[f"out/cross/loss_joint_to_motion_{form}"], atol=1e-5)
    total = crossclr_loss(*streams(), TAU, topk, context)["loss"]
    assert_close(total, GOLDEN[f"out/cross/loss_stage2_{form}"], atol=2e-5)
    if context:
        loss.backward()
        for stream in ("joint", "motion"):
            expected = GOLDEN[f"out/cross/grad_z_{stream}_{form}"]
            assert_close(z[stream].grad, expected, atol=5e-6)


def test_energy_drop():
    tokens = GOLDEN.tensor("in/eadm").permute(0, 2, 3, 1)
    threshold, epsilon = (GOLDEN.config[f"eadm_{name}"] for name in ("threshold", "lambda"))
    kept, _ = energy_drop(tokens, threshold, epsilon)
    before, expected = GOLDEN["in/eadm"], GOLDEN["out/eadm"]
    assert_close(kept.permute(0, 3, 1, 2), expected, atol=1e-5)
    gone = (expected == 0) & (before != 0)
    joints = (expected == 0).all((1, 2)) & gone.any((1, 2))
    assert joints.any(), "the data drop a whole joint"
    assert (gone & ~joints[:, None, None]).any(), "and single values"
