import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskclr_pl.backbones import Transformer
from maskclr_pl.backbones.layers import DropPath
from maskclr_pl.types import InputError
from tests.reference import backbones as reference

JOINTS = 5


def small(seed: int = 0, scale: float = 1.0, **changes) -> Transformer:
    """Small, and with the attention of a trained model: far from uniform."""
    torch.manual_seed(seed)
    sizes = {"dim": 16, "depth": 2, "heads": 2, "max_frames": 16, "joints": JOINTS}
    model = Transformer(**sizes | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * scale * torch.randn_like(parameter))
    return model.eval()


def clips(n: int = 2, frames: int = 16, joints: int = JOINTS, seed: int = 1) -> Tensor:
    return torch.randn(n, frames, joints, 3, generator=torch.Generator().manual_seed(seed))


def masks(n: int = 2, steps: int = 4, joints: int = JOINTS, seed: int = 2) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, steps, joints, generator=rng) < 0.4


def numpy_of(module: nn.Module) -> reference.Weights:
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("frames", "joints", "stride"),
    # 300 patches: the maps of such lengths are made one head at a time
    [(16, 5, 4), (4, 5, 4), (8, 5, 2), (6, 3, 1), (48, 25, 4)],
)
@torch.no_grad()
def test_importance_is_the_column_mean_of_the_last_map(frames, joints, stride, masked):
    model = small(joints=joints, max_frames=frames, patch_frames=stride)
    steps = frames // stride
    x, mask = clips(2, frames, joints), masks(2, steps, joints) if masked else None
    seen: list[Tensor] = []
    model.blocks[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    importance = model(x, mask=mask, with_importance=True).importance
    for actual, tokens in zip(importance, seen[0], strict=True):
        maps = reference.softmax_map(tokens.double().numpy(), numpy_of(model.blocks[-1]), heads=2)
        expected = reference.column_mean(maps, steps, stride)
        assert expected.std() > 0.1 * expected.mean()  # not the uniform one
        # softmax of float32 products of order 10: relative rounding of a few 1e-6
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4)


@torch.no_grad()
def test_importance_is_that_of_the_last_block():
    """The blocks before it are read as the last one of a shallower model."""
    deep, shallow = small(depth=3), small(depth=1)
    shallow.load_state_dict(deep.state_dict(), strict=False)
    x = clips()
    first, last = (one(x, with_importance=True).importance for one in (shallow, deep))
    assert not torch.allclose(first, last, rtol=0.01)


