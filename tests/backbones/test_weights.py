"""Weights that others published, into our backbones and heads."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone, DSTformer, STTFormer, Transformer
from maskclr_pl.backbones.pretrained import load_published_weights
from maskclr_pl.backbones.weight_files import read_weights, save_weights
from maskclr_pl.heads import ActionHead, LinearHead
from maskclr_pl.types import InputError
from tests.reference import published

JOINTS, FRAMES = 5, 12
Weights = dict[str, Tensor]


def dstformer(**changes: Any) -> DSTformer:
    sizes = {"dim": 16, "rep_dim": 12, "depth": 2, "heads": 2, "max_frames": FRAMES}
    return DSTformer(**{**sizes, "joints": JOINTS, **changes})


def transformer(**changes: Any) -> Transformer:
    sizes = {"dim": 16, "depth": 2, "heads": 2, "max_frames": FRAMES, "joints": JOINTS}
    return Transformer(**sizes | changes)


def sttformer(**changes: Any) -> STTFormer:
    sizes = {"blocks": [[6, 6, 2], [6, 8, 3]], "heads": 2, "tuple_frames": 3, "joints": JOINTS}
    return STTFormer(**sizes | changes)


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


@dataclass
class Format:
    """A published file: the backbone's weights, what stands beside them, the form of the file."""

    build: Callable[..., Backbone]
    weights: Callable[[], Weights]
    others: Callable[[], Weights]
    container: str | None
    prefix: str
    has_mask_token: bool = False


def _motionbert() -> Weights:
    return published.motionbert(frames=FRAMES)


FORMATS = {
    "MotionBERT, pre-training": Format(dstformer, _motionbert, dict, "model_pos", "module."),
    "MotionBERT, action": Format(
        dstformer,
        _motionbert,
        lambda: prefixed("module.head.", published.action_head()),
        "model",
        "module.backbone.",
    ),
    "MaskCLR": Format(
        dstformer,
        lambda: published.motionbert(frames=FRAMES, masked=True),
        lambda: prefixed("module.model.head.", published.action_head()),
        "model",
        "module.model.backbone.",
        has_mask_token=True,
    ),
    "MAMP, pre-training": Format(transformer, published.mamp, published.mamp_decoder, "model", ""),
    "MAMP, fine-tuning": Format(
        transformer,
        published.mamp,
        lambda: prefixed("head.", published.action_head(16)),
        "model",
        "",
    ),
    "STTFormer": Format(sttformer, published.sttformer, dict, None, ""),
    "STTFormer, in parallel": Format(sttformer, published.sttformer, dict, None, "module."),
}


def source_of(file: Format) -> tuple[Backbone, Weights]:
    """A backbone with the published names, loaded by PyTorch itself, and the file's weights."""
    torch.manual_seed(1)
    weights, model = file.weights(), file.build()
    own = {name: value for name, value in weights.items() if name in model.state_dict()}
    missing = model.load_state_dict(own, strict=False).missing_keys
    assert set(missing) <= ({"mask_token"} - set(weights))
    return model.eval(), weights


def content_of(file: Format, weights: Weights) -> dict[str, Any]:
    everything = OrderedDict({**prefixed(file.prefix, weights), **file.others()})
    return {file.container: everything, **published.numbers()} if file.container else everything


def assert_same(actual: Backbone, expected: Backbone, has_mask_token: bool) -> None:
    """The same tokens and importance; where a mask token was published, hidden ones as well."""
    x = torch.randn(2, FRAMES, JOINTS, 3)
    mask = torch.rand(2, FRAMES // actual.stride, JOINTS) < 0.4
    for hidden in (None, mask) if has_mask_token else (None,):
        one, two = (
            model.eval()(x, mask=hidden, with_importance=True) for model in (actual, expected)
        )
        assert torch.equal(one.tokens, two.tokens)
        assert torch.equal(one.importance, two.importance)


@pytest.mark.parametrize("written", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("name", FORMATS)
@torch.no_grad()
def test_every_published_format(tmp_path, name, written):
    file = FORMATS[name]
    source, weights = source_of(file)
    content = content_of(file, weights)
    path = tmp_path / f"weights.{'safetensors' if written == 'safetensors' else 'bin'}"
    if written == "safetensors":  # tensors and their names only
        tensors = content[file.container] if file.container else content
        safetensors.torch.save_file(dict(tensors), path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=written == "zip")
    torch.manual_seed(2)
    token = file.build().mask_token
    torch.manual_seed(2)
    target = file.build(weights=path)
    assert_same(target, source, file.has_mask_token)
    if not file.has_mask_token:  # in particular not the one of a decoder
        assert torch.equal(target.mask_token, token)
    assert not target.loaded.unexpected + target.loaded.interpolated
    assert set(target.loaded.missing) <= {"mask_token"}
    assert len(target.loaded.matched) + len(target.loaded.missing) == len(target.state_dict())
    tensors = content[file.container] if file.container else content
    assert len(target.loaded.matched) + len(target.loaded.ignored) == len(tensors)


@pytest.mark.parametrize("container", ["model_pos", "model", "state_dict", None])
@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "module.module.", "model.", "backbone."),
        *("model.backbone.", "module.backbone.", "module.model.backbone."),
    ],
)
@pytest.mark.parametrize("name", ["MotionBERT, pre-training", "MAMP, fine-tuning", "STTFormer"])
@torch.no_grad()
def test_every_container_and_prefix(name, prefix, container):
    file = FORMATS[name]
    source, weights = source_of(file)
    content: dict[str, Any] = prefixed(prefix, weights)
    if container:
        content = {container: content}
    target = file.build()
    load_published_weights(target, {**content, **published.numbers()})
    assert_same(target, source, has_mask_token=False)


