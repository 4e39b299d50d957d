from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskclr_pl.backbones import STTFormer
from maskclr_pl.backbones.layers import BatchNorm2d, frozen_batch_stats
from maskclr_pl.heads import LinearHead
from maskclr_pl.losses import CrossEntropy, WeightedSum
from maskclr_pl.masking import RandomMasking
from maskclr_pl.methods import Method, Recognizer
from maskclr_pl.optim import Optim
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.transforms import CropScale
from maskclr_pl.types import Batch, InputError
from tests.reference import backbones as reference

JOINTS, HEADS, WIDTH = 4, 2, 3  # the last width is that of a query
BLOCKS = [[6, 6, 2], [6, 8, WIDTH]]
KINDS = ["contrib", "tuple", "slot"]


def small(seed: int = 0, **changes: Any) -> STTFormer:
    torch.manual_seed(seed)
    sizes = {"blocks": BLOCKS, "heads": HEADS, "tuple_frames": 3, "joints": JOINTS}
    return STTFormer(**sizes | changes)


def warm(seed: int = 0, **changes: Any) -> STTFormer:
    """With statistics of the clips, priors that differ and attention far from saturated."""
    model = small(seed, **changes)
    with torch.no_grad():
        for block in model.blocks:
            block.att0s.add_(0.05 * torch.randn_like(block.att0s))
            block.alphas.add_(0.3 * torch.randn_like(block.alphas))
        for _ in range(30):
            model(clips(16, seed=9))
    return model.eval()


def clips(n: int = 2, frames: int = 9, seed: int = 1) -> Tensor:
    return torch.randn(n, frames, JOINTS, 3, generator=torch.Generator().manual_seed(seed))


def masks(n: int = 2, frames: int = 9, seed: int = 2) -> Tensor:
    return torch.rand(n, frames, JOINTS, generator=torch.Generator().manual_seed(seed)) < 0.4


def last_input(model: STTFormer, x: Tensor, mask: Tensor | None = None) -> np.ndarray:
    """Input of the last block, (N, C, P, W)."""
    seen: list[Tensor] = []
    hook = model.blocks[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(x, mask=mask)
    hook.remove()
    return seen[0].double().numpy()


def weights_of(model: STTFormer) -> reference.Weights:
    state = model.blocks[-1].state_dict()
    return {name: value.double().numpy() for name, value in state.items()}


# --- importance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_importance_against_its_definition(kind, masked):
    model, x = warm(importance=kind), clips()
    mask = masks() if masked else None
    importance = model(x, mask=mask, with_importance=True).importance
    for actual, given in zip(importance, last_input(model, x, mask), strict=True):
        expected = reference.sttformer_importance(kind, given, weights_of(model), HEADS, WIDTH)
        # a slot is (frame in the tuple, joint): the frames of all tuples in turn
        expected = expected.reshape(len(actual), JOINTS)
        assert expected.std() > 0.05 * expected.mean()  # not the uniform one
        # float32 sums of a hundred products of order 1, relative to values of order 1 / 36
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4)


@torch.no_grad()
def test_contrib_equals_the_effect_of_removing_a_cell():
    """With the value of one cell set to zero and the map as it is, the attended values change by
    as much; a map that is read the wrong way round does not give that."""
    model, x = warm(), clips(n=1)
    [given], block = last_input(model, x), weights_of(model)
    weights = reference.tanh_map(reference.tuple_scores(given, block, HEADS, WIDTH).mean(0), block)
    importance = model(x, with_importance=True).importance[0].reshape(given.shape[1:]).numpy()
    lost = np.zeros_like(importance)
    for p, u in np.ndindex(*lost.shape):
        without = given.copy()
        without[:, p, u] = 0
        change = np.einsum("cpu,huw->hcpw", given - without, weights)
        lost[p, u] = np.linalg.norm(change, axis=1).sum((1, 2)).mean()
    # float32 against double
    np.testing.assert_allclose(importance, lost / lost.sum(), rtol=1e-4)


@torch.no_grad()
def test_importance_kinds_differ():
    """`slot` knows no tuple; the others do, each in its own way; the tokens are the same."""
    x = clips()
    actual = {kind: warm(importance=kind)(x, with_importance=True) for kind in KINDS}
    tuples = {kind: one.importance.unflatten(1, (3, 3)) for kind, one in actual.items()}
    for kind in KINDS:
        assert torch.equal(actual[kind].tokens, actual["contrib"].tokens)
        same = torch.allclose(tuples[kind][:, 0], tuples[kind][:, 1], rtol=0.01, atol=0)
        assert same == (kind == "slot")
    assert not torch.allclose(tuples["contrib"], tuples["tuple"], rtol=0.05)


