"""A run continued from any of its checkpoints sees the clips, draws and masks that are left."""

import os
import shutil
import signal
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from maskclr_pl.callbacks import CheckpointOnSignal
from maskclr_pl.signals import Terminated
from tests.helpers.commands import SMALL, in_process
from tests.helpers.protocol_tools import Recorder, toy_data, toy_store
from tests.helpers.protocol_tools import trainer as make_trainer

pytestmark = pytest.mark.slow


def fit(store, folder, start=None, **options):
    data_options = {key: options.pop(key) for key in ("num_workers", "balanced") if key in options}
    every = {"save_top_k": -1}
    callbacks = [
        ModelCheckpoint(folder, "{step}", every_n_train_steps=1, **every),
        ModelCheckpoint(folder, "{epoch}", save_on_train_epoch_end=True, **every),
        # after a validation; the mode tells the states of the two apart
        ModelCheckpoint(folder, "val{step}", save_on_train_epoch_end=False, mode="max", **every),
    ]
    if start is not None:
        callbacks = []
    callbacks = options.pop("callbacks", callbacks)
    options = {"enable_checkpointing": bool(callbacks), "callbacks": [*callbacks], **options}
    method = Recorder()
    data = toy_data(store, batch_size=3, seed=2, **data_options)
    make_trainer(3, default_root_dir=folder, **options).fit(method, data, ckpt_path=start)
    return method.seen


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (0, {}),
        (0, {"balanced": {"classes": 3, "samples": 1}}),
        (0, {"limit_train_batches": 4}),
        (0, {"val_check_interval": 3}),
        (2, {}),
    ],
    ids=["shuffled", "balanced", "limited", "validated in mid-epoch", "workers"],
)
def test_from_every_checkpoint(tmp_path, workers, options):
    """Kind: a continued run that repeats clips: those of epoch 0, or of the start of its epoch."""
    store = toy_store(tmp_path)
    whole = fit(store, tmp_path / "whole", num_workers=workers, **options)
    batches = 4 if "limit_train_batches" in options else 6
    assert [seen[:2] for seen in whole] == [(e, b) for e in range(3) for b in range(batches)]
    files = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(files) >= 3 * batches + 3
    if workers:  # processes take time to start
        files = [f for f in files if f.stem in ("step=8", "step=12", "epoch=0")]
        assert len(files) == 3
    for file in files:
        content = torch.load(file, weights_only=True)
        left = whole[content["global_step"] :]
        if not left or (content["global_step"] > batches + 2 and not workers):
            continue  # later epochs are like the first two
        assert fit(store, tmp_path, file, num_workers=workers, **options) == left, file.stem


class Signal(L.Callback):
    """Sends this process a signal in a batch of the training or of the validation."""

    def __init__(self, number: int, step: int, validating: bool = False):
        self.number, self.step, self.validating = number, step, validating

    def _send(self, trainer: L.Trainer, validating: bool) -> None:
        if trainer.global_step == self.step and validating == self.validating:
            self.step = -1
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, *_):
        self._send(trainer, False)

    def on_validation_batch_start(self, trainer, *_):
        self._send(trainer, True)


@pytest.mark.parametrize(
    ("number", "step", "validating"),
    [
        (signal.SIGTERM, 7, False),
        (signal.SIGUSR1, 7, False),
        (signal.SIGUSR1, 6, True),
    ],
    ids=["SIGTERM", "SIGUSR1", "SIGUSR1 in the validation"],
)
def test_from_the_checkpoint_of_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: int, validating: bool
) -> None:
    """Kind: a checkpoint amid a step, under a name that no resume takes, or none at all.

    Under Slurm, the job is queued again.
    """
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    store, before = toy_store(tmp_path), signal.getsignal(signal.SIGUSR1)
    whole = fit(store, tmp_path / "whole")
    sent = Signal(number, step, validating), CheckpointOnSignal(tmp_path)
    if number == signal.SIGTERM:
        with pytest.raises(SystemExit) as end:
            fit(store, tmp_path, callbacks=sent)
        assert isinstance(end.value.__context__, Terminated)
        assert not (tmp_path / "asked").exists()
    else:
        assert fit(store, tmp_path, callbacks=sent) == whole  # it goes on
        assert (tmp_path / "asked").read_text() == "requeue 42\n"
    assert signal.getsignal(signal.SIGUSR1) == before
    last = tmp_path / "last.ckpt"
    written = step + (not validating)
    assert torch.load(last, weights_only=True)["global_step"] == written
    assert fit(store, tmp_path, last) == whole[written:]


@pytest.mark.recipes
def test_weights_of_a_run_continued_in_mid_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: as above; with masks, which draw from the generator that is kept with the run."""
    args = ["source.clips=64", "trainer.max_epochs=2", "data.batch_size=12", *SMALL]
    args += ["data.num_workers=2", "monitor_split=last", "masking.start_epoch=1", "optim.lr=0.01"]
    args += ["callbacks.last.every_n_epochs=null", "+callbacks.last.every_n_train_steps=5"]
    in_process("train", *args, "output_dir=whole", cwd=tmp_path, capsys=capsys)
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    last, best = (tmp_path / f"part/checkpoints/{name}.ckpt" for name in ("last", "best"))
    step = torch.load(last, weights_only=True)["global_step"]
    expected = torch.load(best, weights_only=True)
    batches = expected["global_step"] // 2
    assert step < expected["global_step"]
    assert step % batches, "in the middle of an epoch"
    best.unlink()
    in_process("train", "resume=part", cwd=tmp_path, capsys=capsys)
    continued = torch.load(best, weights_only=True)
    assert continued["global_step"] == expected["global_step"]
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(continued["state_dict"][name], value, rtol=0, atol=0, msg=name)
