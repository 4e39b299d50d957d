"""What is handed over to W&B and TensorBoard, from a run folder made by hand."""

import json
import os
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image

from maskclr_pl.runs.results import write_table
from maskclr_pl.tracking.dashboard import build_dashboard
from maskclr_pl.tracking.loggers import log_later_results, run_loggers
from maskclr_pl.tracking.upload import MAX_TEXT_ROWS, log_results
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process, refused
from tests.helpers.wandb_tools import events, offline_runs, stand_in

pytestmark = pytest.mark.usefixtures("offline")


def evaluated(folder: Path) -> None:
    """What later commands add to a run folder, in small."""
    (folder / "figures").mkdir(parents=True)
    frames = [Image.new("RGB", (8, 8), color) for color in ("black", "white")]
    frames[0].save(folder / "figures/masks.gif", save_all=True, append_images=frames[1:])
    for epoch, color in ((1, "black"), (10, "white")):
        path = folder / f"figures/epoch_{epoch:03d}/attention.png"
        path.parent.mkdir()
        Image.new("RGB", (8, 8), color).save(path)
    classes = [{"class": "wave", "clips": 3, "top1": 66.7}, {"class": "7", "clips": 1, "top1": ""}]
    write_table(folder / "per_class.csv", classes)
    scores = [("clean", 0.0, 0, 80.0), ("noise", 0.0, 0, 80.0), ("noise", 0.01, 0, 50.0)]
    scores.append(("noise", 0.01, 1, 60.0))
    keys = ("corruption", "level", "draw", "top1")
    write_table(folder / "robustness.csv", [dict(zip(keys, row, strict=True)) for row in scores])
    write_table(folder / "robustness.1.csv", [dict(zip(keys, scores[0], strict=True))])
    summary = [{"corruption": "noise", "clean": 80.0, "auc": 67.5, "worst": "nan"}]
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
    log_later_results(loggers, tmp_path, since=1.0)
    [written] = offline_runs(tmp_path)
    assert "figures/old" not in written.summary
    value, [gif] = written.media("figures/masks_gif")
    assert value["_type"] == "videos"
    assert Image.open(gif).n_frames == 2
    drawn = [row["epochs/attention"] for row in written.history if "epochs/attention" in row]
    assert [image["captions"] for image in drawn] == [["epoch 1"], ["epoch 10"]]
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
    assert [image.step for image in found.Images("epochs/attention")] == [1, 10]
    assert not (tmp_path / "metrics.csv").exists()


def test_a_long_table_is_too_much_for_a_page_of_text(tmp_path):
    write_table(tmp_path / "long.csv", [{"row": i} for i in range(MAX_TEXT_ROWS + 1)])
    write_table(tmp_path / "short.csv", [{"row": i} for i in range(MAX_TEXT_ROWS)])
    log_results([TensorBoardLogger(tmp_path, name="tensorboard", version="")], tmp_path)
    assert events(tmp_path).Tags()["tensors"] == ["tables/short/text_summary"]


def test_a_run_without_such_a_logger_cannot_be_continued(tmp_path):
    csv = "lightning.pytorch.loggers.CSVLogger"
    (tmp_path / "config.yaml").write_text(f"logger: {{csv: {{_target_: {csv}}}}}")
    with pytest.raises(InputError, match="logger=wandb or logger=tensorboard"):
        run_loggers(tmp_path)


def test_a_dashboard_has_a_chart_for_each_corruption(tmp_path):
    evaluated(tmp_path)
    (tmp_path / "config.yaml").write_text("logger: {wandb: {project: p, entity: e}}")
    view = json.loads(build_dashboard(tmp_path)._to_model().model_dump_json(by_alias=True))
    assert (view["entity"], view["project"]) == ("e", "p")
    panels = {
        s["name"]: s["panels"] for s in view["spec"]["section"]["panelBankConfig"]["sections"]
    }
    [chart] = panels["Robustness"]
    assert (chart["config"]["xAxis"], chart["config"]["metrics"]) == (
        "level/noise",
        ["robust/noise"],
    )
    assert [panel["config"]["mediaKeys"] for panel in panels["Media"]] == [["epochs/attention"]]


def test_a_dashboard_is_of_a_run_with_wandb(tmp_path):
    (tmp_path / "config.yaml").write_text("logger: {csv: {name: x}}")
    with pytest.raises(InputError, match="not trained with logger=wandb"):
        build_dashboard(tmp_path)


def test_report_saves_a_dashboard(tmp_path, capsys, monkeypatch):
    evaluated(tmp_path)
    (tmp_path / "config.yaml").write_text("logger: {wandb: {project: maskclr_pl, entity: me}}")
    with stand_in() as server:
        host = f"http://127.0.0.1:{server.server_port}"
        for name, value in (("BASE_URL", host), ("API_KEY", "0" * 40), ("MODE", "online")):
            monkeypatch.setenv(f"WANDB_{name}", value)
        wandb.teardown()
        options = ["kind=dashboard", f"runs=[{tmp_path}]"]
        printed = in_process("report", *options, cwd=tmp_path, capsys=capsys)
    sections = server.views["maskclr_pl"]["section"]["panelBankConfig"]["sections"]
    assert "Robustness" in [section["name"] for section in sections]
    assert f"dashboard  {host}/me/maskclr_pl" in printed


def test_report_without_a_login_saves_none(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    wandb.teardown()
    line = refused("report", "kind=dashboard", "runs=[run]", cwd=tmp_path, capsys=capsys)
    assert "wandb login" in line
