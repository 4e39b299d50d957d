from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskclr_pl.backbones.layers import frozen_batch_stats
from maskclr_pl.checkpoint import load_published_weights
from maskclr_pl.heads import ActionHead, EmbeddingHead, pool_persons

DIM, JOINTS, CLASSES, HIDDEN = 4, 3, 5, 7
CLIP_INDEX = torch.tensor([0, 0, 2, 3, 3])  # clip 1 has nobody


def head(embedding: str = "hidden", dropout: float = 0.0) -> ActionHead:
    torch.manual_seed(0)
    return ActionHead(DIM, JOINTS, CLASSES, HIDDEN, dropout, embedding)


def tokens(n: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(n, 6, JOINTS, DIM, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(0, 99))
def test_pool_persons_against_a_loop(clip_indices, seed):
    vectors = torch.randn(len(clip_indices), 3, generator=torch.Generator().manual_seed(seed))
    pooled = pool_persons(vectors, torch.tensor(clip_indices, dtype=torch.int64), 5)
    for clip in range(5):
        mine = [
            vectors[i].double().numpy()
            for i, clip_index in enumerate(clip_indices)
            if clip_index == clip
        ]
        expected = np.mean(mine, axis=0) if mine else np.zeros(3)
        np.testing.assert_allclose(pooled[clip], expected, atol=1e-6)  # float32 mean


@pytest.mark.parametrize(("embedding", "width"), [("pooled", 12), ("fc1", 7), ("hidden", 7)])
def test_shapes_and_embeddings(embedding, width):
    model = head(embedding).eval()
    prediction = model(tokens(), CLIP_INDEX, 4)
    assert prediction.logits.shape == (4, CLASSES)
    assert prediction.embedding.shape == (4, width)
    assert prediction.importance is None
    # the logits do not depend on which features the contrast reads
    torch.testing.assert_close(prediction.logits, head().eval()(tokens(), CLIP_INDEX, 4).logits)


def test_embeddings_are_stages_of_the_same_path():
    pooled, fc1, hidden = (
        head(name).eval()(tokens(), CLIP_INDEX, 4).embedding for name in ("pooled", "fc1", "hidden")
    )
    model = head().eval()
    expected = tokens().double().mean(1).flatten(1)  # joint-major
    np.testing.assert_allclose(pooled[0].numpy(), expected[:2].mean(0).numpy(), atol=1e-6)
    assert not pooled[1].any()
    torch.testing.assert_close(fc1, model.fc1(pooled))
    torch.testing.assert_close(hidden, model.bn(fc1).relu())


def test_embedding_head_gives_unit_vectors():
    model = EmbeddingHead(DIM, JOINTS, 9).eval()
    vectors = model(tokens(), CLIP_INDEX, 4)
    assert vectors.shape == (4, 9)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))


def test_order_of_persons_does_not_matter():
    model, x = head().eval(), tokens()
    order = [4, 1, 2, 0, 3]
    torch.testing.assert_close(
        model(x[order], CLIP_INDEX[order], 4).logits,
        model(x, CLIP_INDEX, 4).logits,
        rtol=1e-5,
        atol=1e-6,
    )


def test_empty_batch_gives_finite_logits():
    for training in (False, True):
        model = head().train(training)
        prediction = model(tokens()[:0], CLIP_INDEX[:0], 4)
        assert prediction.logits.shape == (4, CLASSES)
        assert prediction.logits.isfinite().all()
        prediction.logits.sum().backward()


@pytest.mark.parametrize("update", [False, True])
def test_frozen_batch_stats_keeps_running_statistics(update):
    model = head().train()
    before = {k: v.clone() for k, v in model.bn.state_dict().items()}
    with nullcontext() if update else frozen_batch_stats(model):
        out = model(tokens(), CLIP_INDEX, 4)
    same = {k: torch.equal(v, before[k]) for k, v in model.bn.state_dict().items()}
    changes = {"running_mean": update, "running_var": update, "num_batches_tracked": update}
    assert same == {k: not changes.get(k, False) for k in before}
    # the output is normalized with the statistics of the batch either way
    expected = head().train()(tokens(), CLIP_INDEX, 4)
    torch.testing.assert_close(out.logits, expected.logits, rtol=1e-5, atol=1e-6)
    out.logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_eval_uses_running_statistics_while_frozen():
    model = head().train()
    model(tokens(), CLIP_INDEX, 4)
    model.eval()
    x = tokens(seed=2)
    first = model(x, CLIP_INDEX, 4).logits
    with frozen_batch_stats(model):
        assert torch.equal(model(x, CLIP_INDEX, 4).logits, first)
    torch.testing.assert_close(model(x[:1], CLIP_INDEX[:1], 1).logits.shape, (1, CLASSES))


def test_dropout_only_in_training():
    model = head(dropout=0.5)
    assert not torch.equal(*(model.train()(tokens(), CLIP_INDEX, 4).logits for _ in range(2)))
    assert torch.equal(*(model.eval()(tokens(), CLIP_INDEX, 4).logits for _ in range(2)))


def test_bf16_autocast():
    model = head().train()
    with torch.autocast("cpu", dtype=torch.bfloat16), frozen_batch_stats(model):
        prediction = model(tokens().bfloat16(), CLIP_INDEX, 4)
    prediction.logits.float().sum().backward()
    assert prediction.logits.isfinite().all()


def test_unknown_embedding_is_refused():
    with pytest.raises((ValueError, TypeError)):
        head("logits")


@pytest.mark.parametrize("prefix", ["", "module.head.", "module.model.head.", "head."])
def test_published_head_weights(prefix):
    source = head()
    weights = {prefix + k: v for k, v in source.state_dict().items()}
    if prefix:
        weights[prefix.replace("head.", "backbone.") + "norm.bias"] = torch.zeros(4)
    torch.manual_seed(9)
    target = ActionHead(DIM, JOINTS, CLASSES, HIDDEN)
    load_published_weights(target, {"model": weights})
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())
