"""Damaged files read like the commands: poses of predict, a store of evaluate, a run folder.

The model is read from a run folder, so that nothing is trained here.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import chdir
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.checkpoint.inheritance import inherit
from maskclr_pl.checkpoint.load import load_run
from maskclr_pl.checkpoint.restore import iterate_batches, restore_data
from maskclr_pl.checkpoint.trained_on import TrainingRecord
from maskclr_pl.checkpoint.transfer import transfer_weights
from maskclr_pl.config.container import to_container
from maskclr_pl.config.paths import config_dir
from maskclr_pl.inference.inputs import ReadOptions, find_inputs
from maskclr_pl.inference.predictor import Predictor
from maskclr_pl.predict import classify, read_videos, write_results
from maskclr_pl.reporting.paper_table import PaperTable
from maskclr_pl.robustness.corruptions import Poses
from maskclr_pl.robustness.runner import measure_robustness
from maskclr_pl.runs.describe import read_run
from maskclr_pl.training.assemble import assemble
from maskclr_pl.training.plan import choose_monitor, plan
from maskclr_pl.training.trainer import build_trainer
from tests.fuzz.samples import Sample, samples

LAST, CONFIG = "checkpoints/last.ckpt", "run/config.yaml"


def command_samples(toy: Path) -> dict[str, list[Sample]]:
    """Return the samples of each command; `toy` is a folder of the fixture `toy_run`."""
    read = samples()
    poses = [*read["poses"], *read["pyskl"], *read["ntu_skeleton"][:1]]
    made = {one.name: one.make for one in poses} | {"arrays": _arrays}
    made["store"] = partial(_copied, toy, ["poses.h5"])
    forms = {
        "evaluate": (_evaluate, "poses.h5"),
        "checkpoint": (_start, f"run/{LAST}"),
        "config": (_resume, CONFIG),
        "report": (_report, CONFIG),
    }
    return {
        "predict": [
            Sample(f"predict {name}", make, None, use=partial(_predict, toy))
            for name, make in made.items()
        ],
        **{
            kind: [Sample(kind, partial(_copied, toy, [name]), None, use=partial(use, toy))]
            for kind, (use, name) in forms.items()
        },
    }


def _arrays(folder: Path) -> None:
    keypoint = np.random.default_rng(0).uniform(9, 500, (2, 6, 17, 2)).astype(np.float32)
    score = np.ones((2, 6, 17), np.float16)
    np.savez(folder / "a.npz", keypoint=keypoint, score=score, frame_size=[720, 1280])


def _copied(toy: Path, names: Sequence[str], folder: Path) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy / name, folder / name)


@cache
def _model(toy: Path) -> tuple[Predictor, dict[str, Any]]:
    method, info = load_run(toy / "run/checkpoints/best.ckpt")
    return Predictor(method, info, torch.device("cpu")), info  # type: ignore[arg-type]


@cache
def _composed(command: str, *words: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose(command, list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg.hydra
    return cfg


def _predict(toy: Path, root: Path, output: Path) -> None:
    predictor, _ = _model(toy)
    predictor.max_missing = 1.0
    cfg = _composed("predict", f"ckpt_path={toy / 'run'}", "input=x", "on_error=skip")
    options = ReadOptions(True, predictor.skeleton, frame_size=(720, 1280))
    folder = root / "poses" if (root / "poses").is_dir() else root
    files = [path for path in find_inputs(str(folder)) if path.name != "labels.csv"]
    results, skipped = read_videos(cfg, predictor, files, options)
    assert all(len(message.splitlines()) == 1 for message in skipped), skipped
    classify(predictor, results, cfg.top)
    probabilities = [p for one in results for item in one.predictions for _, p in item.top]
    assert np.isfinite(probabilities).all()
    write_results(cfg, output, predictor, results, skipped)
    json.loads((output / "predictions.json").read_text(), parse_constant=_no_json)


def _no_json(text: str) -> None:
    raise AssertionError(f"{text} in JSON")


def _evaluate(toy: Path, root: Path, output: Path) -> None:
    predictor, info = _model(toy)
    method = predictor.method
    data = restore_data(info, {"path": str(root / "poses.h5"), "num_workers": 0})
    rows = measure_robustness(
        lambda clip, batch: method.predict_clips(clip, batch).logits,
        iterate_batches(method, data, data.test, torch.device("cpu")),
        data.test.names,
        [],
        Poses(data.store.skeleton, 2),
    ).rows()
    assert all(np.isfinite(row["top1"]) for row in rows)


def _start(toy: Path, root: Path, output: Path) -> None:
    """Load a checkpoint like evaluate and predict, and start another run from it."""
    path, (predictor, _) = root / "run" / LAST, _model(toy)
    method, info = load_run(path)
    loaded = Predictor(method, info, torch.device("cpu"))  # type: ignore[arg-type]
    if loaded.skeleton.joints == predictor.skeleton.joints and loaded.coordinates == "pixels":
        shares = loaded(np.random.default_rng(0).uniform(9, 99, (1, 5, 17, 2)))
        assert np.isfinite(shares).all()
    words = ["data=custom", f"data.path={toy / 'poses.h5'}", "method=finetune"]
    words += ["data.train_split=train", "data.test_split=test"]
    cfg = _composed("train", *words)
    cfg = cfg.copy()
    cfg.init_from = str(path)
    inherit(cfg, frozenset())
    TrainingRecord.read(read_weights(path), str(path))
    transfer_weights(predictor.method, path, to_container(cfg), predictor.class_names)


def _resume(toy: Path, root: Path, output: Path) -> None:
    """Read config.yaml like train resume=, up to the first step."""
    folder = root / "run"
    with chdir(root):
        if folder.is_dir():
            (folder / "checkpoints").symlink_to(toy / "run/checkpoints")
        Path("poses.h5").symlink_to(toy / "poses.h5")
        cfg = _composed("train").copy()
        cfg.resume = "run"
        parts = assemble(cfg, ["resume=run"])
        monitor, _ = choose_monitor(parts.cfg, parts.data)
        trainer = build_trainer(parts.cfg, Path("run"), monitor, logger=False)
        plan(parts.cfg, trainer, parts.method, parts.data, parts.progress)


def _report(toy: Path, root: Path, output: Path) -> None:
    """Read a run folder like report."""
    folder = root / "run"
    for name in ("metrics.json", "predictions.npz", "environment.json"):
        (folder / name).symlink_to(toy / "run" / name)
    PaperTable([read_run(folder)]).markdown()
