import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone, DSTformer, STTFormer, Transformer
from maskclr_pl.masking import FrameJointMasking, Masking, MotionAwareMasking, RandomMasking
from maskclr_pl.methods import MaskedAutoencoder, Method
from maskclr_pl.methods.pretrain.decoders import LinearDecoder, STTFormerDecoder, TransformerDecoder
from maskclr_pl.optim import Optim
from maskclr_pl.types import Batch, InputError
from tests.methods.test_recognizer import MIXED, SKELETON, batch_of, make_batch

FRAMES, V = 12, len(SKELETON)


@dataclass(frozen=True)
class Always:
    """Hides the same tokens of every sequence."""

    tokens: tuple[int, ...]
    ratio: float = 0.5
    uses_importance: ClassVar[bool] = False

    def __call__(self, x, importance, stride, generator=None) -> Tensor:
        mask = torch.zeros(len(x), x.shape[1] // stride * x.shape[2], dtype=torch.bool)
        mask[:, list(self.tokens)] = True
        return mask.view(len(x), -1, x.shape[2])

    def num_masked(self, steps: int, joints: int) -> int:
        return len(self.tokens)


def backbone(name: str) -> Backbone:
    if name == "transformer":
        return Transformer(
            dim=16, depth=2, heads=2, patch_frames=4, max_frames=FRAMES, joints=V, drop_path=0.0
        )
    if name == "sttformer":
        return STTFormer(blocks=[(8, 8, 4), (8, 12, 4)], joints=V)
    return DSTformer(dim=16, rep_dim=12, depth=1, heads=2, max_frames=FRAMES, joints=V)


def decoder(name: str, **known: int) -> nn.Module:
    grid = {"frames": FRAMES, "joints": V}
    if name == "transformer":
        return TransformerDecoder(**known, **grid, width=8, depth=1, heads=2)
    if name == "sttformer":
        return STTFormerDecoder(**known, **grid, blocks=[(8, 4), (6, 4)])
    return LinearDecoder(**known)


PAIRS = {
    "transformer": ("transformer", "transformer"),
    "transformer, replaced": ("transformer", "linear"),
    "sttformer": ("sttformer", "sttformer"),
    "dstformer": ("dstformer", "linear"),
}


def autoencoder(
    pair: str = "transformer", masking: Masking | None = None, **options: Any
) -> MaskedAutoencoder:
    torch.manual_seed(0)
    encoding, decoding = PAIRS[pair]
    shared = {"optim": Optim(), "skeleton": SKELETON}
    model = MaskedAutoencoder(
        backbone=backbone(encoding),
        decoder=lambda **known: decoder(decoding, **known),
        augment=nn.Identity(),
        preprocess=nn.Identity(),
        **{**shared, **options},
    )
    model.masking = masking or RandomMasking(ratio=0.5)
    return model


def make(present: list[list[bool]], seed: int = 1, missing: float = 0.0) -> Batch:
    """A batch of clips, in which some joints may be missing."""
    batch = make_batch(present, FRAMES, seed)
    lost = torch.rand(batch["clip"].shape[:4], generator=torch.Generator().manual_seed(seed + 1))
    batch["clip"][lost < missing] = 0
    return batch


@pytest.fixture(autouse=True)
def logged(monkeypatch) -> dict[str, Any]:
    """Values logged by a step, without a trainer."""
    values: dict[str, Any] = {}
    monkeypatch.setattr(Method, "log_dict", lambda self, new, **_: values.update(new))
    return values


def step(model: MaskedAutoencoder, batch: Batch) -> dict[str, Any]:
    model.train()
    torch.manual_seed(5)
    outputs = model.training_step(batch, 0)
    outputs["loss"].backward()
    return outputs


def loss_loops(
    x: np.ndarray,
    mask: np.ndarray,
    prediction: np.ndarray,
    target: str,
    normalize: bool,
    flat: bool,
) -> float:
    """The objective, token by token."""
    stride = x.shape[1] // mask.shape[1]
    errors = []
    for n, s, v in np.argwhere(mask):
        frames = range(s * stride, (s + 1) * stride)
        there = [x[n, t, v, 2] > 0 if flat else x[n, t, v].any() for t in range(x.shape[1])]
        if not all(there[t] for t in frames):
            continue
        points, values = x[n, :, v, : 2 if flat else 3], []
        for t in frames:
            if target == "coordinates":
                values += list(points[t])
            elif t + 1 < len(points) and there[t + 1]:
                values += list(points[t + 1] - points[t])
            else:
                values += [0.0] * points.shape[1]
        wanted = np.array(values)
        if normalize:
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
            wanted = (wanted - mean) / math.sqrt(variance + 1e-6)
        errors.append(np.mean((prediction[n, s, v] - wanted) ** 2))
    return float(np.mean(errors)) if errors else 0.0


@pytest.mark.parametrize("target", ["motion", "coordinates"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("coordinates", ["pixels", "metres"])
@pytest.mark.parametrize("pair", ["transformer", "dstformer"])
@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_loss_against_loops(monkeypatch, logged, target, normalize, coordinates, pair, missing):
    model = autoencoder(pair, target=target, normalize=normalize, coordinates=coordinates)
    batch, rng = make(MIXED, missing=missing), torch.Generator().manual_seed(3)
    flat = coordinates == "pixels"
    values = model.backbone.stride * (2 if flat else 3)
    steps = FRAMES // model.backbone.stride
    prediction = torch.randn(5, steps, V, values, generator=rng)
    monkeypatch.setattr(model, "predict_hidden", lambda x, mask: (prediction, prediction[:, 0, 0]))
    torch.manual_seed(0)
    outputs = model.training_step(batch, 0)
    x, _ = model.pack(batch["clip"], batch)
    expected = loss_loops(
        x.double().numpy(),
        outputs["mask"].numpy(),
        prediction.double().numpy(),
        target,
        normalize,
        flat,
    )
    assert 0 < (outputs["mask"].float().mean()) < 1
    assert outputs["loss"].item() == pytest.approx(expected, rel=1e-4)  # float32 variances
    assert logged["train/loss"] == outputs["loss"]


def test_transformer_does_not_depend_on_masked_patches():
    """Bit-identical tokens and predictions whatever the hidden patches hold."""
    masking = Always((0, 3, 5, 10))
    model = autoencoder(masking=masking)
    x = make([[True]] * 3)["clip"][:, 0]
    mask = masking(x, None, 4)
    other = torch.where(mask.repeat_interleave(4, 1).unsqueeze(-1), torch.randn_like(x), x)
    assert not torch.equal(x, other)
    for one, two in zip(
        model.predict_hidden(x, mask), model.predict_hidden(other, mask), strict=True
    ):
        assert torch.equal(one, two)
    seen = torch.where(mask.repeat_interleave(4, 1).unsqueeze(-1), x, torch.randn_like(x))
    assert not torch.equal(model.predict_hidden(seen, mask)[0], model.predict_hidden(x, mask)[0])


@pytest.mark.parametrize("pair", ["sttformer", "dstformer", "transformer, replaced"])
def test_replaced_tokens_do_not_depend_on_the_masked_input(pair):
    """In eval mode: in training the input BatchNorm of STTFormer has seen all joints."""
    model = autoencoder(pair).eval()
    x = make([[True]] * 3)["clip"][:, 0]
    mask = RandomMasking()(x, None, model.backbone.stride)
    frames = mask.repeat_interleave(model.backbone.stride, 1).unsqueeze(-1)
    other = torch.where(frames, torch.randn_like(x), x)
    assert torch.equal(model.predict_hidden(x, mask)[0], model.predict_hidden(other, mask)[0])


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("masking", [RandomMasking(), MotionAwareMasking(), FrameJointMasking()])
@pytest.mark.parametrize("coordinates", ["pixels", "metres"])
def test_every_parameter_gets_a_gradient(pair, masking, coordinates):
    model = autoencoder(pair, masking, coordinates=coordinates)
    outputs = step(model, make(MIXED))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # the mask token of an encoder that drops tokens is not used
        dropped = pair == "transformer" and name == "backbone.mask_token"
        assert parameter.grad.any() != dropped, name
    assert not outputs["embedding"].requires_grad
    assert outputs["embedding"].shape == (5, model.backbone.dim)


def test_batch_norm_statistics_are_those_of_unmasked_clips():
    """Every fourth step they take one step towards the clips without anything hidden."""
    model, batch = autoencoder("sttformer", masking=RandomMasking()), make(MIXED)
    whole = autoencoder("sttformer", masking=RandomMasking())
    whole.load_state_dict(model.state_dict())
    for index in range(1, 5):
        model.training_step(batch, index)
    x, _ = whole.pack(whole.augment(batch["clip"]), batch)
    whole.encode(x)
    expected = dict(whole.backbone.named_buffers())
    assert any(name.endswith("running_mean") for name in expected)
    for name, actual in model.backbone.named_buffers():
        torch.testing.assert_close(actual, expected[name], msg=name)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("target", ["motion", "coordinates"])
def test_loss_decreases(pair, target):
    """On swinging joints; with one mask, so that it falls for no other reason than learning."""
    model = autoencoder(pair, Always((1, 6, 11)), target=target, normalize=False)
    batch = make(MIXED)
    time, phase = torch.arange(FRAMES).view(-1, 1, 1), torch.rand(4, 2, 1, V, 3) * 6
    batch["clip"] = (1 + (time + phase).sin()) * batch["present"][..., None, None, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(step(model, batch)["loss"].item())
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("pair", PAIRS)
def test_absent_persons_change_nothing(pair):
    grads, losses = [], []
    alone = make([[True]] * 4)
    for persons in (1, 3):
        model = autoencoder(pair)
        clip = torch.zeros(4, persons, *alone["clip"].shape[2:])
        clip[:, :1] = alone["clip"]
        there = torch.tensor([[True] + [False] * (persons - 1)] * 4)
        losses.append(step(model, batch_of(clip, there))["loss"])
        grads.append([parameter.grad for parameter in model.parameters()])
    assert torch.equal(*losses)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("pair", ["transformer", "dstformer"])
def test_padded_persons_do_not_count(pair):
    """The released code counts how well the zeros of absent persons are predicted."""
    batch = make(MIXED)
    packed, padded = (
        step(autoencoder(pair, Always((0, 5)), persons=persons), batch)["loss"].item()
        for persons in ("packed", "padded")
    )
    assert packed == pytest.approx(padded, rel=1e-5)  # the same sums in another order


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("missing", [0.0, 1.0], ids=["nobody", "no joint"])
def test_empty_batch_has_loss_zero(pair, missing):
    model = autoencoder(pair)
    outputs = step(model, make([[bool(missing)]] * 2, missing=missing))
    assert outputs["loss"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_mixed_precision_step():
    for pair in PAIRS:
        batch = make(MIXED)
        expected = step(autoencoder(pair), batch)["loss"].item()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = step(autoencoder(pair), batch)["loss"]
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=0.1)  # eight bits of mantissa


def test_transformer_decoder_restores_token_order():
    made = TransformerDecoder(
        4, stride=4, channels=3, frames=8, joints=3, width=5, depth=0, heads=1
    )
    tokens, keep = torch.randn(2, 2, 4), torch.tensor([[1, 4], [0, 5]])
    values = made(tokens, keep)
    assert values.shape == (2, 2, 3, 12)
    for n in range(2):
        for s in range(2):
            for v in range(3):
                place = (keep[n] == s * 3 + v).nonzero().flatten().tolist()
                x = made.embed(tokens[n, place[0]]) if place else made.mask_token[0, 0]
                x = x + made.temp_embed[0, s, 0] + made.pos_embed[0, 0, v]
                # float32 sums in another order
                torch.testing.assert_close(
                    values[n, s, v], made.pred(made.norm(x)), atol=1e-5, rtol=0
                )


def test_sttformer_decoder_keeps_cells_in_place():
    made = STTFormerDecoder(5, stride=1, channels=3, frames=12, joints=4, blocks=[])
    tokens = torch.randn(2, 12, 4, 5)
    weight, bias = made.pred.weight[:, :, 0, 0], made.pred.bias
    torch.testing.assert_close(made(tokens), tokens @ weight.T + bias, atol=1e-5, rtol=0)
    # the slots of its blocks are those of the backbone: frame of the tuple, then joint
    seen = []
    made.blocks.append(nn.Module())
    made.blocks[0].forward = lambda x: (seen.append(x) or x, None)
    made(tokens)
    expected = tokens.permute(0, 3, 1, 2).reshape(2, 5, 2, 6 * 4)
    assert torch.equal(seen[0], expected)


def test_incompatible_settings_are_refused():
    for build, error in (
        (lambda: autoencoder(target="velocity"), "target"),
        (lambda: autoencoder(coordinates="degrees"), "coordinates"),
        (lambda: TransformerDecoder(8, 4, 3, 8, 2, width=9, heads=2), "multiple of heads"),
        (lambda: STTFormerDecoder(8, 4, 3, 12, 2), "one frame"),
    ):
        # the annotations are checked here, which users do not have
        with pytest.raises((ValueError, TypeError), match=error):
            build()
    with pytest.raises(InputError, match="pass decoder=sttformer, decoder=linear"):
        MaskedAutoencoder(
            backbone=backbone("dstformer"),
            decoder=lambda **known: decoder("transformer", **known),
            optim=Optim(),
            skeleton=SKELETON,
            augment=nn.Identity(),
            preprocess=nn.Identity(),
        )
    with pytest.raises(InputError, match=r"clip\.frames=6 or clip\.frames=12"):
        STTFormerDecoder(8, 1, 3, 8, 2)
    model = autoencoder()
    model.masking = None
    with pytest.raises(ValueError, match="masking"):
        model.training_step(make(MIXED), 0)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("masking", [MotionAwareMasking(), FrameJointMasking()])
def test_training_step_does_not_synchronize_the_device(pair, masking):
    """On the meta device, where values do not exist, whatever needs one fails."""
    model = autoencoder(pair, masking, normalize=True).to("meta").train()
    batch = {key: value.to("meta") for key, value in make(MIXED).items()}
    model.training_step(batch, 0)["loss"].backward()
