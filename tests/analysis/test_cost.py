import re
import time

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from maskclr_pl.analysis.flops import flops_per_clip
from maskclr_pl.backbones import Transformer
from maskclr_pl.callbacks import CostCallback, EpochTimeEstimate, cost
from maskclr_pl.heads import LinearHead
from maskclr_pl.losses import CrossEntropy, WeightedSum
from maskclr_pl.methods import Method, Recognizer
from tests.helpers.protocol_tools import shared, state_of, toy_data, toy_store, trainer

TINY = {"dim": 8, "depth": 2, "heads": 2, "patch_frames": 2, "max_frames": 4, "joints": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy_data(toy_store(tmp_path_factory.mktemp("cost")))


def recognizer(**options):
    backbone = Transformer(**TINY)
    loss = WeightedSum({"ce": CrossEntropy()})
    return Recognizer(backbone, LinearHead(8, 3), loss, 3, **shared(), **options)


def by_hand(tokens=6, dim=8, depth=2, patch=6, classes=3):
    """Products of the matrices that a transformer consists of, two operations a product."""
    attention = 3 * tokens * dim**2 + 2 * tokens**2 * dim + tokens * dim**2
    block = attention + 2 * tokens * dim * 4 * dim
    return 2 * (tokens * patch * dim + depth * block + dim * classes)


def test_flops_match_a_manual_count(data):
    """Two token steps of three joints; a clip of one person whatever the data hold."""
    assert flops_per_clip(recognizer(), data.test) == by_hand()
    assert flops_per_clip(recognizer(persons="padded"), data.test) == by_hand()


def test_compiled_methods_have_the_same_flops(data):
    method = recognizer()
    method.compile_backbone()
    assert flops_per_clip(method, data.test) == by_hand()


def test_flops_of_a_method_without_classes(data):
    method = Method(Transformer(**TINY), **shared())
    assert flops_per_clip(method, data.test) == by_hand(classes=0)


def test_estimation_has_no_side_effects(data):
    method = recognizer().train()
    before, random = state_of(method), torch.get_rng_state()
    flops_per_clip(method, data.test)
    assert method.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in state_of(method).items())


class Slow(Callback):
    """Steps of a known length, and pauses between epochs."""

    def __init__(self, step, first=0.0, pause=0.0):
        self.step, self.first, self.pause, self.steps = step, first, pause, 0

    def on_train_batch_start(self, *args):
        time.sleep(self.step if self.steps else self.first)
        self.steps += 1

    def on_validation_end(self, *args):
        time.sleep(self.pause)

    def on_train_epoch_end(self, *args):
        time.sleep(self.pause)


def cost_of(data, slow, **options):
    callback = CostCallback(**options)
    trainer(epochs=2, callbacks=[callback, slow]).fit(recognizer(), data)
    return callback.cost


def test_rate_excludes_warmup_and_pauses(data):
    """Neither a slow first step nor pauses count; a step of 5 clips takes 20 ms and its work."""
    steps = len(data.train_dataloader())
    clips = len(data.train)
    result = cost_of(data, Slow(0.02, first=0.8, pause=0.3), warmup_steps=1)
    # at least the sleep; at most what a busy machine may add to it
    longest = 5 / 0.02
    assert 0.2 * longest < result["train/samples_per_second"] < 1.01 * longest
    assert steps == clips // 5
    assert 50 < result["train/peak_memory_mb"] < 100_000


def test_device_is_synchronized_once_per_epoch_end(data, monkeypatch):
    waits = []
    clock = cost._now
    monkeypatch.setattr(cost, "_now", lambda device: waits.append(device) or clock(device))
    cost_of(data, Slow(0.0), warmup_steps=0)
    assert len(data.train_dataloader()) > 2
    assert len(waits) == 2 * 2  # epochs, ends


def test_no_rate_without_timed_steps(data):
    result = cost_of(data, Slow(0.0), warmup_steps=1000)
    assert "train/samples_per_second" not in result
    assert "train/peak_memory_mb" in result


def test_cpu_memory_is_the_resident_size(data):
    held = np.ones(60 * 2**20, np.uint8)
    result = cost_of(data, Slow(0.0))
    assert result["train/peak_memory_mb"] > held.nbytes / 2**20


def test_second_fit_restarts_the_count(data):
    callback = CostCallback(warmup_steps=0)
    for _ in range(2):
        trainer(epochs=1, callbacks=[callback]).fit(recognizer(), data)
        assert callback._steps == len(data.train_dataloader())


def test_negative_warmup_is_refused():
    with pytest.raises(ValueError, match="warmup_steps must not be negative, got -1"):
        CostCallback(warmup_steps=-1)


def time_lines(data, monkeypatch, **options):
    """What is logged about the time of an epoch, and how often the device was waited for."""
    lines, waits = [], []
    clock = cost._now
    monkeypatch.setattr(cost, "_now", lambda device: waits.append(device) or clock(device))
    monkeypatch.setattr(cost.log, "info", lambda text, *args: lines.append(text % args))
    callbacks = [EpochTimeEstimate(**options), Slow(0.2)]
    trainer(epochs=100, max_steps=5, callbacks=callbacks).fit(recognizer(), data)
    return lines, len(waits)


def test_epoch_time_is_logged_after_the_first_steps(data, monkeypatch):
    """Kind: a training whose length is known at its end. A step sleeps 0.2 s."""
    steps = len(data.train_dataloader())
    assert steps == 3
    [line], waits = time_lines(data, monkeypatch, warmup_steps=1, steps=1)
    number = re.match(r"time       about (\d\.\d) s per epoch, ", line)
    assert 0.6 <= float(number[1]) < 1.8  # a busy machine may be slower
    assert waits == 2
    lines, _ = time_lines(data, monkeypatch, warmup_steps=3, steps=20)
    assert lines == []  # the epoch was over before
