import numpy as np
import pytest
import torch
from torch import nn

from maskclr_pl.data.dataset import collate
from maskclr_pl.heads import EmbeddingHead
from maskclr_pl.losses.contrastive import supervised_contrast, supervised_contrastive_loss
from maskclr_pl.methods import OneShot
from maskclr_pl.methods.protocols.one_shot import nearest_exemplar
from maskclr_pl.types import InputError
from tests.helpers.protocol_tools import CHAIN, Noisy, shared, toy_data, toy_store, trainer


def test_scores_equal_a_loop():
    rng = np.random.default_rng(0)
    query, exemplars = rng.normal(size=(5, 4)), rng.normal(size=(6, 4))
    label = np.array([7, 2, 2, 5, 7, 0])
    actual = nearest_exemplar(*map(torch.from_numpy, (query, exemplars, label)), 9)
    for i, q in enumerate(query):
        for k in range(9):
            cosines = [
                float(q @ e) / float(np.linalg.norm(q) * np.linalg.norm(e))
                for e, y in zip(exemplars, label, strict=True)
                if y == k
            ]
            # float32 products of unit vectors
            assert actual[i, k].item() == pytest.approx(max(cosines, default=-2.0), abs=1e-6)


def test_supervised_contrast_of_single_rows():
    """Rows of two views are the rows of one set; a class with one row is no anchor."""
    rows, label = torch.randn(8, 5), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    both = supervised_contrast(rows[:4], rows[4:], label[:4], 0.1, 0.07)
    torch.testing.assert_close(supervised_contrastive_loss(rows, label, 0.1, 0.07), both)
    lonely = torch.cat((rows, torch.randn(1, 5))), torch.cat((label, torch.tensor([9])))
    unit = nn.functional.normalize(lonely[0], dim=1)
    log_p = ((unit @ unit.T / 0.1) - torch.eye(9) * 1e9).log_softmax(1)
    expected = -sum(log_p[i, (i + 4) % 8] for i in range(8)) / 8
    torch.testing.assert_close(supervised_contrastive_loss(*lonely, 0.1), expected)


def test_supervised_contrast_without_anchors_is_zero():
    rows = torch.randn(3, 5, requires_grad=True)
    loss = supervised_contrastive_loss(rows, torch.arange(3), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def names(classes, rows):
    return [f"c{i:02d}" for i in range(60) if i % 6 in classes and i // 6 in rows]


@pytest.fixture
def store(tmp_path):
    """Classes a to d are auxiliary; e and f are new, their first clips the exemplars."""
    return toy_store(
        tmp_path,
        clips=60,
        classes=6,
        train=names(range(4), range(10)),
        exemplars=names((4, 5), [0]),
        test=names((4, 5), range(1, 9)),
        late=names((4, 5), [9]),
        mixed=names((4, 5), [1]) + names((0,), [9]),
        half=names((4,), [0]),
        overlap=names((4, 5), [0, 1]),
    )


ONE_SHOT = {"exemplar_split": "exemplars", "val_fraction": 0, "batch_size": 8}


def oneshot(dropout=0.5):
    torch.manual_seed(0)
    head = EmbeddingHead(Noisy.dim, len(CHAIN), 16, dropout)
    return OneShot(Noisy(), head, num_classes=6, **shared(lr=0.01))


def test_novel_classes_are_recognized(store):
    """After training on others; nothing is validated, the checkpoint has the exemplars."""
    balanced = {"classes": 4, "samples": 2}
    method, data = oneshot(0.0), toy_data(store, balanced=balanced, **ONE_SHOT)
    run = trainer(10)
    run.fit(method, data)
    [metrics] = run.test(method, data, verbose=False)
    assert metrics["test/top1"] >= 90  # chance is 50; the new hands are between those seen
    assert not any(name.startswith("val/") for name in run.callback_metrics)
    again = oneshot(0.0)
    again.load_state_dict(method.state_dict())
    assert again.bank.label.tolist() == [4, 5]


def test_exemplars_and_clips_are_embedded_in_eval_mode(store):
    """In the released code dropout was active: the same clip then has many embeddings."""
    method, data = oneshot(), toy_data(store, **ONE_SHOT)
    run = trainer(1)
    run.fit(method, data)
    assert method.training
    method.eval()
    for i, kept in enumerate(method.bank.features):
        batch = collate([data.exemplars[i]])
        torch.testing.assert_close(kept, method.embed_clips(batch["clip"], batch)[0])
    first = run.test(method, data, verbose=False), method.predictions["logits"]
    again = run.test(method, data, verbose=False), method.predictions["logits"]
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])


def test_training_step_computes_the_published_loss(store):
    method, data = oneshot(0.0), toy_data(store, **ONE_SHOT)
    batch = collate([data.train[i] for i in range(8)])
    method.log_dict = lambda *_, **__: None
    actual = method.training_step(batch, 0)
    rows = actual["embedding"]
    assert not rows.requires_grad
    # published: temperature 0.1 with base temperature 0.07
    expected = supervised_contrastive_loss(rows, batch["label"], 0.1) / 0.7
    torch.testing.assert_close(actual["loss"], expected)


@pytest.mark.parametrize(
    ("splits", "why"),
    [
        ({"test_split": "mixed"}, r"'train' and 'mixed' share 1 clips"),
        ({"exemplar_split": "half"}, r"1 classes of the test clips have no exemplar, .* 'f'"),
        ({"exemplar_split": "overlap"}, r"'overlap' and 'test' share 2 clips"),
        ({"exemplar_split": "gone"}, r"no split 'gone'"),
        (
            {"train_split": "test", "test_split": "late"},
            r"2 classes of the exemplars or test clips also occur in training, for example 'e'",
        ),
    ],
)
def test_unsuitable_splits_are_refused(store, splits, why):
    with pytest.raises(InputError, match=why):
        toy_data(store, **{**ONE_SHOT, **splits})


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"base_temperature": -1.0}])
def test_invalid_arguments_are_refused(options):
    with pytest.raises(ValueError, match="positive"):
        OneShot(Noisy(), nn.Identity(), 6, **options, **shared())