HEADS = {
    "MotionBERT, action": (ActionHead(12, JOINTS, 3, hidden=7), "head."),
    "MaskCLR": (ActionHead(12, JOINTS, 3, hidden=7), "head."),
    "MAMP, fine-tuning": (ActionHead(16, JOINTS, 3, hidden=7), "head."),
    "STTFormer": (LinearHead(8, 3), ""),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_published_checkpoints(name):
    file, (head, prefix) = FORMATS[name], HEADS[name]
    _, weights = source_of(file)
    content = content_of(file, weights)
    load_published_weights(head, content)
    tensors = content[file.container] if file.container else content
    for own, value in head.state_dict().items():
        [(_, expected)] = [(k, v) for k, v in tensors.items() if k.endswith(f"{prefix}{own}")]
        assert torch.equal(value, expected)


@pytest.mark.parametrize(("frames", "steps"), [(24, 3), (8, 3), (12, 7), (4, 3), (40, 1)])
def test_temporal_embeddings_are_interpolated(frames, steps):
    """Linear in time at the centers of equal intervals: halfway between them for twice as many."""
    weights = published.mamp(steps=steps)
    target = transformer(max_frames=frames)
    report = load_published_weights(target, {"model": weights})
    assert report.interpolated == ("temp_embed",)
    there, here = weights["temp_embed"][0, :, 0].double(), target.temp_embed[0, :, 0]
    for i, row in enumerate(here.double()):
        place = min(max((i + 0.5) * steps / len(here) - 0.5, 0.0), steps - 1.0)
        low = int(place)
        high = min(low + 1, steps - 1)
        expected = there[low] + (place - low) * (there[high] - there[low])
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-6)  # float32
    assert target(torch.randn(2, frames, JOINTS, 3)).tokens.isfinite().all()


def test_numpy_arrays_are_accepted_as_weights():
    source, weights = source_of(FORMATS["STTFormer"])
    arrays = {name: value.numpy() for name, value in weights.items()}
    target = sttformer()
    load_published_weights(target, {**arrays, "best_acc": np.float32(0.5), 3: torch.zeros(1)})
    assert_same(target, source, has_mask_token=False)


@pytest.mark.parametrize("build", [dstformer, transformer, sttformer])
def test_saved_weights_are_read_back(tmp_path, build):
    source = build()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.normal_(std=0.1)
    save_weights(source, tmp_path / "own.safetensors")
    content = read_weights(tmp_path / "own.safetensors")
    assert content.keys() == source.state_dict().keys()
    assert all(torch.equal(content[k], v) for k, v in source.state_dict().items())
    target = build(weights=tmp_path / "own.safetensors")
    assert not target.loaded.missing + target.loaded.ignored
    assert_same(target, source, has_mask_token=True)


# --- what does not fit ----------------------------------------------------------------------------


