"""What a GPU would refuse, or would wait for, found without one (see `tests.helpers.foreign`).

Run by `tests/end_to_end/test_foreign_device.py`.
"""

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from torch import nn

from maskclr_pl.callbacks import CollapseCallback, MaskingCallback, StopOnNonFinite
from maskclr_pl.config.paths import config_dir
from maskclr_pl.losses import ClassContrast, CrossEntropy, SupervisedContrast, WeightedSum
from maskclr_pl.masking import (
    AttentionGuidedMasking,
    FrameJointMasking,
    MotionAwareMasking,
    PartMasking,
    RandomMasking,
    TopMasking,
)
from maskclr_pl.methods import KNN
from maskclr_pl.robustness.adversarial import Adversarial
from maskclr_pl.robustness.corruptions import Poses, clip_rng
from maskclr_pl.types import InputError
from tests.helpers import foreign
from tests.helpers.commands import symbolic_sizes
from tests.helpers.step_cases import CLIPS, EVERY, PERSONS, TRANSFORMS, case_of, evaluate, ready
from tests.helpers.step_tools import batch_of


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    """Stand-ins for a trainer are not what the type hints say."""
    with symbolic_sizes():
        yield


def train(method: Any, batch: Any, masking: Any) -> None:
    """A training step as a trainer takes it, with the callbacks that look at it."""
    watching = MaskingCallback(masking), CollapseCallback(), StopOnNonFinite()
    watching[0]._classes = [str(i) for i in range(60)]
    others = [module for name, module in method.named_children() if name != "backbone"]
    method.train()
    optimizer, schedule = method.optim.build(method.backbone, others, 10, 5)
    watching[2].on_train_start(method.trainer, method)
    with foreign.no_waiting():
        outputs = method.training_step(batch, 0)
        optimizer.zero_grad(set_to_none=True)
        outputs["loss"].backward()
        nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for callback in watching:
            callback.on_train_batch_end(method.trainer, method, outputs, batch, 0)
    assert outputs["loss"].device == foreign.device()


@pytest.mark.parametrize(("name", "backbone", "kind"), EVERY)
def test_a_step_never_waits(name: str, backbone: str, kind: str) -> None:
    """Kind: tensors that stay on the CPU, and steps that wait for the device."""
    cfg, source, made, masking = case_of(name, backbone, kind)
    clips = batch_of(cfg, source, PERSONS)
    with foreign.fake_mode():
        method, batch = foreign.moved(made), foreign.moved_batch(clips)
        ready(method, clips, masking, foreign.device())
        if not isinstance(method, KNN):
            train(method, batch, masking)
        with torch.no_grad():
            evaluate(method.eval(), batch)
        assert method.embed(batch).device == foreign.device()


def test_every_masking_and_loss() -> None:
    """Kind: as above."""
    cfg, source, made, attention = case_of("recognizer", "transformer", "3D")
    clips = batch_of(cfg, source, PERSONS)
    parts = cfg.clip.parts
    strategies = [
        *(TopMasking(), RandomMasking(), PartMasking(parts), PartMasking(parts, temperature=inf)),
        *(FrameJointMasking(), MotionAwareMasking(), AttentionGuidedMasking(normalize="zscore")),
    ]
    losses = [SupervisedContrast(), ClassContrast(normalize=False), CrossEntropy("standard")]
    with foreign.fake_mode():
        method, batch = foreign.moved(made), foreign.moved_batch(clips)
        ready(method, clips, attention, foreign.device())
        method.augment = method.preprocess  # shorter
        for method.masking in strategies:
            with foreign.no_waiting():
                method.training_step(batch, 0)
        method.bn_stats, method.persons, method.masking = "both", "padded", attention
        train(method, batch, method.masking)
        method.drop_hidden = True
        for term in losses:
            method.loss = WeightedSum({"one": term})
            train(method, batch, method.masking)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_every_corruption(kind: str) -> None:
    """Kind: as above; between two levels nothing has to be asked of the device."""
    cfg, source, made, _ = case_of("supervised", "transformer", kind)
    clips = batch_of(cfg, source, PERSONS)
    clips["clip"] = clips["clip"] - 0.5
    poses = Poses(source, 2 if kind == "2D" else 3)
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        wanted = hydra.compose("evaluate", ["corruption=poster", "ckpt_path=x"]).corruption
    corruptions = [hydra.utils.instantiate(one) for one in wanted.values()]
    corruptions = [one for one in corruptions if one.skip_reason(poses) is None]
    assert len(corruptions) == (18 if kind == "2D" else 17)
    drawn = {
        one.name: torch.from_numpy(
            np.stack([one.draw(clip_rng(0, 0, one.name, str(i)), 24, poses) for i in range(CLIPS)])
        )
        for one in corruptions
    }
    with foreign.fake_mode():
        method, batch = foreign.moved(made).eval(), foreign.moved_batch(clips)
        frame = batch["frame"]
        for corruption in corruptions:
            draws = foreign.moved_batch(drawn)[corruption.name]
            with foreign.no_waiting():
                for level in corruption.levels:
                    clip = corruption(batch["clip"], draws, frame, level, poses)
            assert clip.device == foreign.device()
        assert method.predict_clips(clip, batch).logits.device == foreign.device()
        with foreign.no_waiting():
            adversarial = Adversarial((0.1,), steps=1)
            adversarial(lambda c, b: method.predict_clips(c, b).logits, batch, 0.1, poses)


def test_lifting_needs_a_token_for_each_frame() -> None:
    with pytest.raises(InputError, match="predicts every frame"):
        case_of("lift", "transformer", "3D")


WAITS: dict[str, Callable[[Any], Any]] = {
    "item": lambda x: x.sum().item(),
    "if": lambda x: bool((x > 0).any()),
    "tolist": lambda x: x.tolist(),
    "to the host": lambda x: x.cpu(),
    "from the host": lambda x: torch.zeros(3).to(x.device),
    "made of numbers": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "list as an index": lambda x: x[:, [0, 2]],
    "index of the host": lambda x: x[:, torch.tensor([0, 2])],
    "mask as an index": lambda x: x[x > 0],
    "mask written to": lambda x: x.__setitem__(x > 0, 1.0),
    "nonzero": lambda x: x.nonzero(),
    "two devices": lambda x: x + torch.ones(4),
    "unique": lambda x: x.unique(),
    "repeats": lambda x: x[0].repeat_interleave((x[0] > 0).long()),
}


@pytest.mark.parametrize("what", WAITS)
def test_what_is_found(what: str) -> None:
    """The harness itself: each of these stops a GPU, or does not run on one."""
    with foreign.fake_mode():
        x = torch.rand(3, 4, device=foreign.device())
        with foreign.no_waiting(), pytest.raises((foreign.WaitsForDeviceError, *foreign.REFUSED)):
            WAITS[what](x)