@torch.no_grad()
def test_importance_is_equivariant_to_joint_order():
    model, x, order = small(), clips(), [3, 0, 4, 1, 2]
    expected = model(x, with_importance=True)
    model.pos_embed.copy_(model.pos_embed[:, :, order])
    actual = model(x[:, :, order], with_importance=True)
    torch.testing.assert_close(actual.importance, expected.importance[:, :, order])
    torch.testing.assert_close(actual.tokens, expected.tokens[:, :, order], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_patches_equal_a_strided_convolution():
    patches, x = small().joints_embed, clips()
    expected = patches.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(patches(x), expected, rtol=1e-5, atol=1e-5)  # order of the sums


@torch.no_grad()
def test_block_with_zero_branches_is_the_identity():
    """Both residuals are there (the released code of MaskCLR loses the first)."""
    model, x = small(), clips()
    tokens = [model(x).tokens]
    for block in model.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()
    steps = model.joints_embed(x)
    position = model.pos_embed + model.temp_embed[:, : steps.shape[1]]
    tokens.append(model(x).tokens)
    assert torch.equal(tokens[1], model.norm(steps + position))
    assert not torch.allclose(tokens[0], tokens[1], atol=0.1)


def test_published_parameter_count():
    with torch.device("meta"):
        model = Transformer()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count - model.mask_token.numel() == 6_336_000


FRAMES = "clip.frames"


@pytest.mark.parametrize(
    ("frames", "advice"),
    [
        (1, f"pass {FRAMES}=4"),
        (3, f"pass {FRAMES}=4"),
        (13, f"pass {FRAMES}=12 or {FRAMES}=16"),
        (15, f"pass {FRAMES}=12 or {FRAMES}=16"),
        (17, "pass clip.frames=16 or fewer, or backbone.max_frames=20"),
        (20, "pass clip.frames=16 or fewer, or backbone.max_frames=20"),
    ],
)
def test_invalid_clip_lengths_are_refused(frames, advice):
    model = small()
    with pytest.raises(InputError) as caught:
        model(clips(frames=frames))
    problem = str(caught.value)
    assert f"clips of {frames} frames" in problem
    assert problem.endswith(advice)
    assert "\n" not in problem


@pytest.mark.parametrize("frames", [4, 8, 12, 16])
def test_valid_clip_lengths_are_encoded(frames):
    model = small()
    assert model(clips(frames=frames)).tokens.shape == (2, frames // 4, JOINTS, 16)


@pytest.mark.parametrize("hidden", [7.0, 1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_masked_input_has_no_influence(hidden, training):
    model, x, mask = small(drop_path=0.5).train(training), clips(), masks()
    there = mask.repeat_interleave(model.stride, dim=1).unsqueeze(-1)
    actual = []
    for clip in (x, torch.where(there, hidden, x)):
        torch.manual_seed(3)  # of the paths that are dropped
        actual.append(model(clip, mask=mask, with_importance=True))
    assert torch.equal(actual[0].tokens, actual[1].tokens)
    assert torch.equal(actual[0].importance, actual[1].importance)


def test_masked_input_gets_no_gradient():
    model, x, mask = small().train(), clips().requires_grad_(), masks()
    features = model(x, mask=mask)
    (features.tokens * torch.randn_like(features.tokens)).sum().backward()
    there = mask.repeat_interleave(model.stride, dim=1)
    assert not x.grad[there].any()
    assert x.grad[~there].any(-1).all()


def test_empty_batch_trains_without_nan():
    model = small(drop_path=0.3).train()
    features = model(clips(0), mask=masks(0), with_importance=True)
    features.tokens.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# --- drop path ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drop_path_drops_samples_and_keeps_the_expectation(rate):
    torch.manual_seed(0)
    n = 20_000
    branch = torch.randn(n, 3, 2)
    out = DropPath(rate).train()(branch)
    dropped = (out == 0).all((1, 2))
    # whole samples: what is not dropped is there in full, scaled
    torch.testing.assert_close(out[~dropped], branch[~dropped] / (1 - rate))
    spread = (rate * (1 - rate) / n) ** 0.5
    assert dropped.float().mean().item() == pytest.approx(rate, abs=5 * spread)
    scale = torch.where(dropped, 0.0, 1 / (1 - rate))
    assert scale.mean().item() == pytest.approx(1, abs=5 * spread / (1 - rate))


def test_drop_path_is_the_identity_in_evaluation_or_at_rate_zero():
    branch = torch.randn(6, 3, 2)
    assert torch.equal(DropPath(0.9).eval()(branch), branch)
    assert torch.equal(DropPath(0.0).train()(branch), branch)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_invalid_drop_path_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r"drop_path must be in \[0, 1\)"):
        DropPath(rate)


def test_drop_path_grows_over_the_blocks():
    model = small(depth=4, drop_path=0.3)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    model, x = small(drop_path=0.5), clips(n=1)
    x = x.expand(64, -1, -1, -1)
    with torch.no_grad():
        evaluated, trained = model(x).tokens, model.train()(x).tokens
    assert torch.equal(evaluated[0], evaluated[1])
    # of the last block's two branches a person keeps both, one or none
    alike = torch.cdist(trained.flatten(1), trained.flatten(1)) < 1e-2
    assert len(torch.unique(alike, dim=0)) == 4


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="dim 10 must be a multiple of heads 4"):
        Transformer(dim=10, heads=4)
    with pytest.raises(ValueError, match="max_frames 10 must be a multiple of patch_frames 4"):
        Transformer(dim=8, heads=2, max_frames=10)
