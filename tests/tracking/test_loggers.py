"""W&B and TensorBoard, by reading back what a small training wrote."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.image import imread
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from maskclr_pl.runs.results import read_table, series
from maskclr_pl.tracking.dashboard import build_dashboard
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process, in_subprocess
from tests.helpers.wandb_tools import SHORT, environment, events, offline_runs, stand_in

pytestmark = [pytest.mark.usefixtures("offline"), pytest.mark.slow]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of two runs, and what they printed."""
    place = tmp_path_factory.mktemp("sweep")
    options = ["-m", "seed=0,1", "logger=[wandb,tensorboard]", "logger.wandb.log_model=true"]
    options += ["hydra.sweep.dir=runs", *SHORT]
    printed = in_subprocess("train", *options, cwd=place, **environment(place / "home"))
    return place / "runs", printed


@pytest.fixture
def logged(sweep: tuple[Path, str]) -> tuple[Path, Any]:
    """A run folder, and what W&B has of it."""
    run = sweep[0] / "seed_0"
    return run, offline_runs(run)[0]


def test_each_job_of_a_sweep_is_a_run_of_its_own(sweep):
    folder, printed = sweep
    found = [offline_runs(folder / f"seed_{job}") for job in "01"]
    assert [len(runs) for runs in found] == [1, 1]
    first, second = (runs[0].run for runs in found)
    assert first.run_id != second.run_id
    assert [first.display_name, second.display_name] == ["runs/seed_0", "runs/seed_1"]
    assert first.run_group == second.run_group == "MaskCLR DSTformer synthetic"
    assert first.project == "maskclr_pl"
    assert first.job_type == "full"
    assert list(first.tags) == ["MaskCLR", "DSTformer", "synthetic"]
    lines = [line for line in printed.splitlines() if line.startswith("wandb ")]
    for line, runs in zip(lines, found, strict=True):
        words = shlex.split(line)
        assert words[1:3] == ["wandb", "sync"]
        assert [folder.parent / word for word in words[3:]] == [runs[0].folder]
    assert not (folder.parent / "wandb").exists()


def test_curves_are_those_of_the_table(logged):
    run, written = logged
    rows = read_table(run / "metrics.csv")
    for key in ("train/loss", "train/loss_ce", "val/top1", "masked/nose"):
        epochs, values = series(rows, key)
        assert epochs == [1, 2]
        expected = dict(zip([epoch - 1 for epoch in epochs], values, strict=True))
        assert written.series(key) == pytest.approx(expected, rel=1e-6)  # float32 as text
    for prefix in ("train", "val", "test", "masked"):
        assert written.axes[f"{prefix}/*"] == "epoch"


def test_configuration_and_results(logged):
    run, written = logged
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert {key: value for key, value in written.config.items() if key != "_wandb"} == config
    assert config["logger"]["wandb"]["id"] == written.run.run_id
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test/top1"] >= 0
    assert {key: written.summary[key] for key in metrics} == pytest.approx(metrics)


def test_figures_and_tables(logged):
    run, written = logged
    for path in (run / "figures").glob("*.png"):
        value, [copy] = written.media(f"figures/{path.stem}")
        assert value["_type"] == "images/separated"
        np.testing.assert_array_equal(imread(copy), imread(path))
    assert "figures/masked_joints" in written.summary
    value, [copy] = written.media("tables/masked_joints")
    assert value["_type"] == "table-file"
    table = json.loads(copy.read_text())
    assert table["columns"] == ["joint", "hidden"]
    hidden = written.series("masked/nose").values()
    assert dict(table["data"])["nose"] == pytest.approx(sum(hidden) / 2, rel=1e-6)


def test_the_best_checkpoint_is_an_artifact_when_asked_for(logged):
    _, written = logged
    assert written.artifacts == {f"model-{written.run.run_id}": ["best.ckpt", "config.yaml"]}


@pytest.mark.recipes
def test_a_run_that_was_moved_and_continued_is_the_same(sweep, tmp_path, capsys):
    moved = shutil.copytree(sweep[0] / "seed_1", tmp_path / "moved", symlinks=True)
    printed = in_process(
        "train", "resume=moved", "trainer.max_epochs=3", cwd=tmp_path, capsys=capsys
    )
    before, after = offline_runs(moved)
    assert before.run.run_id == after.run.run_id
    assert after.run.run_group == before.run.run_group
    assert after.run.resume
    assert (set(before.series("train/loss")), set(after.series("train/loss"))) == ({0, 1}, {2})
    [line] = [line for line in printed.splitlines() if line.startswith("wandb ")]
    check_upload(shlex.split(line)[1:], tmp_path, before.run.run_id)


