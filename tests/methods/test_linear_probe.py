import pytest
import torch

from maskclr_pl.data import Store
from maskclr_pl.data.dataset import collate
from maskclr_pl.methods import LinearProbe
from tests.helpers.protocol_tools import (
    Coordinates,
    Noisy,
    shared,
    state_of,
    toy_data,
    toy_store,
    trainer,
)


def probe(backbone=None, **options):
    torch.manual_seed(0)
    return LinearProbe(backbone or Noisy(), num_classes=3, **shared(optimizer="sgd"), **options)


@pytest.fixture
def store(tmp_path):
    return toy_store(tmp_path)


def test_backbone_is_bit_identical_after_training(store):
    """Its BatchNorm statistics, too, which a backbone in train mode would move."""
    method = probe()
    before, head = state_of(method.backbone), state_of(method.head)
    trainer(3).fit(method, toy_data(store))
    assert {"norm.running_mean", "norm.num_batches_tracked"} <= before.keys()
    for name, value in method.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(method.head[1].weight, head["1.weight"])
    assert all(p.grad is None and not p.requires_grad for p in method.backbone.parameters())


@pytest.mark.parametrize("normalize", [True, False])
def test_separable_features_are_classified(store, normalize):
    method = probe(Coordinates(), normalize=normalize)
    data = toy_data(store)
    run = trainer(60)
    run.fit(method, data)
    assert run.callback_metrics["val/top1"] == 100
    [metrics] = run.test(method, data, verbose=False)
    assert metrics["test/top1"] == 100


def test_precomputed_features_equal_those_of_single_clips(store):
    method, data = probe(), toy_data(store)
    parts = {"train": data.train, "val": data.val}
    trainer(1).fit(method, data)
    for name, part in parts.items():
        clean = part.eval_view()
        assert len(method._features[name]) == len(part)
        for i, kept in enumerate(method._features[name]):
            torch.testing.assert_close(kept, method.embed(collate([clean[i]]))[0])


def test_every_clip_is_read_once(store, monkeypatch):
    data, read = toy_data(store), []
    recording = Store.recording
    monkeypatch.setattr(
        Store, "recording", lambda self, row: read.append(row) or recording(self, row)
    )
    expected = sorted([*data.train.rows, *data.val.rows])
    trainer(4).fit(probe(), data)
    assert sorted(read) == expected


def test_validation_on_features_equals_validation_on_clips(store):
    """The accuracies that choose a checkpoint are those of the clips themselves."""
    method, data = probe(), toy_data(store)
    clean = data.val.eval_view()
    run = trainer(2)
    run.fit(method, data)
    batch = collate([clean[i] for i in range(len(clean))])
    method.eval()
    hits = method.predict_clips(batch["clip"], batch).logits.argmax(1) == batch["label"]
    assert run.callback_metrics["val/top1"] == pytest.approx(100 * hits.float().mean().item())


def test_a_probe_chosen_on_the_test_split_still_tests_on_poses(store):
    """monitor_split=test makes the two parts one object; only the validation goes without poses."""
    method, data = probe(Coordinates()), toy_data(store)
    data.val = data.test
    run = trainer(40)
    run.fit(method, data)
    [metrics] = run.test(method, data, verbose=False)
    assert metrics["test/top1"] == 100


def test_training_works_without_validation_clips(store):
    method, data = probe(Coordinates()), toy_data(store, val_fraction=0)
    run = trainer(2)
    run.fit(method, data)
    assert "val/top1" not in run.callback_metrics


def test_only_the_head_is_in_train_mode():
    method = probe().train()
    assert not any(module.training for module in method.backbone.modules())
    assert all(module.training for module in method.head.modules())
    assert not method.eval().head.training


def test_initial_weights_of_the_linear_layer():
    method = LinearProbe(Coordinates(), 20_000, init_std=0.02, **shared())
    weight = method.head[1].weight
    # 60,000 draws: the standard error of a standard deviation is 0.3 %
    assert weight.std().item() == pytest.approx(0.02, rel=0.015)
    assert not method.head[1].bias.any()
    assert method.head[0].eps == 1e-6
    assert not list(method.head[0].parameters())
