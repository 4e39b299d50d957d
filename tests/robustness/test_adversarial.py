"""Adversarial perturbations."""

from collections.abc import Callable

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskclr_pl.config.build import build_method
from maskclr_pl.config.paths import config_dir
from maskclr_pl.methods import Classifier
from maskclr_pl.robustness.adversarial import Adversarial
from maskclr_pl.robustness.corruptions import (
    Poses,
)
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.types import Batch, InputError
from tests.helpers.robustness_tools import FLAT, SPACE, V, batch


def linear_model(poses: Poses, seed: int = 0) -> Callable[[Tensor, Batch], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(V * poses.coordinates, 4, generator=generator)
    return lambda clip, batch: clip[..., : poses.coordinates].mean((1, 2)).flatten(1) @ weight


@pytest.mark.parametrize("poses", [FLAT, SPACE])
def test_attack_is_optimal_for_a_linear_model(poses):
    """Cross-entropy of two classes is monotone in the logits' difference: each coordinate moves by
    the full reach along the sign of its weight."""
    weight = linear_model(poses)
    two: Callable[[Tensor, Batch], Tensor] = lambda clip, b: weight(clip, b)[:, :2]  # noqa: E731
    data = batch(4)
    data["label"] %= 2
    data["clip"][..., :2] *= 0.5
    reach = 0.03
    out = Adversarial((reach,))(two, data, reach, poses)
    C = poses.coordinates
    clip = data["clip"].clone().requires_grad_()
    nn.functional.cross_entropy(two(clip, data), data["label"], reduction="sum").backward()
    visible = (data["clip"] != 0).any(-1, keepdim=True)
    expected = data["clip"][..., :C] + reach * clip.grad[..., :C].sign() * visible
    torch.testing.assert_close(out[..., :C], expected, rtol=0, atol=1e-6)  # float32 near 0.5
    assert torch.equal(out[..., C:], data["clip"][..., C:])


@pytest.mark.parametrize("poses", [FLAT, SPACE])
@given(st.floats(0, 0.2), st.integers(1, 4), st.integers(0, 50))
def test_attack_stays_within_bounds(poses, reach, steps, seed):
    data = batch(3, length=3, seed=seed, padding=1)
    data["clip"][..., 0] *= 2.2  # some joints outside of the image, which may stay there
    predict = linear_model(poses, seed)
    out = Adversarial((0.1,), steps)(predict, data, reach, poses)
    again = Adversarial((0.1,), steps)(predict, data, reach, poses)
    assert torch.equal(out, again)
    moved = out - data["clip"]
    assert moved.abs().max() <= reach * (1 + 1e-5) + 1e-7  # float32
    assert not out[(data["clip"] == 0).all(-1)].any()
    if poses.coordinates == 2:
        limit = data["clip"][..., :2].abs().clamp(min=1)
        assert (out[..., :2].abs() <= limit).all()
        assert torch.equal(out[..., 2], data["clip"][..., 2])
    if reach == 0:
        assert torch.equal(out, data["clip"])
    losses = [
        nn.functional.cross_entropy(predict(clip, data), data["label"], reduction="none")
        for clip in (data["clip"], out)
    ]
    assert (losses[1] >= losses[0]).all()


def test_undefined_gradients_do_not_move_joints():
    """As of the square root at 0: no number, and joints elsewhere go on."""

    def predict(clip: Tensor, batch: Batch) -> Tensor:
        broken = (clip[..., 1, 0] * 0).sqrt().sum((1, 2))
        return torch.stack((clip[..., 4, 0].sum((1, 2)) + broken, torch.zeros(len(clip))), 1)

    data = batch(2)
    data["label"] %= 2
    moved = Adversarial((0.01,))(predict, data, 0.01, FLAT) != data["clip"]
    assert moved[:, 0, :, 4, 0].all()
    assert not moved[..., 1, 0].any()


def test_invalid_attacks_are_refused():
    for levels, steps in (
        ((0.0,), 1),
        ((-1,), 1),
        ((float("inf"),), 1),
        ((0.1,), 0),
        ((0.2, 0.1), 1),
    ):
        with pytest.raises(InputError, match=r"adversarial=.*expected ascending levels above 0"):
            Adversarial(levels, steps)


@pytest.mark.parametrize(
    ("augment", "layout", "stream"),
    [
        ("motionbert", "h36m17", "joint"),
        ("motionbert", None, "bone"),
        ("body2d", None, "joint_motion"),
        ("none", None, "bone_motion"),
        ("ntu3d", "h36m17", "bone"),
        ("ntu3d", None, "joint_motion"),
        ("aimclr", None, "joint"),
        ("aimclr", None, "bone_motion"),
        ("aimclr_2d", None, "bone_motion"),
    ],
)
def test_gradients_pass_through_all_preprocessing(augment, layout, stream):
    """Some streams once had no gradient, such as motion."""
    source = SKELETONS["coco17" if augment not in ("ntu3d", "aimclr") else "ntu25"]
    sizes = [
        f"clip.joints={17 if layout else len(source)}",
        "clip.channels=3",
        "clip.classes=4",
        "clip.parts=[[0]]",
    ]
    sizes += ["clip.pairs=[[4,8]]", "clip.root=0", "clip.center=0", "clip.shoulders=[4,8]"]
    sizes += ["backbone.dim=16", "backbone.depth=1", "backbone.rep_dim=16", "head=action_small"]
    sizes += [f"augment={augment}", f"clip.skeleton={layout or 'null'}", "clip.frames=6"]
    sizes += [f"clip.stream={stream}"]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        method = build_method(hydra.compose("train", sizes), source).eval()
    GlobalHydra.instance().clear()
    assert isinstance(method, Classifier)
    clip = torch.rand(3, 2, 6, len(source), 3)
    clip[1, 1], clip[0, 0, 2], clip[:, :, 3, 5] = 0, 0, 0
    data: Batch = batch(3) | {"clip": clip, "frame": torch.arange(6).expand(3, 6)}
    poses = Poses(source, 2 if "coco" in source.name else 3)
    reach = 0.05

    def predict(clip: Tensor, batch: Batch) -> Tensor:
        return method.predict_clips(clip, batch).logits

    out = Adversarial((reach,))(predict, data, reach, poses)
    with torch.no_grad():
        before, after = (
            nn.functional.cross_entropy(predict(c, data), data["label"]) for c in (clip, out)
        )
    assert after > before
    assert all(parameter.grad is None for parameter in method.parameters())