@torch.no_grad()
def test_importance_of_zero_input_is_uniform():
    """Where no cell has a value there is nothing to tell them apart."""
    model = warm(blocks=[[6, 8, WIDTH]])
    model.input_map[1].weight.zero_()
    model.input_map[1].bias.zero_()
    importance = model(clips(), with_importance=True).importance
    torch.testing.assert_close(importance, torch.full((2, 9, JOINTS), 1 / 36))


@pytest.mark.parametrize(("channels", "slots"), [(6, 12), (7, 5), (64, 150)])
def test_slot_position_code(channels, slots):
    model = STTFormer(blocks=[[channels, 4, 2]], heads=1, tuple_frames=1, joints=slots)
    expected = reference.slot_code(channels, slots)
    # sines of up to 150 rad in double precision, kept as float32
    np.testing.assert_allclose(model.blocks[0].position[0, :, 0], expected, atol=1e-6)


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "published"), [(60, 6_233_588), (120, 6_249_008)])
def test_published_parameter_counts(classes, published):
    with torch.device("meta"):
        model, head = STTFormer(), LinearHead(256, classes)
    count = sum(p.numel() for module in (model, head) for p in module.parameters())
    assert count - model.mask_token.numel() == published


LENGTH = "clip.frames"


@pytest.mark.parametrize(
    ("frames", "advice"),
    [
        (1, f"pass {LENGTH}=6"),
        (5, f"pass {LENGTH}=6"),
        (64, f"pass {LENGTH}=60 or {LENGTH}=66"),
        (121, f"pass {LENGTH}=120 or {LENGTH}=126"),
    ],
)
def test_invalid_clip_lengths_are_refused(frames, advice):
    model = small(tuple_frames=6)
    with pytest.raises(InputError) as caught:
        model(clips(frames=frames))
    expected = f"clips of {frames} frames cannot be cut into steps of 6; {advice}"
    assert str(caught.value) == expected


@pytest.mark.parametrize("frames", [3, 6, 126])
@torch.no_grad()
def test_valid_clip_lengths_are_encoded(frames):
    model = small()
    assert model(clips(frames=frames)).tokens.shape == (2, frames, JOINTS, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": [[4, 8, 2], [4, 8, 2]]}, "width of the one before"),
        ({"blocks": []}, "the in, out and query width of each"),
        ({"blocks": [[4, 8]]}, "the in, out and query width of each"),
    ],
)
def test_invalid_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_unknown_importance():
    with pytest.raises((ValueError, TypeError)):
        small(importance="joint")


# --- hiding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [7.0, 1e30, float("inf"), float("nan")])
@torch.no_grad()
def test_masked_input_has_no_influence(hidden):
    model, x, mask = warm(), clips(), masks()
    first, second = (
        model(clip, mask=mask, with_importance=True)
        for clip in (x, torch.where(mask.unsqueeze(-1), hidden, x))
    )
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.importance, second.importance)


@torch.no_grad()
def test_input_batch_norm_sees_masked_joints_in_training():
    """The BatchNorm of the input map comes before the mask, so that its statistics are those of
    whole clips; that, and nothing else, leads from a hidden joint to the tokens."""
    model, x, mask = small().train(), clips(), masks()
    other = torch.where(mask.unsqueeze(-1), x + 1.0, x)
    first, second = (model(clip, mask=mask).tokens for clip in (x, other))
    assert not torch.allclose(first, second, atol=1e-3)
    model.input_map[1].eval()
    first, second = (model(clip, mask=mask).tokens for clip in (x, other))
    assert torch.equal(first, second)


def test_masked_input_gets_no_gradient():
    model, x, mask = warm(), clips().requires_grad_(), masks()
    tokens = model(x, mask=mask).tokens
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert not x.grad[mask].any()
    assert x.grad[~mask].any(-1).all()


# --- statistics -----------------------------------------------------------------------------------


