from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskclr_pl.backbones import DSTformer, Transformer
from maskclr_pl.methods import Lift, Method
from maskclr_pl.methods.pretrain.lifting import (
    mpjpe,
    n_mpjpe,
    projection_error,
    velocity_error,
)
from maskclr_pl.optim import Optim
from maskclr_pl.transforms import CropScale3D, DropJoints, Mirror, PoseNoise
from maskclr_pl.types import InputError
from tests.methods.test_recognizer import MIXED, SKELETON, batch_of, make_batch

V, ROOT = len(SKELETON), SKELETON.root


def lift(**options: Any) -> Lift:
    torch.manual_seed(0)
    shared = {"optim": Optim(), "skeleton": SKELETON, "augment": nn.Identity()}
    parts = {"view": CropScale3D(), "noise": PoseNoise(key_frames=3), "drop": DropJoints()}
    return Lift(
        backbone=options.pop("backbone", None)
        or DSTformer(dim=16, rep_dim=12, depth=1, heads=2, max_frames=8, joints=V),
        preprocess=nn.Identity(),
        **{**shared, **parts, **options},
    )


@pytest.fixture(autouse=True)
def logged(monkeypatch) -> dict[str, Any]:
    """Values logged by a step, without a trainer."""
    values: dict[str, Any] = {}
    monkeypatch.setattr(Method, "log_dict", lambda self, new, **_: values.update(new))
    return values


def step(model: Lift, batch: Any, seed: int = 5) -> Tensor:
    torch.manual_seed(seed)
    loss = model.train().training_step(batch, 0)["loss"]
    loss.backward()
    return loss


