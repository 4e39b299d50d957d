"""How many joints a model attends to, against loops written from the definition."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskclr_pl.analysis.attention import (
    activated_joints,
    clip_attention,
    importance_source,
    red_joints,
    write_attention,
)
from maskclr_pl.backbones import Backbone, DSTformer, STTFormer, Transformer
from maskclr_pl.methods import KNN
from maskclr_pl.types import Batch, Features, InputError
from tests.helpers.protocol_tools import CHAIN, Coordinates, shared

ROUNDING = 1e-5  # float32 sums of at most 25 shares


def importances(n: int, frames: int, joints: int, seed: int) -> Tensor:
    """As a backbone gives it: >= 0, each sequence sums to 1."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.rand(n, frames, joints, generator=rng).pow(4)
    return values / values.sum((1, 2), keepdim=True)


def effective(sequence: list[list[float]]) -> float:
    """exp of the entropy of the shares of the joints, for one sequence (T, V)."""
    received = [sum(frame[v] for frame in sequence) for v in range(len(sequence[0]))]
    shares = [one / sum(received) for one in received]
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 25), st.integers(0, 999))
def test_activated_joints_match_a_loop(n, frames, joints, seed):
    x = importances(n, frames, joints, seed)
    result = activated_joints(x)
    assert result.tolist() == pytest.approx([effective(one) for one in x.tolist()], rel=ROUNDING)
    assert (result > 1 - ROUNDING).all()
    assert (result < joints * (1 + ROUNDING)).all()


@given(st.integers(2, 25), st.integers(0, 999), st.floats(1e-6, 1e6))
def test_activated_joints_are_invariant_to_scale_and_order(joints, seed, scale):
    x = importances(1, 4, joints, seed)
    rng = torch.Generator().manual_seed(seed)
    mixed = x[:, torch.randperm(4, generator=rng)][..., torch.randperm(joints, generator=rng)]
    same = activated_joints(torch.cat((x, mixed, x * scale)))
    assert same.tolist() == pytest.approx(same[:1].tolist() * 3, rel=ROUNDING)


@pytest.mark.parametrize("joints", [1, 5, 17, 25])
def test_limits_of_activated_joints(joints):
    uniform, single = torch.full((1, 3, joints), 0.1), torch.zeros(1, 3, joints)
    single[:, 1, 0] = 0.7
    assert activated_joints(uniform).item() == pytest.approx(joints, rel=ROUNDING)
    assert activated_joints(single).item() == pytest.approx(1, rel=ROUNDING)
    assert activated_joints(torch.zeros(1, 3, joints)).item() == 0
    for k in range(1, joints + 1):  # k joints share all of it, each in a frame of its own
        part = torch.zeros(1, joints, joints)
        part[:, range(k), range(k)] = 2.0
        assert activated_joints(part).item() == pytest.approx(k, rel=ROUNDING)


def test_red_joints_match_a_loop():
    x = importances(5, 4, 6, 0)
    x[3] = 0
    clip_index = torch.tensor([0, 0, 2, 2, 3])
    result = red_joints(x, clip_index, batch_size=4)
    for n, one in enumerate(x.tolist()):
        clip = [
            value
            for m in range(5)
            if clip_index[m] == clip_index[n]
            for f in x[m].tolist()
            for value in f
        ]
        third = max(clip) / 3
        red = [sum(value >= third and value > 0 for value in frame) for frame in one]
        assert result[n].item() == pytest.approx(sum(red) / 4)
    assert result[3] == 0
    assert 0 < result[0] < 6


class AttentionStub(Backbone):
    """Attends to joint v of frame t by its first coordinate."""

    stride, dim = 1, 3

    def __init__(self):
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(3), nn.Dropout(0.5)

    def forward(self, x, *, mask=None, with_importance=False):
        values = self.dropout(x[..., 0].abs())
        return Features(x, values / values.sum((1, 2), keepdim=True) if with_importance else None)


def knn(backbone: Backbone, **options) -> KNN:
    return KNN(backbone=backbone, num_classes=2, **shared(), **options)


def batch_of(present: list[list[bool]], seed: int = 0) -> Batch:
    there = torch.tensor(present)
    clip = torch.rand(*there.shape, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
    clip *= there[..., None, None, None]
    return {
        "clip": clip,
        "present": there,
        "sequence": there.flatten().nonzero().squeeze(1),
        "frame": torch.arange(4).expand(len(there), 4),
        "label": torch.zeros(len(there), dtype=torch.long),
        "index": torch.arange(len(there)),
    }


@pytest.mark.parametrize("persons", ["packed", "padded"])
def test_clip_attention_matches_a_loop(persons):
    """One or two persons in any place; a clip without any is left out; absent ones never count."""
    present = [[True, True], [False, False], [False, True], [True, False]]
    batches = [batch_of(present), batch_of(present[::-1], seed=1)]
    method = knn(AttentionStub(), persons=persons)
    method.train()
    state = torch.get_rng_state()
    result = clip_attention(method, batches)
    assert method.training
    assert torch.equal(torch.get_rng_state(), state), "dropout must be off"
    activated, share = [], []
    for batch in batches:
        for clip, there in zip(batch["clip"], batch["present"], strict=True):
            people = [person[..., 0] / person[..., 0].sum() for person in clip[there]]
            if people:
                mean = sum(effective(one.tolist()) for one in people) / len(people)
                activated.append(mean)
                share.append(sum(one.sum(0) for one in people) / len(people))
    assert result.activated.tolist() == pytest.approx(activated, rel=ROUNDING)
    assert len(result.red) == len(activated) == 6
    torch.testing.assert_close(result.share, torch.stack(share))
    torch.testing.assert_close(result.share.sum(1), torch.ones(6))


def test_missing_attention_and_empty_clips_are_refused():
    with pytest.raises(InputError, match=r"^Coordinates has no attention to read; .*dstfor"):
        clip_attention(knn(Coordinates()), [batch_of([[True]])])
    with pytest.raises(InputError, match="no clip shows a person"):
        clip_attention(knn(AttentionStub()), [batch_of([[False]])])


def test_the_file(tmp_path):
    method = knn(AttentionStub())
    result = clip_attention(method, [batch_of([[True, True], [True, False]])])
    values = write_attention(tmp_path, method, result)
    assert json.loads((tmp_path / "attention.json").read_text()) == values
    assert values["activated_joints"] == pytest.approx(result.activated.mean().item(), abs=1e-4)
    spread = (result.activated - result.activated.mean()).square().mean().sqrt().item()
    assert values["activated_joints_std"] == pytest.approx(spread, abs=1e-4)
    assert (values["joints"], values["clips"]) == (3, 2)
    assert tuple(values["share"]) == CHAIN.joints
    assert sum(values["share"].values()) == pytest.approx(1, abs=1e-5)
    assert "entropy" in values["definition"]


def test_importance_source_names_layers():
    small = {"dim": 8, "depth": 1, "heads": 2, "joints": 3}
    assert importance_source(DSTformer(**small, rep_dim=8)) == "DSTformer, st_spatial, last layer"
    both = {"importance": ("st_spatial", "ts_spatial"), "importance_layers": "all"}
    told = importance_source(DSTformer(**small, rep_dim=8, **both))
    assert told == "DSTformer, st_spatial, ts_spatial, all layers"
    assert importance_source(Transformer(**small)) == "Transformer, last layer"
    tuples = STTFormer(blocks=[[4, 4, 4]], heads=1, joints=3)
    assert importance_source(tuples) == "STTFormer, contrib, last layer"