def statistics(model: nn.Module) -> dict[str, Tensor]:
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: v.clone() for name, v in model.state_dict().items() if name.endswith(names)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def recognizer(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Recognizer:
    monkeypatch.setattr(Method, "log_dict", lambda *_, **__: None)
    model = Recognizer(
        backbone=small(),
        head=LinearHead(8, 3),
        loss=WeightedSum({"ce": CrossEntropy()}),
        num_classes=3,
        optim=Optim(),
        skeleton=Skeleton("s", tuple("abcd"), (-1, 0, 1, 2)),
        augment=CropScale((2.0, 2.0)),
        preprocess=CropScale((2.0, 2.0)),
        **options,
    )
    model.masking = RandomMasking(ratio=0.5)
    return model.train()


def batch_of(clip: Tensor, present: Tensor) -> Batch:
    number = len(clip)
    return {
        "clip": clip * present[..., None, None, None],
        "present": present,
        "sequence": present.flatten().nonzero().squeeze(1),
        "frame": torch.arange(clip.shape[2]).expand(number, -1).contiguous(),
        "label": torch.arange(number) % 3,
        "index": torch.arange(number),
    }


def batch(there: bool = True) -> Batch:
    return batch_of(clips(4).abs().unsqueeze(1), torch.full((4, 1), there))


@pytest.mark.parametrize("policy", ["standard", "both"])
def test_batch_norm_statistics_follow_bn_stats(monkeypatch, policy):
    plain = recognizer(monkeypatch)
    plain.masking = None
    plain.training_step(batch(), 0)
    model = recognizer(monkeypatch, bn_stats=policy)
    fresh = statistics(model.backbone)
    model.training_step(batch(), 0)
    actual, expected = statistics(model.backbone), statistics(plain.backbone)
    assert not any(torch.equal(fresh[name], actual[name]) for name in fresh)
    if policy == "standard":
        assert same(actual, expected)
    else:
        passes = {int(v) for name, v in actual.items() if name.endswith("tracked")}
        assert passes == {2}
        # both pathways have the same joints before the mask, and others after it
        name = "blocks.0.out_nets.1.running_mean"
        assert not torch.allclose(actual[name], expected[name], rtol=0.01)


@pytest.mark.parametrize("policy", ["standard", "both"])
def test_masked_pathway_is_normalized_by_its_own_batch(monkeypatch, policy):
    """The policy is about what evaluation uses, not about training."""
    model = recognizer(monkeypatch, bn_stats=policy)
    x, mask = clips(4), masks(4)
    expected = small().train()(x, mask=mask).tokens
    clip_index = torch.arange(4)
    actual = model.pathway(x, clip_index, 4, mask=mask)
    pooled = expected.mean((1, 2))
    assert torch.equal(actual.embedding, pooled)
    actual.logits.square().sum().backward()
    norms = [module for module in model.backbone.modules() if isinstance(module, BatchNorm2d)]
    assert all(norm.weight.grad.any() and norm.bias.grad.any() for norm in norms)


def test_batch_norm_statistics_update_again_after_an_exception():
    model, x = small().train(), clips(4)
    fresh = statistics(model)
    model.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), frozen_batch_stats(model):
        model(x, mask=masks(4))
    assert same(statistics(model), fresh)
    model.blocks[1]._forward_pre_hooks.clear()
    model(x)
    assert not any(torch.equal(fresh[name], v) for name, v in statistics(model).items())


@torch.no_grad()
def test_evaluation_uses_running_statistics_while_frozen():
    model, x = warm(), clips(4)
    expected = model(x).tokens
    with frozen_batch_stats(model):
        assert torch.equal(model(x).tokens, expected)


def test_batch_norm_matches_torch():
    torch.manual_seed(0)
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    for _ in range(3):
        x = 2 * torch.randn(4, 3, 5, 2) + 1
        assert torch.equal(ours(x), theirs(x))
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        with frozen_batch_stats(ours):
            torch.testing.assert_close(ours(x), (x - mean) / (variance + ours.eps).sqrt())
    assert same(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("policy", ["standard", "both"])
def test_empty_batch_trains_without_nan(monkeypatch, policy):
    model = recognizer(monkeypatch, bn_stats=policy)
    model.training_step(batch(), 0)
    before = statistics(model.backbone)
    model.zero_grad()
    loss = model.training_step(batch(there=False), 1)["loss"]
    assert loss.isfinite()
    loss.backward()
    assert same(statistics(model.backbone), before)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # what data-parallel training waits for
        assert parameter.grad.isfinite().all(), name
    model.training_step(batch(), 2)
    assert all(value.isfinite().all() for value in statistics(model.backbone).values())
