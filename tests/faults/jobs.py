"""Commands that faults happen to, and what of their files must not depend on faults."""

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

Content = dict[str, str]
"""What a command leaves: name -> content, or a digest of it."""

POSES = ["data=custom", "data.path=poses.h5", "data.train_split=train", "data.test_split=test"]
SHORT = [*POSES, "clip.frames=8", "data.batch_size=8", "trainer.max_epochs=4", "output_dir=run"]
SMALL = ["backbone=dstformer_tiny", "backbone.dim=16", "backbone.rep_dim=16", "backbone.depth=1"]
RECOGNIZER = [*SHORT, *SMALL, "head=action_small", "optim.warmup_epochs=0", "masking.start_epoch=1"]
MAMP = [*SHORT, "method=mamp", "backbone.dim=16", "backbone.depth=1", "backbone.heads=2"]
MAMP += ["method.decoder.width=16", "method.decoder.depth=1", "method.decoder.heads=2"]
AIMCLR = [*SHORT, *SMALL, "method=aimclr", "augment=aimclr_2d", "method.queue_size=24"]
RANKS = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]


@dataclass(frozen=True)
class Job:
    """A command, where it begins, and what of its files must not depend on faults."""

    verb: str
    words: Sequence[str]
    content: Callable[[Path], Content]
    start: Sequence[str] = ()
    """What is there before: `run`, a trained run; `robustness`, with a table."""
    environment: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[int, int, int] = (0, 0, 0)
    """Kills at random moments, kills at operations, full disks."""


def training(folder: Path) -> Content:
    """Weights, logged values by epoch and the record of masks of a run."""
    found: Content = {}
    run = folder / "run"
    for name in ("best", "last"):
        path = run / "checkpoints" / f"{name}.ckpt"
        weights = hashlib.sha256()
        for key, value in torch.load(path, weights_only=True)["state_dict"].items():
            weights.update(key.encode() + value.contiguous().numpy().tobytes())
        found[path.name] = weights.hexdigest()
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key not in ("epoch", "step"):
                    name = f"metrics.csv {row['epoch']} {key}"
                    found[name] = f"{found.get(name, '')} {value}".strip()
    if (run / "masked_by_class.csv").is_file():
        found["masked_by_class.csv"] = (run / "masked_by_class.csv").read_text()
    return found


def files(*names: str) -> Callable[[Path], Content]:
    """Digests of files."""

    def content(folder: Path) -> Content:
        return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}

    return content


JOBS = {
    "train": Job("train", [*RECOGNIZER, "data.num_workers=0"], training, faults=(5, 5, 3)),
    "train, 2 workers": Job(
        "train", [*RECOGNIZER, "data.num_workers=2"], training, faults=(4, 2, 0)
    ),
    "train, 2 ranks": Job(
        "train", [*RECOGNIZER, "data.num_workers=0", *RANKS], training, faults=(3, 0, 0)
    ),
    "train, TMPDIR elsewhere": Job(
        "train",
        [*RECOGNIZER, "data.num_workers=0"],
        training,
        environment={"TMPDIR": "/dev/shm"},
        faults=(2, 2, 0),
    ),
    "mamp": Job("train", [*MAMP, "data.num_workers=0"], training, faults=(3, 1, 0)),
    "mamp, 2 workers": Job("train", [*MAMP, "data.num_workers=2"], training, faults=(2, 0, 0)),
    "aimclr": Job("train", [*AIMCLR, "data.num_workers=0"], training, faults=(2, 1, 0)),
    "aimclr, 2 workers": Job("train", [*AIMCLR, "data.num_workers=2"], training, faults=(2, 0, 0)),
    "resume": Job(
        "train",
        ["resume=run", "trainer.max_epochs=6"],
        training,
        start=("run",),
        faults=(3, 2, 2),
    ),
    "prepare": Job(
        "prepare",
        ["source=pyskl", "input=poses.pkl", "output=new.h5", "skeleton=coco17"],
        files("new.h5"),
        faults=(2, 2, 1),
    ),
    "evaluate": Job(
        "evaluate",
        ["ckpt_path=run", "corruption=poster", "draws=1", "figures=none", "device=cpu"],
        files("run/robustness.csv", "run/robustness_classes.csv", "run/robustness_clips.npz"),
        start=("run", "robustness"),
        faults=(2, 2, 2),
    ),
    "report": Job(
        "report",
        ["runs=[run]", "kind=table", "output_dir=table"],
        files("table/table.csv"),
        start=("run",),
        faults=(1, 2, 1),
    ),
    "predict": Job(
        "predict",
        ["ckpt_path=run", "input=poses.pkl", "output_dir=predicted"],
        files("predicted/predictions.csv", "predicted/predictions.json"),
        start=("run",),
        faults=(1, 1, 1),
    ),
    "embed": Job(
        "embed",
        ["ckpt_path=run", "output=features.h5"],
        files("features.h5"),
        start=("run",),
        faults=(1, 1, 1),
    ),
    "export": Job(
        "export",
        ["ckpt_path=run", "format=torch"],
        lambda folder: {} if list(folder.rglob("*.pt2")) else {"no file": ""},
        start=("run",),
        faults=(0, 1, 1),
    ),
}