def draws(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Poses, truth, which joints are there."""
    rng = torch.Generator().manual_seed(seed)
    pose, truth = torch.randn(2, 3, 4, V, 3, generator=rng)
    return pose, truth, torch.rand(3, 4, V, generator=rng) > 0.3


def distance(a, b) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5


def loops(pose: np.ndarray, truth: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """The three errors, one joint at a time."""
    plain, scaled, moved = [], [], []
    for n, t in np.ndindex(*there.shape[:2]):
        known = np.flatnonzero(there[n, t])
        up = sum(float(pose[n, t, v] @ truth[n, t, v]) for v in known)
        down = sum(float(pose[n, t, v] @ pose[n, t, v]) for v in known)
        for v in known:
            plain.append(distance(pose[n, t, v], truth[n, t, v]))
            scaled.append(distance(pose[n, t, v] * (up / down), truth[n, t, v]))
            if t + 1 < there.shape[1] and there[n, t + 1, v]:
                step = pose[n, t + 1, v] - pose[n, t, v]
                moved.append(distance(step, truth[n, t + 1, v] - truth[n, t, v]))
    names = ("mpjpe", "n_mpjpe", "velocity")
    return {k: float(np.mean(e)) for k, e in zip(names, (plain, scaled, moved), strict=True)}


@pytest.mark.parametrize("seed", range(3))
def test_errors_against_loops(seed):
    pose, truth, there = draws(seed)
    expected = loops(pose.double().numpy(), truth.double().numpy(), there.numpy())
    errors = {
        "mpjpe": mpjpe(pose, truth, there),
        "n_mpjpe": n_mpjpe(pose, truth, there),
        "velocity": velocity_error(pose, truth, there),
    }
    for name, error in errors.items():
        assert error.item() == pytest.approx(expected[name], rel=1e-5), name


@pytest.mark.parametrize("seed", range(3))
def test_projection_error_against_loops(seed):
    pose, truth, there = draws(seed)
    score = torch.rand(there.shape) * there
    expected = [
        score[place].item() * distance(pose[place][:2].tolist(), truth[place][:2].tolist())
        for place in np.ndindex(*there.shape)
    ]
    error = projection_error(pose[..., :2], truth[..., :2], score)
    assert error.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_n_mpjpe_is_invariant_to_scale():
    pose, truth, there = draws()
    expected = n_mpjpe(pose, truth, there)
    torch.testing.assert_close(n_mpjpe(7 * pose, truth, there), expected)
    assert n_mpjpe(3 * truth, truth, there).item() < 1e-5


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_losses_are_relative_to_the_root_and_weighted(missing, logged):
    model = lift(view=nn.Identity(), n_mpjpe=0.25, velocity=3.0)
    batch = make_batch(MIXED)
    batch["clip"][torch.rand(batch["clip"].shape[:4]) < missing] = 0
    loss = step(model, batch)
    truth, _ = model.pack(batch["clip"], batch)
    there = (truth != 0).any(-1)
    there = there & there[:, :, ROOT : ROOT + 1]
    pose = torch.randn(truth.shape)
    expected = loops(
        pose.double().numpy(),
        (truth - truth[:, :, ROOT : ROOT + 1]).double().numpy(),
        there.numpy(),
    )
    losses = model.losses(pose, truth)
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected, rel=1e-5)
    weights = {"mpjpe": 1.0, "n_mpjpe": 0.25, "velocity": 3.0}
    total = sum(weight * logged[f"train/loss_{name}"] for name, weight in weights.items())
    torch.testing.assert_close(total, loss.detach())
    assert logged["train/loss"] == loss
    # the place of the body does not matter
    moved = torch.where(there.unsqueeze(-1), truth + torch.tensor([0.3, -0.2, 5.0]), truth)
    moved = model.losses(pose, moved)
    # float32 coordinates near 5
    assert {k: v.item() for k, v in moved.items()} == pytest.approx(expected, rel=1e-4)


def test_backbone_sees_no_depth():
    """The same x and y with another z: the same input, another truth."""
    seen = []
    model = lift(noise=nn.Identity(), drop=nn.Identity(), view=nn.Identity())
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    batch = make_batch(MIXED)
    first = step(model, batch)
    batch["clip"][..., 2] *= 3
    second = step(model, batch)
    assert torch.equal(*seen)
    assert first != second
    truth, _ = model.pack(batch["clip"], batch)
    assert torch.equal(seen[0][..., :2], truth[..., :2])
    assert set(seen[0][..., 2].unique().tolist()) == {1.0}


def test_corruption_changes_the_input_but_not_the_target(monkeypatch):
    compared = []
    monkeypatch.setattr(
        Lift,
        "losses",
        lambda self, pose, truth: compared.append(truth) or {"mpjpe": pose.square().sum()},
    )
    batch = make_batch(MIXED)
    model = lift(view=nn.Identity())
    step(model, batch)
    assert torch.equal(compared[0], model.pack(batch["clip"], batch)[0])


@pytest.mark.parametrize("coordinates", ["metres", "pixels"])
def test_every_parameter_gets_a_gradient(coordinates, logged):
    model = lift(coordinates=coordinates)
    outputs = model.train().training_step(make_batch(MIXED), 0)
    outputs["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() == (name != "backbone.mask_token"), name
    assert outputs["mask"] is None
    assert outputs["embedding"].shape == (5, 12)
    assert not outputs["embedding"].requires_grad
    expected = {"projection"} if coordinates == "pixels" else {"mpjpe", "n_mpjpe", "velocity"}
    assert set(logged) == {"train/loss", *(f"train/loss_{name}" for name in expected)}


@pytest.mark.parametrize("coordinates", ["metres", "pixels"])
def test_loss_decreases(coordinates):
    model, batch = lift(coordinates=coordinates), make_batch(MIXED)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(step(model, batch).item())
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("coordinates", ["metres", "pixels"])
def test_absent_persons_change_nothing(coordinates):
    """Without corruption, whose draws are made for every slot."""
    grads, losses = [], []
    alone = make_batch([[True]] * 4)
    for persons in (1, 3):
        view = CropScale3D((0.5, 0.5))
        model = lift(noise=nn.Identity(), drop=nn.Identity(), view=view, coordinates=coordinates)
        clip = torch.zeros(4, persons, *alone["clip"].shape[2:])
        clip[:, :1] = alone["clip"]
        there = torch.tensor([[True] + [False] * (persons - 1)] * 4)
        losses.append(step(model, batch_of(clip, there)))
        grads.append([parameter.grad for parameter in model.parameters()])
    assert torch.equal(*losses)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("coordinates", ["metres", "pixels"])
@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("present", [[[False]] * 2, [[True]] * 2], ids=["nobody", "no joint"])
def test_empty_batch_has_loss_zero(coordinates, frames, present):
    model = lift(coordinates=coordinates)
    batch = make_batch(present, frames)
    batch["clip"].zero_()
    assert step(model, batch) == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_single_frame_has_no_velocity():
    model = lift()
    assert step(model, make_batch(MIXED, frames=1)).isfinite()
    pose, truth, there = (one[:, :1] for one in draws())
    assert velocity_error(pose, truth, there) == 0


def test_mixed_precision_step():
    batch = make_batch(MIXED)
    expected = step(lift(), batch).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = step(lift(), batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=0.1)  # eight bits of mantissa


def test_unsupported_backbone_and_coordinates_are_refused():
    patches = Transformer(dim=8, depth=1, heads=1, max_frames=8, joints=V)
    with pytest.raises(InputError, match="pass backbone=dstformer"):
        lift(backbone=patches)
    # the annotations are checked here, which users do not have
    with pytest.raises((ValueError, TypeError), match="coordinates"):
        lift(coordinates="feet")


@pytest.mark.parametrize("coordinates", ["metres", "pixels"])
def test_training_step_does_not_synchronize_the_device(coordinates, monkeypatch):
    """On the meta device, where values do not exist, whatever needs one fails."""
    # which has no autocast to be switched off
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    view = nn.Sequential(Mirror(SKELETON.pairs), CropScale3D())
    model = lift(coordinates=coordinates, view=view).to("meta").train()
    batch = {key: value.to("meta") for key, value in make_batch(MIXED).items()}
    model.training_step(batch, 0)["loss"].backward()
