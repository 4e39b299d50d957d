"""The contract of `Backbone`, for every file of conf/backbone, in small sizes."""

from functools import cache

import hydra
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from maskclr_pl.backbones import Backbone, DSTformer
from maskclr_pl.config.paths import config_dir
from maskclr_pl.types import InputError

NAMES = sorted(path.stem for path in (config_dir() / "backbone").glob("*.yaml"))
SMALL = {  # for the keys that a file has
    **{"dim": 16, "rep_dim": 12, "depth": 2, "heads": 2},
    "blocks": [[8, 8, 4], [8, 12, 4]],
}
JOINTS, CHANNELS = 5, 3


@cache
def composed(name: str) -> dict[str, object]:
    """The file as `train backbone=name` reads it."""
    clip = [f"clip.joints={JOINTS}", f"clip.channels={CHANNELS}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=[f"backbone={name}", *clip])
    return OmegaConf.to_container(config.backbone, resolve=True)


def build(name: str, **changes: object) -> Backbone:
    return hydra.utils.instantiate(composed(name) | changes)


def small(name: str, **changes: object) -> Backbone:
    torch.manual_seed(0)
    sizes = {key: value for key, value in SMALL.items() if key in composed(name)}
    return build(name, **sizes | changes)


def sequences(model: Backbone, n: int = 3, steps: int = 4) -> tuple[Tensor, Tensor]:
    """Clips (N, T, V, C) and a mask that hides some tokens of each."""
    rng = torch.Generator().manual_seed(1)
    frames = steps * getattr(model, "tuple_frames", model.stride)
    x = torch.randn(n, frames, JOINTS, CHANNELS, generator=rng)
    mask = torch.rand(n, frames // model.stride, JOINTS, generator=rng) < 0.4
    mask[:, 0, 0], mask[:, 0, 1] = True, False
    return x, mask


def test_backbone_without_forward_is_abstract():
    class Unfinished(Backbone):
        dim, stride = 8, 1

    with pytest.raises(TypeError, match=r"abstract method '?forward"):
        Unfinished()


@pytest.fixture(params=NAMES)
def model(request) -> Backbone:
    model = small(request.param)
    with torch.no_grad():  # BatchNorms whose statistics are those of the clips
        for _ in range(50):
            model(sequences(model)[0])
    return model.eval()


def test_all_files_are_found():
    known = {"dstformer", "dstformer_lite", "dstformer_tiny", "sttformer", "transformer"}
    assert known <= set(NAMES)


@pytest.mark.parametrize(("n", "steps"), [(3, 4), (1, 4), (2, 1), (0, 4)])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_shapes(model, n, steps, masked):
    x, mask = sequences(model, max(n, 1), steps)
    x, mask = x[:n], mask[:n] if masked else None
    features = model(x, mask=mask)
    assert features.tokens.shape == (n, x.shape[1] // model.stride, JOINTS, model.dim)
    assert features.tokens.isfinite().all()
    assert features.importance is None
    importance = model(x, mask=mask, with_importance=True).importance
    assert importance.shape == x.shape[:3]


@pytest.mark.parametrize("masked", [False, True])
def test_importance_is_a_distribution_without_gradient(model, masked):
    x, mask = sequences(model)
    importance = model(x, mask=mask if masked else None, with_importance=True).importance
    assert not importance.requires_grad
    assert (importance >= 0).all()
    # float32 sums of fewer than a hundred numbers
    torch.testing.assert_close(importance.sum((1, 2)), torch.ones(len(x)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_tokens_are_bit_identical_with_and_without_importance(model, training):
    x, mask = sequences(model)
    model.train(training)
    for hidden in (None, mask):
        torch.manual_seed(0)
        plain = model(x, mask=hidden).tokens
        torch.manual_seed(0)
        assert torch.equal(model(x, mask=hidden, with_importance=True).tokens, plain)


def test_gradients_are_bit_identical_with_and_without_importance(model):
    x, mask = sequences(model)
    grads = []
    for asked in (False, True):
        model.zero_grad()
        model(x, mask=mask, with_importance=asked).tokens.square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def weighted(tokens: Tensor) -> Tensor:
    """A scalar that depends on every token in its own way."""
    return (tokens * torch.sin(torch.arange(tokens.numel()).view_as(tokens).float())).sum()


@pytest.mark.parametrize("masked", [False, True])
def test_every_parameter_gets_a_gradient(model, masked):
    x, mask = sequences(model)
    model.train()
    # random embeddings and fusion weights: at their start some gradients vanish
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    weighted(model(x, mask=mask if masked else None).tokens).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if masked or name != "mask_token":
            assert parameter.grad.any(), name
    if not masked:  # present for data-parallel training, but no influence
        assert not model.mask_token.grad.any()


def test_mask_token_replaces_the_embedding(model):
    x, mask = sequences(model)
    tokens = model(x, mask=mask).tokens
    # what is hidden does not matter ...
    hidden = mask.repeat_interleave(model.stride, dim=1).unsqueeze(-1)
    assert torch.equal(model(torch.where(hidden, 9.0, x), mask=mask).tokens, tokens)
    # ... what is not hidden does, and so does the mask token, through every token
    assert not torch.equal(model(torch.where(hidden, x, 9.0), mask=mask).tokens, tokens)
    with torch.no_grad():
        model.mask_token.add_(1.0)
    assert not torch.equal(model(x, mask=mask).tokens, tokens)
    assert torch.equal(model(x).tokens, model(x, mask=torch.zeros_like(mask)).tokens)


def test_masked_joints_differ_by_position(model):
    """The token goes in before the positional embeddings."""
    x, mask = sequences(model, n=1, steps=2)  # STTFormer knows no place but the ends
    tokens = model(x, mask=torch.ones_like(mask)).tokens.flatten(0, 2)
    distances = torch.cdist(tokens, tokens) + torch.eye(len(tokens))
    assert distances.min() > 1e-6


def test_gradient_of_masked_input_is_zero(model):
    x, mask = sequences(model)
    x.requires_grad_()
    weighted(model(x, mask=mask).tokens).backward()
    hidden = mask.repeat_interleave(model.stride, dim=1)
    assert not x.grad[hidden].any()
    assert x.grad[~hidden].any()


@torch.no_grad()
def test_sequences_are_independent(model):
    x, mask = sequences(model, n=4)
    features = model(x, mask=mask, with_importance=True)
    alone = model(x[2:3], mask=mask[2:3], with_importance=True)
    # other batch sizes may take other kernels: float32 rounding
    torch.testing.assert_close(features.tokens[2:3], alone.tokens, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features.importance[2:3], alone.importance, rtol=1e-5, atol=1e-6)
    order = [3, 0, 2, 1]
    permuted = model(x[order], mask=mask[order]).tokens
    torch.testing.assert_close(permuted, features.tokens[order], rtol=1e-5, atol=1e-5)


def test_bf16_autocast(model):
    x, mask = sequences(model)
    expected = model(x, mask=mask, with_importance=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model(x, mask=mask, with_importance=True)
        plain = model(x, mask=mask).tokens
    assert torch.equal(features.tokens, plain)
    features.tokens.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    # eight bits of mantissa through two layers: values of order 1 are off by about 1e-2, those of
    # the convolutions' sums of order 5 by a few times as much
    torch.testing.assert_close(features.tokens.float(), expected.tokens, rtol=0.05, atol=0.15)
    assert features.importance.dtype == torch.float32
    torch.testing.assert_close(
        features.importance.sum((1, 2)), torch.ones(len(x)), rtol=0, atol=1e-5
    )


def test_clip_lengths(model):
    x, _ = sequences(model, steps=6)
    model.check_frames(x.shape[1])
    limit = getattr(model, "max_frames", None)
    if limit is not None:
        model.check_frames(limit)
        with pytest.raises(InputError, match=str(limit)):
            model(torch.zeros(1, limit + 1, JOINTS, CHANNELS))


@pytest.mark.parametrize(
    ("name", "published"), [("dstformer", 42_466_317), ("dstformer_lite", 16_001_549)]
)
def test_published_parameter_counts(name, published):
    with torch.device("meta"):
        model = build(name, joints=17)
    count = sum(p.numel() for p in model.parameters())
    pose_head = model.dim * 3 + 3  # published, and not part of a backbone for actions
    assert count - model.mask_token.numel() + pose_head == published


MAPS = ("st_spatial", "ts_spatial", "st_temporal", "ts_temporal")


@torch.no_grad()
def test_dstformer_importance_is_the_mean_of_its_maps():
    x, mask = sequences(small("dstformer"))
    single = [
        small("dstformer", importance=[name]).eval()(x, mask=mask, with_importance=True).importance
        for name in MAPS
    ]
    both = small("dstformer", importance=list(MAPS)).eval()(x, mask=mask, with_importance=True)
    torch.testing.assert_close(both.importance, torch.stack(single).mean(0), rtol=1e-5, atol=1e-7)
    # a spatial map gives every frame the same total, a temporal one every joint
    frames, joints = x.shape[1], x.shape[2]
    for name, importance in zip(MAPS, single, strict=True):
        axis, parts = (2, frames) if name.endswith("spatial") else (1, joints)
        torch.testing.assert_close(
            importance.sum(axis), torch.full((len(x), parts), 1 / parts), rtol=1e-4, atol=0
        )


@torch.no_grad()
def test_dstformer_importance_of_all_layers_is_their_mean():
    model = small("dstformer", importance_layers="all").eval()
    x, mask = sequences(model)
    shallow = small("dstformer", depth=1).eval()
    state = {k: v for k, v in model.state_dict().items() if k in shallow.state_dict()}
    shallow.load_state_dict(state)
    deep = small("dstformer").eval()
    deep.load_state_dict(model.state_dict())
    first, last, both = (
        one(x, mask=mask, with_importance=True).importance for one in (shallow, deep, model)
    )
    assert not torch.allclose(first, last, rtol=1e-4)
    torch.testing.assert_close(both, (first + last) / 2, rtol=1e-5, atol=1e-7)


def test_dstformer_initialization():
    """Normal weights of the given width, no biases, and streams that weigh the same."""
    for std in (0.02, 0.1):
        torch.manual_seed(0)
        model = DSTformer(dim=64, rep_dim=8, depth=1, heads=2, max_frames=4, init_std=std)
        weight = model.blocks_st[0].attn_s.qkv.weight
        assert weight.std().item() == pytest.approx(std, rel=0.03)  # 12288 draws: 4.7 sigma
        assert not model.blocks_st[0].attn_s.qkv.bias.any()
        assert not model.ts_attn[0].weight.any()
        assert (model.ts_attn[0].bias == 0.5).all()


def test_dstformer_refuses_invalid_arguments():
    with pytest.raises(ValueError, match="multiple of heads"):
        DSTformer(dim=10, heads=4)
    for maps in ([], ["spatial"]):
        with pytest.raises((ValueError, TypeError)):
            DSTformer(dim=8, heads=2, importance=maps)
