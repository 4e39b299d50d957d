"""Run folders as train and evaluate leave them, made up in milliseconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskclr_pl.runs.results import write_predictions, write_table

CLASSES = ["sit down", "stand <up>", "wave & clap"]
LEVELS = (0.1, 0.2)


def run_folder(
    folder: Path,
    right: float = 0.8,
    *,
    seed: int = 0,
    clips: int = 60,
    names: str = "clip",
    classes: list[str] = CLASSES,
    poses: str = "aa",
    evaluated: bool = True,
    **config: Any,
) -> Path:
    """A run that names `right` of the clips correctly: the first ones, which are thus the same for
    runs that are equally good.

    Corrupted clips are those of `joint_occlusion`, at level 0.1 as good as clean, at 0.2 half so.
    """
    folder.mkdir(parents=True)
    label = np.arange(clips) % len(classes)
    count = round(right * clips)
    predicted = np.where(np.arange(clips) < count, label, (label + 1) % len(classes))
    name = np.array([f"{names}{i:03d}" for i in range(clips)])
    write_predictions(folder, name, label, np.eye(len(classes), dtype=np.float32)[predicted])
    top1 = 100 * count / clips
    cost = {"train/seconds": 12.5, "train/samples_per_second": 80.0, "parameters": 35_000}
    metrics = {"test/top1": top1, "test/top5": 100.0, "val/top1": 81.0, **cost}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    _config(folder, seed, len(classes), config)
    _environment(folder, classes, poses)
    epochs = [{"epoch": e, "train/loss_ce": 2 - e / 5, "val/top1": 20.0 * e} for e in range(4)]
    write_table(folder / "metrics.csv", epochs)
    if evaluated:
        _robustness(folder, name, label, predicted == label)
    return folder


def _config(folder: Path, seed: int, classes: int, changes: dict[str, Any]) -> None:
    values = {
        "seed": seed,
        "output_dir": str(folder),
        "monitor_split": "val",
        "source": None,
        "clip": {"classes": classes, "frames": 16},
        "data": {"path": "data/own.h5", "test_split": "test", "seed": seed},
        "loss": {"weights": {"ce": 1.0}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({**values, **changes}))


def _environment(folder: Path, classes: list[str], poses: str) -> None:
    data = {"path": "data/own.h5", "source_sha256": "5" * 64, "poses_sha256": poses}
    values = {
        "command": ["python", "-m", "maskclr_pl.train", f"output_dir={folder.name}"],
        "python": "3.11.7",
        "packages": {"torch": "2.13.0"},
        "device": "cpu",
        "devices": 1,
        "data": {**data, "classes": classes},
    }
    (folder / "environment.json").write_text(json.dumps(values))


def _robustness(folder: Path, name: np.ndarray, label: np.ndarray, clean: np.ndarray) -> None:
    half = clean & (np.arange(len(clean)) % 2 == 0)
    passes = {("clean", 0.0): clean}
    passes |= {
        ("joint_occlusion", level): c for level, c in zip(LEVELS, (clean, half), strict=True)
    }
    rows = [
        {"corruption": c, "level": level, "draw": 0, "top1": 100 * hit.mean(), "top5": 100.0}
        for (c, level), hit in passes.items()
    ]
    rows.insert(1, {**rows[0], "corruption": "joint_occlusion"})
    write_table(folder / "robustness.csv", rows)
    mean = 50 * (clean.mean() + half.mean())
    write_table(
        folder / "robustness_summary.csv",
        [
            {"corruption": "joint_occlusion", "clean": 100 * clean.mean(), "mean": mean}
            | {"auc": 70.0, "retention": 75.0, "worst": 100 * half.mean()}
        ],
    )
    corruption, level = zip(*passes, strict=True)
    np.savez(
        folder / "robustness_clips.npz",
        name=name,
        label=label,
        correct=np.stack(list(passes.values())),
        corruption=np.array(corruption),
        level=np.array(level),
        draw=np.zeros(len(passes), np.int64),
    )
