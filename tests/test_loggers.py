"""W&B and TensorBoard, by reading back what a small training wrote."""

import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import wandb
import yaml
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from matplotlib.image import imread
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import maskclr_pl
from maskclr_pl.config import config_dir
from maskclr_pl.dashboard import dashboard
from maskclr_pl.evaluation.results import read_table, series, write_table
from maskclr_pl.loggers import run_loggers, share
from maskclr_pl.types import InputError
from tests.commands import SMALL, in_process, in_subprocess, refused
from tests.wandb_tools import offline_runs, stand_in

SHORT = ["source.clips=64", "trainer.max_epochs=2", "data.batch_size=20", *SMALL]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("home")
    for name, value in environment(home).items():
        monkeypatch.setenv(name, value)
    wandb.teardown()  # it keeps the environment that it saw first
    monkeypatch.setattr(logging.getLogger("maskclr_pl"), "handlers", [])  # of earlier commands


def environment(home: Path) -> dict[str, str]:
    folders = {f"WANDB_{name}_DIR": str(home / name) for name in ("DATA", "CACHE", "CONFIG")}
    return {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(home), **folders}


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
    run = sweep[0] / "0"
    return run, offline_runs(run)[0]


def test_each_job_of_a_sweep_is_a_run_of_its_own(sweep):
    folder, printed = sweep
    found = [offline_runs(folder / job) for job in "01"]
    assert [len(runs) for runs in found] == [1, 1]
    first, second = (runs[0].run for runs in found)
    assert first.run_id != second.run_id
    assert [first.display_name, second.display_name] == ["runs/0", "runs/1"]
    assert first.run_group == second.run_group == "MaskCLR DSTformer synthetic"
    assert first.project == "maskclr_pl"
    assert first.job_type == "full"
    assert list(first.tags) == ["MaskCLR", "DSTformer", "synthetic"]
    lines = [line for line in printed.splitlines() if line.startswith("wandb ")]
    for line, runs in zip(lines, found, strict=True):
        words = shlex.split(line)
        assert words[1:3] == ["wandb", "sync"]
        assert [Path(word) for word in words[3:]] == [runs[0].folder]
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


def test_the_best_checkpoint_is_an_artifact_only_when_asked_for(logged, tmp_path, capsys):
    _, written = logged
    assert written.artifacts == {f"model-{written.run.run_id}": ["best.ckpt", "config.yaml"]}
    options = ["logger=wandb", "debug=fast", "output_dir=run", *SHORT]
    in_process("train", *options, cwd=tmp_path, capsys=capsys)
    [plain] = offline_runs(tmp_path / "run")
    assert plain.artifacts == {}
    assert plain.run.display_name == "run"


def test_a_run_that_was_moved_and_continued_is_the_same(sweep, tmp_path, capsys):
    folder, _ = sweep
    moved = tmp_path / "moved"
    os.rename(folder / "1", moved)
    try:
        options = ["resume=moved", "trainer.max_epochs=3"]
        printed = in_process("train", *options, cwd=tmp_path, capsys=capsys)
        before, after = offline_runs(moved)
        assert before.run.run_id == after.run.run_id
        assert after.run.run_group == before.run.run_group
        assert after.run.resume
        assert set(before.series("train/loss")) | set(after.series("train/loss")) == {0, 1, 2}
        [line] = [line for line in printed.splitlines() if line.startswith("wandb ")]
        check_upload(shlex.split(line)[1:], tmp_path, before.run.run_id)
    finally:
        os.rename(moved, folder / "1")


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


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0, "images": 0})
    return found.Reload()


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


def evaluated(folder: Path) -> None:
    """What later commands add to a run folder, in small."""
    (folder / "figures").mkdir(parents=True)
    frames = [Image.new("RGB", (8, 8), color) for color in ("black", "white")]
    frames[0].save(folder / "figures/masks.gif", save_all=True, append_images=frames[1:])
    classes = [{"class": "wave", "clips": 3, "top1": 66.7}, {"class": "7", "clips": 1, "top1": ""}]
    write_table(folder / "per_class.csv", classes)
    scores = [("clean", 0.0, 0, 80.0), ("noise", 0.0, 0, 80.0), ("noise", 0.01, 0, 50.0)]
    scores.append(("noise", 0.01, 1, 60.0))
    keys = ("corruption", "level", "draw", "top1")
    write_table(folder / "robustness.csv", [dict(zip(keys, row, strict=True)) for row in scores])
    write_table(folder / "robustness.1.csv", [dict(zip(keys, scores[0], strict=True))])
    summary = [{"corruption": "noise", "clean": 80.0, "auc": 67.5, "worst": ""}]
    write_table(folder / "robustness_summary.csv", summary)


