"""Packing, checkpointing, compiling, bf16 and dropping do not change the result of a step.

Every backbone of conf/backbone in small sizes; the whole step of a Recognizer, with its gradients.
"""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from maskclr_pl.backbones import Transformer
from maskclr_pl.backbones.layers import BatchNorm2d
from maskclr_pl.heads import ActionHead, LinearHead
from maskclr_pl.losses import ClassContrast, CrossEntropy, SampleContrast, WeightedSum
from maskclr_pl.masking import (
    AttentionGuidedMasking,
    PartMasking,
    RandomMasking,
    visible_tokens,
)
from maskclr_pl.methods import Recognizer
from maskclr_pl.optim import Optim
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.transforms import CropScale
from maskclr_pl.types import Batch, InputError
from tests.backbones.test_backbones import JOINTS, NAMES, small

CLASSES, STEPS = 3, 4
SKELETON = Skeleton("five", ("a", "b", "c", "d", "e"), (-1, 0, 1, 2, 3))


def recognizer(name: str, masked: bool = True, **options: Any) -> Recognizer:
    """MaskCLR, or supervised, on a small backbone whose every weight matters."""
    backbone = small(name)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    terms = {"ce": CrossEntropy()}
    if masked:
        terms |= {"sample": SampleContrast(), "class": ClassContrast()}
    model = Recognizer(
        backbone=backbone,
        head=options.pop("head", None) or ActionHead(backbone.dim, JOINTS, CLASSES, 8, dropout=0.0),
        loss=WeightedSum(terms),
        num_classes=CLASSES,
        optim=Optim(),
        skeleton=SKELETON,
        augment=CropScale((2.0, 2.0)),
        preprocess=CropScale((2.0, 2.0)),
        **options,
    )
    model.masking = AttentionGuidedMasking(ratio=0.4) if masked else None
    model.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    return model.train()


def batch(present: list[list[bool]], frames: int, seed: int = 0) -> Batch:
    there = torch.tensor(present)
    rng = torch.Generator().manual_seed(seed)
    clip = torch.rand(*there.shape, frames, JOINTS, 3, generator=rng) + 0.1
    return {
        "clip": clip * there[..., None, None, None],
        "present": there,
        "sequence": there.flatten().nonzero().squeeze(1),
        "frame": torch.arange(frames).expand(len(there), -1).contiguous(),
        "label": torch.arange(len(there)) % CLASSES,
        "index": torch.arange(len(there)),
    }


def frames_of(model: Recognizer) -> int:
    return STEPS * int(getattr(model.backbone, "tuple_frames", model.backbone.stride))


