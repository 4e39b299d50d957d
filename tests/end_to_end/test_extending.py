"""A backbone, loss, source, corruption, masking, callback and method from outside the package.

Each is a class in one Python file and one YAML file in a configuration folder of the user.
"""

import csv
import json
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.commands import SILENT, in_process

PARTS = '''
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import lightning as L
import numpy as np
import torch
from torch import nn

from maskclr_pl.backbones import Backbone
from maskclr_pl.data import Recording
from maskclr_pl.methods import Recognizer
from maskclr_pl.robustness.corruptions import Corruption
from maskclr_pl.skeletons import load_skeleton
from maskclr_pl.types import Features


class MeanPose(Backbone):
    """Embed each joint in each frame with linear layers."""

    stride = 1
    embedding_names = ("embed", "mask_token")
    block_names = ("blocks",)

    def __init__(self, dim, joints):
        super().__init__()
        self.dim = dim
        self.embed = nn.Linear(3, dim)
        self.blocks = nn.ModuleList([nn.Linear(dim, dim)])
        self.mask_token = nn.Parameter(torch.zeros(dim))

    def forward(self, x, *, mask=None, with_importance=False):
        tokens = self.embed(x) + 0.0 * self.mask_token
        if mask is not None:
            tokens = torch.where(mask.unsqueeze(-1), self.mask_token, tokens)
        for block in self.blocks:
            tokens = self.run(block, tokens)
        uniform = torch.full(x.shape[:3], 1 / (x.shape[1] * x.shape[2]))
        return Features(tokens, uniform if with_importance else None)


class Confidence(nn.Module):
    uses_masked = False

    def forward(self, standard, masked, label):
        return -standard.logits.float().softmax(-1).amax(-1).mean()


class TextSource:
    """One file per recording: the label and a seed."""

    splits = {}
    class_names = ("left", "right")
    notes = ()
    units = "pixels"
    parallel = False

    def __init__(self, path):
        self.files = sorted(Path(path).glob("*.txt"))
        self.skeleton = load_skeleton("coco17")
        self.hash = "0" * 64

    def __len__(self):
        return len(self.files)

    def name(self, index):
        return self.files[index].stem

    def __getitem__(self, index):
        label, seed = map(int, self.files[index].read_text().split())
        rng = np.random.default_rng(seed)
        pose = rng.uniform(100, 200, (1, 12, 17, 2)) + 300 * label
        score = np.ones((1, 12, 17), np.float32)
        return Recording(self.name(index), label, pose.astype(np.float32), score, (720, 1280))


@dataclass(frozen=True)
class Shift(Corruption):
    unit: ClassVar[str] = "pixels"
    highest: ClassVar[float] = float("inf")
    name = "shift"

    def draw(self, rng, frames, poses):
        return rng.normal(size=2).astype(np.float32)

    def __call__(self, clip, draws, frame, level, poses):
        shifted = clip.clone()
        shifted[..., :2] += level * draws[:, None, None, None]
        return torch.where(clip[..., 2:] > 0, shifted, clip)


@dataclass(frozen=True)
class FirstJoints:
    ratio: float = 0.5
    uses_importance: ClassVar[bool] = False

    def num_masked(self, steps, joints):
        return steps * round(self.ratio * joints)

    def __call__(self, x, importance, stride, generator=None):
        mask = torch.zeros(len(x), x.shape[1] // stride, x.shape[2], dtype=torch.bool)
        mask[..., : round(self.ratio * x.shape[2])] = True
        return mask


class CountEpochs(L.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        with open(Path(trainer.default_root_dir) / "epochs.txt", "a") as file:
            file.write(".")


class Centered(Recognizer):
    """A recognizer whose logits have mean zero."""

    protocol = "full, centered"

    def classify(self, tokens, clip_index, batch_size):
        prediction = super().classify(tokens, clip_index, batch_size)
        logits = prediction.logits
        return prediction._replace(logits=logits - logits.mean(-1, keepdim=True))
'''

FILES = {
    "backbone/mean_pose": "_target_: my_parts.MeanPose\ndim: 16\njoints: ${clip.joints}\n",
    "loss/confident": (
        "defaults: [ce]\nterms:\n  confidence:\n    _target_: my_parts.Confidence\n"
        "weights:\n  confidence: 0.1\n"
    ),
    "source/text": (
        "# @package _global_\nskeleton: coco17\n"
        "source:\n  _target_: my_parts.TextSource\n  path: ${input}\n"
    ),
    "corruption/shift": "shift:\n  _target_: my_parts.Shift\n  levels: [5, 50]\n",
    "masking/first": (
        "_target_: maskclr_pl.callbacks.MaskingCallback\nstart_epoch: 0\nramp_epochs: 0\n"
        "strategy:\n  _target_: my_parts.FirstJoints\n  ratio: 0.5\n"
    ),
    "callbacks/counting": "count:\n  _target_: my_parts.CountEpochs\n",
    "method/centered": (
        "# @package _global_\ndefaults: [recognizer]\nmethod:\n  _target_: my_parts.Centered\n"
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with my_parts.py, the configuration folder my_conf, and recordings."""
    (tmp_path / "my_parts.py").write_text(PARTS)
    for name, text in FILES.items():
        path = tmp_path / "my_conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "raw").mkdir()
    for i in range(24):
        (tmp_path / "raw" / f"clip{i:02d}.txt").write_text(f"{i % 2} {i}")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_parts_from_outside_work_in_every_command(folder: Path) -> None:
    command = partial(in_process, cwd=folder, capsys=SILENT)
    own = ["--config-dir", "my_conf"]
    command("prepare", *own, "source=text", "input=raw", "output=data.h5", "workers=0")
    data = ["data=custom", "data.path=data.h5", "data.train_split=train", "data.test_split=test"]
    parts = ["backbone=mean_pose", "method=centered", "loss=confident", "masking=first"]
    small = ["head=action_small", "clip.frames=8", "data.batch_size=8", "data.num_workers=0"]
    options = ["monitor_split=last", "optim.layer_decay=0.5", "trainer.max_epochs=2"]
    counting = "callbacks=[default,counting]"
    command("train", *own, *data, *parts, *small, *options, counting, "output_dir=run")
    assert (folder / "run/epochs.txt").read_text() == ".."
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert "test/top1" in metrics
    assert any(row["class"] == "left" for row in _table(folder / "run/masked_by_class.csv"))

    trusted = "trusted=[my_parts]"
    command("evaluate", *own, "ckpt_path=run", "corruption=shift", trusted, "device=cpu")
    names = {row["corruption"] for row in _table(folder / "run/robustness.csv")}
    assert "shift" in names
    video = [*own, "source=text", "input=raw", "output=again.h5", "workers=0", "split=none"]
    command("prepare", *video)
    command("predict", "ckpt_path=run", "input=again.h5", trusted, "output_dir=predicted")
    assert list((folder / "predicted").glob("*.json"))
    command("report", "runs=[run]", "kind=table", "output_dir=table")
    [row] = [row for row in _table(folder / "table/table.csv") if row["backbone"] == "MeanPose"]
    assert row["method"].startswith("FirstJoints")
    assert row["protocol"] == "full, centered"


def _table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))