def refused(module: nn.Module, content: dict[Any, Any]) -> str:
    """The one line; the module is as before."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_published_weights(module, content)
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


LITE = {"dim": 8, "ratio": 4}
ADVICE = {
    "lite into full": (
        dstformer,
        lambda: published.motionbert(frames=FRAMES, **LITE),
        "pass backbone.dim=8 backbone.mlp_ratio=4",
    ),
    "full into lite": (
        partial(dstformer, dim=8, mlp_ratio=4.0),
        _motionbert,
        "pass backbone.dim=16 backbone.mlp_ratio=2",
    ),
    "other joints": (
        dstformer,
        lambda: published.motionbert(frames=FRAMES, joints=17),
        "pass the pose= that has 17 joints",
    ),
    "deeper": (
        dstformer,
        lambda: published.motionbert(frames=FRAMES, depth=3),
        "pass backbone.depth=3",
    ),
    "other tokens": (
        dstformer,
        lambda: published.motionbert(frames=FRAMES, rep_dim=6),
        "pass backbone.rep_dim=6",
    ),
    "MAMP into DSTformer": (dstformer, published.mamp, "to Transformer, pass backbone=transformer"),
    "MotionBERT into Transformer": (
        transformer,
        _motionbert,
        "to DSTformer, pass backbone=dstformer",
    ),
    "STTFormer into Transformer": (
        transformer,
        published.sttformer,
        "to STTFormer, pass backbone=sttformer",
    ),
    "MAMP of another depth": (
        transformer,
        lambda: published.mamp(dim=8, depth=1),
        "pass backbone.dim=8 backbone.depth=1",
    ),
    "MAMP of other patches": (
        partial(transformer, patch_frames=2),
        published.mamp,
        "pass backbone.patch_frames=4",
    ),
    "STTFormer of other heads": (
        partial(sttformer, heads=3),
        published.sttformer,
        "pass backbone.heads=2",
    ),
    "STTFormer of other slots": (
        sttformer,
        lambda: published.sttformer(slots=30),
        "pass the backbone= that it was trained with",
    ),
    "a head into a backbone": (dstformer, published.action_head, "has such names"),
    "nothing": (dstformer, dict, "has such names"),
}


@pytest.mark.parametrize("case", ADVICE)
def test_weights_of_another_model(case):
    build, weights, advice = ADVICE[case]
    line = refused(build(), {"model": prefixed("module.", weights())})
    assert line.startswith("the weights do not fit this ")
    assert line.endswith(advice)


@pytest.mark.parametrize("fault", ["missing", "unexpected", "of another shape"])
@pytest.mark.parametrize("name", FORMATS)
def test_single_wrong_tensor_is_reported(name, fault):
    file = FORMATS[name]
    weights = file.weights()
    wrong = "norm.bias" if "norm.bias" in weights else "blocks.1.ff_net.1.bias"
    if fault == "missing":
        del weights[wrong]
    elif fault == "unexpected":
        wrong += "2"
        weights[wrong] = torch.zeros(1)
    else:
        weights[wrong] = torch.zeros(5)
    line = refused(file.build(), content_of(file, weights))
    assert f"1 {fault} ({wrong}" in line


def test_mismatched_head_is_reported():
    head = ActionHead(12, JOINTS, num_classes=4, hidden=7)
    line = refused(head, {"model": prefixed("module.head.", published.action_head())})
    assert "fc2.bias [3] for [4]" in line
    assert line.endswith("pass the head= that it was trained with")


STRANGE = {
    "NaN": torch.full((16,), float("nan")),
    "infinity": torch.full((16,), float("inf")),
    "complex numbers": torch.zeros(16, dtype=torch.complex64),
    "sparse": torch.zeros(16).to_sparse(),
    "no numbers": torch.empty(16, device="meta"),
    "one number": torch.tensor(0.5),
    "too many axes": torch.zeros(1, 1, 1, 1, 16),
    "an empty tensor": torch.zeros(0),
    "text": "norm",
    "an array of text": np.array(["a"] * 16),
    "a list": [0.0] * 16,
    "None": None,
}


@pytest.mark.parametrize(
    "name", ["norm.bias", "temp_embed", "pos_embed", "blocks_st.0.mlp_s.fc1.weight"]
)
@pytest.mark.parametrize("kind", STRANGE)
def test_invalid_values_are_refused(kind, name):
    line = refused(dstformer(), {"model": {**_motionbert(), name: STRANGE[kind]}})
    assert name in line
    if kind in ("NaN", "infinity") and name == "norm.bias":
        assert line == "the weights contain NaN or infinity (norm.bias)"


@pytest.mark.parametrize("shape", [(2, 8, 1, 16), (1, 0, 1, 16), (1, 8, 2, 16), (1, 8, 16)])
def test_invalid_temporal_embeddings_are_refused(shape):
    line = refused(dstformer(), {**_motionbert(), "temp_embed": torch.zeros(shape)})
    assert f"temp_embed {list(shape)} for [1, 12, 1, 16]" in line
