"""Losses and weights that are not finite."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from maskclr_pl.backbones.weight_files import non_finite_tensors
from maskclr_pl.callbacks import BestCheckpoint, StopOnNonFinite
from maskclr_pl.types import InputError
from tests.helpers.commands import refused
from tests.helpers.scripted import BATCHES, Scripted, fit


def callbacks(folder: Path) -> list:
    last = ModelCheckpoint(dirpath=folder / "checkpoints", filename="last")
    return [StopOnNonFinite(), BestCheckpoint(folder / "checkpoints"), last]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", [BATCHES + 2, 2 * BATCHES - 1])
def test_training_ends_with_the_first_loss_that_is_not_finite(
    tmp_path: Path, value: float, step: int
) -> None:
    """The kind: training goes on after it went wrong. Kept: the epoch before; named: the clips."""
    module = Scripted([(50.0, 0.5), (60.0, 0.4), (70.0, 0.3)], {step: value})
    with pytest.raises(InputError, match=rf"epoch 2: the loss of step {step + 1} is not finite"):
        fit(module, tmp_path, *callbacks(tmp_path))
    assert module.global_step == step + 1
    first = 2 * (step - BATCHES)
    names = (tmp_path / "not_finite.txt").read_text().split()
    assert names == [f"clip{first}", f"clip{first + 1}"]
    for name in ("best", "last"):
        content = torch.load(tmp_path / f"checkpoints/{name}.ckpt", weights_only=True)
        assert content["epoch"] == 0
        assert not non_finite_tensors(content["state_dict"])


def test_the_first_batch_is_named_where_losses_are_looked_at_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, which must not be waited for in a step; at the latest at the epoch's end."""
    guard = StopOnNonFinite()
    looks = []
    start, look = guard.on_train_start, guard._check_losses
    monkeypatch.setattr(
        guard, "on_train_start", lambda *a: (start(*a), setattr(guard, "_every", 3))
    )
    monkeypatch.setattr(
        guard, "_check_losses", lambda t, m: (looks.append(t.global_step), look(t, m))
    )
    with pytest.raises(InputError, match="the loss of step 2 is not finite"):
        fit(Scripted(losses={1: math.nan}), tmp_path, guard)
    assert looks == [3]
    assert (tmp_path / "not_finite.txt").read_text().split() == ["clip2", "clip3"]


def test_weights_that_are_not_finite_while_the_loss_is(tmp_path: Path) -> None:
    """A last step of an epoch that is too long: no loss tells."""

    class Broken(Scripted):
        def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
            if self.global_step == BATCHES - 1:
                optimizer.param_groups[0]["lr"] = math.inf

    with pytest.raises(
        InputError, match=r"weights are not finite after step 4, such as layer\.\w+;"
    ):
        fit(Broken([(50.0, 0.5)]), tmp_path, *callbacks(tmp_path))
    assert not (tmp_path / "checkpoints").exists()
    assert (tmp_path / "not_finite.txt").read_text().split() == ["clip6", "clip7"]


def test_a_training_that_is_finite_is_left_alone(tmp_path: Path) -> None:
    module = Scripted([(50.0, 0.5)] * 3, dict.fromkeys(range(12), 1e4))
    trainer = fit(module, tmp_path, *callbacks(tmp_path))
    assert trainer.current_epoch == 3
    assert not (tmp_path / "not_finite.txt").exists()


def test_values_of_every_kind() -> None:
    state = {
        "fine": torch.ones(2),
        "count": torch.tensor(3),
        "nothing": torch.empty(0),
        "nan": torch.tensor([1.0, math.nan]),
        "half": torch.tensor([math.inf], dtype=torch.float16),
    }
    assert non_finite_tensors(state) == ["nan", "half"]


@pytest.fixture(scope="module")
def broken(toy_run: Path) -> Path:
    """The toy run with a weight that is not a number."""
    content = torch.load(toy_run / "run/checkpoints/best.ckpt", weights_only=True)
    next(v for v in content["state_dict"].values() if v.is_floating_point())[...] = math.nan
    torch.save(content, toy_run / "nan.ckpt")
    return toy_run


COMMANDS = {
    "evaluate": ["ckpt_path=nan.ckpt", "corruption=none", "device=cpu"],
    "predict": ["ckpt_path=nan.ckpt", "input=poses.pkl", "device=cpu"],
    "export": ["ckpt_path=nan.ckpt"],
    "embed": ["ckpt_path=nan.ckpt", "device=cpu"],
    "train": ["init_from=nan.ckpt", "trainer.max_epochs=1"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_weights_that_are_not_finite_are_refused(
    broken: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kind: every command that loads a checkpoint."""
    line = refused(name, *COMMANDS[name], cwd=broken, capsys=capsys)
    assert "nan.ckpt: 1 of" in line
    assert "not finite" in line


def test_a_loss_that_is_not_a_number_ends_train_with_one_line(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [f"data.path={toy_run / 'poses.h5'}", "data=custom", "data.train_split=train"]
    words = [*data, "data.test_split=test", "data.batch_size=8", "backbone=dstformer_tiny"]
    words += ["head=action_small", "clip.frames=8", "optim.lr=1e38", "optim.optimizer=sgd"]
    words += ["optim.warmup_epochs=0", "trainer.gradient_clip_val=null", "output_dir=run"]
    line = refused("train", *words, "trainer.max_epochs=2", cwd=tmp_path, capsys=capsys)
    assert "not finite" in line
    assert "a lower optim.lr (now 1e+38), or trainer.gradient_clip_val=1.0" in line
    assert not (tmp_path / "run/metrics.json").exists()
    names = set((tmp_path / "run/not_finite.txt").read_text().split())
    assert names <= {f"clip{i:03d}" for i in range(16)}
    assert len(names) == 8