def step(model: Recognizer, clips: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, the gradients and the buffers after it, with the same draws every time."""
    torch.manual_seed(3)
    model.zero_grad()
    loss = model.training_step(clips, 0)["loss"]
    loss.backward()
    actual = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), actual | {name: b.clone() for name, b in model.named_buffers()}


MIXED = [[True, False], [True, True], [False, True], [True, False]]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_changes_nothing(name: str, masked: bool) -> None:
    """The same operations in the same order: gradients and running statistics are equal."""
    results = []
    for checkpointing in (False, True):
        model = recognizer(name, masked)
        model.backbone.checkpointing = checkpointing
        results.append(step(model, batch(MIXED, frames_of(model))))
    (loss, state), (other_loss, other) = results
    assert torch.equal(loss, other_loss)
    assert state.keys() == other.keys()
    for key in state:
        # a block's gradients may be added up in another order: float32 rounding
        torch.testing.assert_close(other[key], state[key], rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_recomputes_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = recognizer(name, masked=False)
    calls = []
    blocks = [m for n, m in model.backbone.named_modules() if "blocks" in n and n.count(".") == 1]
    for block in blocks:
        block.register_forward_pre_hook(lambda module, _: calls.append(module))
    for checkpointing in (False, True):
        model.backbone.checkpointing = checkpointing
        calls.clear()
        step(model, batch(MIXED, frames_of(model)))
        assert len(calls) == len(blocks) * (1 + checkpointing)
    calls.clear()
    model.eval()
    with torch.no_grad():
        model.predict_clips(batch(MIXED, frames_of(model))["clip"], batch(MIXED, frames_of(model)))
    assert len(calls) == len(blocks)


@pytest.mark.parametrize("name", NAMES)
def test_packed_and_padded_agree_if_all_persons_are_present(name: str) -> None:
    """With no absent person the two are the same sequences in the same order."""
    results = []
    for persons in ("packed", "padded"):
        model = recognizer(name, persons=persons)
        results.append(step(model, batch([[True, True]] * 3, frames_of(model))))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(results[0][1][key], results[1][1][key]) for key in results[0][1])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_packed_equals_padded_without_absent_persons(name: str) -> None:
    """In evaluation the sequences do not see each other: those that are there agree."""
    model = recognizer(name).eval()
    clips = batch(MIXED, frames_of(model))
    x, _ = model.pack(clips["clip"], clips)
    model.persons = "padded"
    everybody, _ = model.pack(clips["clip"], clips)
    tokens = model.encode(everybody).tokens[clips["sequence"]]
    # other batch sizes may take other kernels: float32 rounding
    torch.testing.assert_close(model.encode(x).tokens, tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_bf16_step(name: str, masked: bool) -> None:
    model = recognizer(name, masked)
    if masked:  # by attention, another joint may be hidden where importances nearly tie
        model.masking = RandomMasking(ratio=0.4)
    clips = batch(MIXED, frames_of(model))
    expected, state = step(model, clips)
    with torch.autocast("cpu", torch.bfloat16):
        loss, other = step(model, clips)
    assert loss.dtype == torch.float32
    # eight bits of mantissa: 0.4 % a number
    torch.testing.assert_close(loss, expected, rtol=0.1, atol=0.05)
    whole, rounded = (
        torch.cat([one[key].flatten() for key, _ in model.named_parameters() if key in one])
        for one in (state, other)
    )
    assert torch.nn.functional.cosine_similarity(whole, rounded, dim=0) > 0.98


@pytest.fixture(scope="module")
def compiled() -> Any:
    """Result of `tests.helpers.graphs` in a process that does not check types of arguments."""
    words = [sys.executable, "-m", "tests.helpers.graphs"]
    shown = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600)
    return json.loads(shown.stdout)


@pytest.mark.recipes
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["dstformer", "sttformer", "transformer"])
def test_one_graph_for_any_number_of_persons(compiled: Any, name: str, masked: bool) -> None:
    """No graph breaks, none more for another number of persons, and the same results."""
    actual = compiled[f"{name} {masked}"]
    # with importance and masked, or plain alone
    assert actual["graphs"] == (2 if masked else 1)
    # the graph's own operations in their order: float32 rounding
    assert actual["losses"] == pytest.approx(actual["expected"], rel=1e-5, abs=1e-6)


@pytest.mark.recipes
def test_one_graph_of_a_key_network(compiled: Any) -> None:
    assert compiled["keys"]["graphs"] == 1


@pytest.mark.recipes
def test_the_pass_over_visible_tokens_is_compiled(compiled: Any) -> None:
    actual = compiled["visible"]
    # with importance; visible tokens of the first number of persons, and of any number
    assert actual["graphs"] == 3
    assert actual["losses"] == pytest.approx(actual["expected"], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
@pytest.mark.parametrize("head", ["action", "linear"])
def test_dropped_tokens_are_replaced_by_the_visible_mean(ratio: float, head: str) -> None:
    """The masked pathway sees the visible tokens only; with nothing hidden it is the standard."""
    dim = small("transformer").dim
    heads = {"action": ActionHead(dim, JOINTS, CLASSES, 8, 0.0), "linear": LinearHead(dim, CLASSES)}
    model = recognizer("transformer", drop_hidden=True, head=heads[head]).eval()
    model.masking = AttentionGuidedMasking(ratio=ratio)
    clips = batch(MIXED, frames_of(model))
    x, clip_index = model.pack(clips["clip"], clips)
    with torch.no_grad():
        standard = model.pathway(x, clip_index, 4, with_importance=True)
        mask = model.masking(x, standard.importance, model.backbone.stride)
        masked = model.pathway(x, clip_index, 4, mask=mask)
        # what is hidden has no influence
        hidden = mask.repeat_interleave(model.backbone.stride, dim=1).unsqueeze(-1)
        assert torch.equal(
            model.pathway(x.masked_fill(hidden, 7.0), clip_index, 4, mask=mask)[0], masked[0]
        )
    if ratio == 0:  # gathered in place: other kernels, float32 rounding
        torch.testing.assert_close(masked.logits, standard.logits, rtol=1e-5, atol=1e-5)
    else:
        assert not torch.allclose(masked.logits, standard.logits, atol=1e-3)
    if head == "linear" and ratio:  # its mean over tokens is the mean over the visible ones
        assert isinstance(model.backbone, Transformer)
        keep = visible_tokens(mask, int(mask[0].sum()))
        mean = model.backbone.encode_visible(x, keep).mean(1)
        pooled = torch.stack([mean[clip_index == clip].mean(0) for clip in range(4)])
        torch.testing.assert_close(masked.embedding, pooled, rtol=1e-5, atol=1e-5)


def test_dropping_needs_a_transformer_and_equal_counts() -> None:
    with pytest.raises(ValueError, match="backbone=transformer"):
        recognizer("dstformer", drop_hidden=True)
    model = recognizer("transformer", drop_hidden=True)
    model.masking = PartMasking(parts=[[0, 1], [2], [3, 4]])
    with pytest.raises(InputError, match="drop_hidden=false"):
        step(model, batch(MIXED, frames_of(model)))


def test_checkpointing_updates_batch_norm_once() -> None:
    """Though checkpointing computes its BatchNorms twice."""
    model = recognizer("sttformer")
    model.backbone.checkpointing = True
    step(model, batch(MIXED, frames_of(model)))
    norms = [m for m in model.backbone.modules() if isinstance(m, BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}
    assert all(norm.momentum == 0.1 for norm in norms)