def test_what_is_handed_over(tmp_path):
    evaluated(tmp_path)
    old = tmp_path / "figures/old.png"
    Image.new("RGB", (8, 8)).save(old)
    os.utime(old, (0, 0))
    loggers = [
        CSVLogger(tmp_path, name="", version=""),
        WandbLogger(save_dir=tmp_path, project="p", id="abc"),
        TensorBoardLogger(tmp_path, name="tensorboard", version=""),
    ]
    share(loggers, tmp_path, since=1.0)
    [written] = offline_runs(tmp_path)
    assert "figures/old" not in written.summary
    value, [gif] = written.media("figures/masks_gif")
    assert value["_type"] == "videos"
    assert Image.open(gif).n_frames == 2
    _, [table] = written.media("tables/per_class")
    content = json.loads(table.read_text())
    assert content == content | {
        "columns": ["class", "clips", "top1"],
        "data": [["wave", 3.0, 66.7], ["7", 1.0, None]],
    }
    assert not [key for key in written.summary if "robustness.1" in key]
    curve = [row for row in written.history if "robust/noise" in row]
    assert [(row["level/noise"], row["robust/noise"]) for row in curve] == [
        (0.0, 80.0),
        (0.01, 55.0),
    ]
    assert written.axes["robust/noise"] == "level/noise"
    assert "robust/clean" not in written.summary
    measured = {"robust/noise_auc": 67.5, "robust/noise_clean": 80.0}
    assert {k: v for k, v in written.summary.items() if k.startswith("robust/noise_")} == measured
    found = events(tmp_path)
    assert {key: found.Scalars(key)[0].value for key in measured} == measured
    assert "tables/robustness/text_summary" in found.Tags()["tensors"]
    assert not (tmp_path / "metrics.csv").exists()


def test_an_evaluation_continues_the_run_of_the_training(sweep):
    run = sweep[0] / "0"
    share(run_loggers(run), run, since=0.0)
    first, second = offline_runs(run)
    assert first.run.run_id == second.run.run_id
    assert first.run.display_name == second.run.display_name
    second.media("figures/training_curves")


def test_a_run_without_such_a_logger_cannot_be_continued(tmp_path):
    (tmp_path / "config.yaml").write_text("logger: {csv: {_target_: a}, x: {_target_: os.system}}")
    with pytest.raises(InputError, match="logger=wandb or logger=tensorboard"):
        run_loggers(tmp_path)


def test_without_a_login_one_line_says_what_to_type(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    wandb.teardown()
    line = refused("train", "logger=wandb", *SHORT, cwd=tmp_path, capsys=capsys)
    assert "wandb login" in line
    assert "WANDB_MODE=offline" in line
    assert not (tmp_path / "runs").exists()


def test_a_server_that_cannot_be_reached(tmp_path, capsys, monkeypatch):
    def fail(**_: Any) -> None:
        raise wandb.errors.CommError("timed out\n(90 s)")

    monkeypatch.setattr(wandb, "init", fail)
    options = ["logger=wandb", "output_dir=run", *SHORT]
    line = refused("train", *options, cwd=tmp_path, capsys=capsys)
    assert "timed out (90 s); set WANDB_MODE=offline" in line


def test_without_wandb_everything_else_works(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    in_process("train", "debug=fast", "output_dir=run", *SHORT, cwd=tmp_path, capsys=capsys)
    assert (tmp_path / "run/metrics.csv").is_file()
    line = refused("train", "logger=wandb", *SHORT, cwd=tmp_path, capsys=capsys)
    assert "pip install wandb" in line


def test_a_failed_run_is_marked_so(tmp_path, capsys, monkeypatch):
    def fail(*_: Any) -> None:
        raise InputError("no")

    monkeypatch.setattr("maskclr_pl.train._fit_and_test", fail)
    codes = []
    monkeypatch.setattr(wandb.Run, "finish", lambda run, exit_code=None: codes.append(exit_code))
    options = ["logger=wandb", "output_dir=run", *SHORT]
    refused("train", *options, cwd=tmp_path, capsys=capsys)
    monkeypatch.undo()
    wandb.finish()
    assert codes == [1]


def test_the_search_of_wandb_agents_composes():
    search = yaml.safe_load(Path(maskclr_pl.__file__).with_name("wandb_sweep.yaml").read_text())
    assert search["command"][1:4] == ["python", "-m", "maskclr_pl.train"]
    assert search["command"][-1] == "${args_no_hyphens}"
    parameters = search["parameters"]
    values = {
        key: node.get("values") or [node.get("value", node.get("min")), node.get("max")]
        for key, node in parameters.items()
    }
    for i in range(max(map(len, values.values()))):
        chosen = {key: (some * 9)[i] or some[0] for key, some in values.items()}
        # as the agent builds them
        overrides = [*search["command"][4:-1], *(f"{key}={v}" for key, v in chosen.items())]
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = hydra.compose("train", overrides)
        assert cfg.objective == search["metric"]["name"]
        for key, value in chosen.items():
            if key != "experiment":
                assert OmegaConf.select(cfg, key) == value


def test_the_run_of_an_agent_has_the_id_that_it_was_given(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "given123")
    options = ["logger=wandb", "debug=fast", "output_dir=run", *SHORT]
    in_process("train", *options, cwd=tmp_path, capsys=capsys)
    [written] = offline_runs(tmp_path / "run")
    assert written.run.run_id == "given123"


def test_the_plugins_search_over_what_there_is():
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", ["hparams_search=optuna"], return_hydra_config=True)
        slurm = hydra.compose("train", ["launcher=slurm"], return_hydra_config=True)
    assert cfg.hydra.sweeper._target_.startswith("hydra_plugins.hydra_optuna_sweeper")
    for key in cfg.hydra.sweeper.params:
        assert isinstance(OmegaConf.select(cfg, key), float), key
    assert slurm.hydra.launcher.gpus_per_node == slurm.hydra.launcher.tasks_per_node == 1


def test_the_dashboard_shows_what_is_logged(logged, monkeypatch):
    run, written = logged
    monkeypatch.setenv("WANDB_ENTITY", "somebody")
    space = dashboard(run)
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
    [media] = sections["Media"]
    assert set(media["config"]["mediaKeys"]) <= set(written.summary)


def test_a_dashboard_needs_to_know_whose_project(logged):
    with pytest.raises(InputError, match="WANDB_ENTITY"):
        dashboard(logged[0])