def check_upload(command: list[str], cwd: Path, run: str) -> None:
    """The line that is printed uploads both parts as one run, one after the other."""
    with stand_in() as server:
        host = f"http://127.0.0.1:{server.server_port}"
        env = {**os.environ, "WANDB_BASE_URL": host, "WANDB_API_KEY": "0" * 40}
        command[0] = str(Path(sys.executable).parent / command[0])
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
        )
    rows = server.history[run]
    assert sorted(rows) == [row["_step"] for _, row in sorted(rows.items())], done.stderr
    assert sorted(rows) == list(range(len(rows)))
    assert [row["epoch"] for _, row in sorted(rows.items()) if "train/loss" in row] == [0, 1, 2]


def test_tensorboard(logged):
    run, _ = logged
    found = events(run)
    rows = read_table(run / "metrics.csv")
    for key in ("train/loss", "val/top1"):
        _, values = series(rows, key)
        assert [event.value for event in found.Scalars(key)] == pytest.approx(values, rel=1e-6)
    [image] = found.Images("figures/training_curves")
    height, width, _ = imread(run / "figures/training_curves.png").shape
    assert (image.height, image.width) == (height, width)
    [text] = found.Tensors("tables/masked_joints/text_summary")
    assert b"| nose" in text.tensor_proto.string_val[0]
    start = HParamsPluginData.FromString(
        found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    )
    given = start.session_start_info.hparams
    assert given["optim/lr"].number_value == 0.001
    assert given["data/batch_size"].number_value == 20
    metrics = json.loads((run / "metrics.json").read_text())
    [result] = found.Scalars("result/test/top1")
    assert result.value == pytest.approx(metrics["test/top1"])


def test_an_evaluation_continues_the_run_of_the_training(sweep, tmp_path, capsys):
    run = shutil.copytree(sweep[0] / "seed_0", tmp_path / "run", symlinks=True)
    options = ["corruption=quick", "draws=1", "figures=none", "log=true"]
    data = f"data.path={sweep[0].parent / 'data/synthetic.h5'}"
    in_process("evaluate", "ckpt_path=run", data, *options, cwd=tmp_path, capsys=capsys)
    first, second = offline_runs(run)
    assert first.run.run_id == second.run.run_id
    assert first.run.display_name == second.run.display_name
    second.media("figures/robustness")
    assert "figures/training_curves" not in second.summary
    rows = read_table(run / "robustness.csv")
    noise = [float(row["top1"]) for row in rows if row["corruption"] == "spatial_noise"]
    curve = [row for row in second.history if "robust/spatial_noise" in row]
    assert [row["robust/spatial_noise"] for row in curve] == pytest.approx(noise)
    [measures] = [
        row
        for row in read_table(run / "robustness_summary.csv")
        if row["corruption"] == "spatial_noise"
    ]
    assert second.summary["robust/spatial_noise_auc"] == pytest.approx(float(measures["auc"]))


def test_the_dashboard_shows_what_is_logged(logged, monkeypatch):
    run, written = logged
    monkeypatch.setenv("WANDB_ENTITY", "somebody")
    space = build_dashboard(run)
    spec = json.loads(space._to_model().model_dump_json(by_alias=True))
    assert (spec["entity"], spec["project"]) == ("somebody", "maskclr_pl")
    sections = {
        s["name"]: s["panels"] for s in spec["spec"]["section"]["panelBankConfig"]["sections"]
    }
    assert list(sections) == ["Training", "Validation and test", "Masking", "Cost", "Media"]
    lines = [p["config"] for name in list(sections)[:2] for p in sections[name]]
    shown = {metric for config in lines for metric in config["metrics"] or ()}
    assert {"train/loss", "val/top1", "test/top1"} <= shown
    assert shown <= set(written.summary)
    media = [p["config"]["mediaKeys"] for p in [*sections["Masking"][1:], *sections["Media"]]]
    figures = {f"figures/{path.stem}" for path in (run / "figures").glob("*.png")}
    assert {key for keys in media for key in keys} == figures
    assert figures <= set(written.summary)


def test_a_dashboard_needs_to_know_whose_project(logged):
    with pytest.raises(InputError, match="WANDB_ENTITY"):
        build_dashboard(logged[0])
