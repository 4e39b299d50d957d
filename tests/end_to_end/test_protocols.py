"""The evaluation protocols as commands: one pre-trained run, and all that is made of it."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from maskclr_pl.runs.read import read_metrics
from tests.end_to_end.test_chain import weights
from tests.helpers.commands import SILENT, in_process, in_subprocess, last_line, pyskl_file, refused
from tests.helpers.protocol_tools import toy_store

pytestmark = pytest.mark.slow

Command = Callable[..., str]
TINY = ["backbone=dstformer_tiny", "backbone.dim=16", "backbone.rep_dim=16", "clip.frames=8"]
TINY += ["data.num_workers=0", "trainer.max_epochs=2", "~logger.csv"]  # and no figures
SMALL_HEAD = "head=action_small"


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return partial(in_process, cwd=tmp_path, capsys=capsys)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to take the backbone from; its data are beside it."""
    folder = tmp_path_factory.mktemp("world")
    options = [*toy(folder), SMALL_HEAD, "loss=ce", "masking=none", "output_dir=start"]
    in_process("train", *options, cwd=folder, capsys=SILENT)
    return folder / "start"


def toy(folder: Path) -> list[str]:
    data = ["source.clips=64", f"data.path={folder / 'toy.h5'}", "data.batch_size=16"]
    return [*data, *TINY]


def backbone(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("backbone.")}


@pytest.mark.parametrize("method", ["linear_probe", "knn"])
def test_frozen_features(tmp_path: Path, command: Command, start: Path, method: str) -> None:
    """One command; the backbone stays what it was, and evaluate finds what the test found."""
    epochs = [] if method == "knn" else ["trainer.max_epochs=20"]
    args = [*toy(start.parent), f"method={method}", f"init_from={start}", *epochs]
    printed = command("train", *args, f"output_dir={method}")
    assert f"start      backbone from {start}" in printed
    run = tmp_path / method
    before, after = backbone(start), backbone(run)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    metrics = read_metrics(run)
    assert {"val/top1", "test/top1", "test/top5"} <= metrics.keys()
    command("evaluate", f"ckpt_path={method}", "corruption=none")
    clean = (run / "robustness.csv").read_text().splitlines()[1].split(",")
    assert float(clean[3]) == pytest.approx(metrics["test/top1"], abs=1e-3)


@pytest.mark.recipes
def test_what_is_not_typed_is_as_in_the_run(tmp_path: Path, command: Command, start: Path) -> None:
    """Backbone, clips, augmentation and data come along; typed values stand."""
    args = ["method=knn", f"init_from={start}", "~logger.csv", "output_dir=same"]
    assert "inherited settings: backbone, clip, data, augment" in command("train", *args)
    theirs, ours = (
        yaml.safe_load((run / "config.yaml").read_text()) for run in (start, tmp_path / "same")
    )
    for group in ("backbone", "clip", "augment"):
        assert ours[group] == theirs[group], group
    assert ours["data"]["path"] == theirs["data"]["path"]
    args = ["method=knn", f"init_from={start}", "~logger.csv", "output_dir=other"]
    command("train", *args, "augment=none", "clip.frames=6", "clip.persons=1", "data.num_workers=0")
    ours = yaml.safe_load((tmp_path / "other" / "config.yaml").read_text())
    assert ours["clip"]["frames"] == ours["data"]["frames"] == 6
    assert ours["clip"]["persons"] == 1
    assert ours["augment"] != theirs["augment"]


def test_settings_of_an_untrusted_run_are_refused(
    tmp_path: Path, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(start / "checkpoints/best.ckpt", weights_only=True)
    content["maskclr_pl"]["config"]["backbone"]["_target_"] = "os.system"
    torch.save(content, tmp_path / "forged.ckpt")
    args = ["method=knn", "init_from=forged.ckpt"]
    line = refused("train", *args, cwd=tmp_path, capsys=capsys)
    assert "asks for os.system, which is not trusted" in line


@pytest.mark.recipes
def test_a_probe_is_continued_exactly(tmp_path: Path, command: Command, start: Path) -> None:
    args = [
        *toy(start.parent),
        "method=linear_probe",
        f"init_from={start}",
        "optim.schedule=constant",
    ]
    command("train", *args, "trainer.max_epochs=4", "output_dir=whole")
    command("train", *args, "trainer.max_epochs=2", "output_dir=part")
    command("train", "resume=part", "trainer.max_epochs=4")
    whole, part = (
        torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "part")
    )
    for name, value in whole.items():
        torch.testing.assert_close(part[name], value, rtol=0, atol=0, msg=name)


def test_labelled_share_and_file(tmp_path: Path, command: Command, start: Path) -> None:
    args = [*toy(start.parent), "method=finetune", SMALL_HEAD, f"init_from={start}"]
    command("train", *args, "data.label_fraction=0.3", "output_dir=share")
    names = (tmp_path / "share" / "labeled.txt").read_text()
    assert names.count("\n") >= 8
    file = "data.label_fraction=share/labeled.txt"
    command("train", *args, file, "seed=1", "data.seed=0", "output_dir=file")
    again = (tmp_path / "file" / "labeled.txt").read_text()
    assert sorted(again.split()) == sorted(names.split())
    # the run has a list of its own: the file may go
    (tmp_path / "share" / "labeled.txt").unlink()
    command("evaluate", "ckpt_path=file", "corruption=none", "figures=none", "device=cpu")
    command("embed", "ckpt_path=file", "split=train", "device=cpu")
    with h5py.File(tmp_path / "file" / "features.h5") as file:
        assert sorted(name.decode() for name in file["name"]) == sorted(names.split())
    epochs = torch.load(tmp_path / "file/checkpoints/last.ckpt", weights_only=True)["epoch"] + 2
    command("train", "resume=file", f"trainer.max_epochs={epochs}")
    assert (tmp_path / "file" / "labeled.txt").read_text() == again


def test_neighbours_are_resumed_as_they_were(tmp_path: Path, command: Command, start: Path) -> None:
    words = [*toy(start.parent), "method=knn", f"init_from={start}", "output_dir=knn"]
    command("train", *words)
    before, metrics = weights(tmp_path / "knn"), read_metrics(tmp_path / "knn")
    command("train", "resume=knn")
    for name, value in weights(tmp_path / "knn").items():
        assert torch.equal(value, before[name]), name
    assert read_metrics(tmp_path / "knn")["test/top1"] == metrics["test/top1"]


def test_transfer_to_other_data(
    tmp_path: Path, command: Command, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another set with the joints of the first: whatever the method, only the backbone comes."""
    source = pyskl_file(tmp_path / "two.pkl", clips=36)
    command("prepare", "source=pyskl", f"input={source}", "output=two.h5", "skeleton=coco17")
    splits = ["data.train_split=train", "data.test_split=test", "data.batch_size=8"]
    other = ["data=custom", "data.path=two.h5", *splits, *TINY, f"init_from={start}"]
    for method in (["finetune", SMALL_HEAD], ["linear_probe"], ["knn"]):
        printed = command("train", *other, "method=" + method[0], *method[1:])
        assert f"start      backbone from {start}" in printed
        assert (tmp_path / last_line(printed) / "predictions.npz").is_file()
    words = ["method=knn", f"init_from={start}", "data.path=toy.h5", *splits, *TINY[-2:]]
    toy_store(tmp_path)
    line = refused("train", *words, cwd=tmp_path, capsys=capsys)
    assert re.search(r"trained on the 17 joints of \S+, and this run has the 3 of chain", line)
    printed = command("train", *other, "method=knn", "clip.frames=6")
    assert f"note: {start}: it was trained with clip.frames=8, this run has 6" in printed


def test_transfer_to_other_joints_is_refused(
    tmp_path: Path, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_store(tmp_path)
    splits = ["data.train_split=train", "data.test_split=test"]
    other = ["data=custom", "data.path=toy.h5", *splits, *TINY, f"init_from={start}", "method=knn"]
    line = refused("train", *other, cwd=tmp_path, capsys=capsys)
    assert re.search(
        r"trained on the 17 joints of \S+, and this run has the 3 of chain without .*; use data",
        line,
    )


def test_one_shot(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Any store with the three splits; the checkpoint holds the exemplars."""
    clips = {k: [f"c{i:02d}" for i in range(60) if i % 6 in k] for k in ((0, 1, 2, 3), (4, 5))}
    new = clips[4, 5]
    toy_store(tmp_path, 60, 6, train=clips[0, 1, 2, 3], one=new[:2], rest=new[2:])
    splits = ["train_split=train", "exemplar_split=one", "test_split=rest", "val_fraction=0"]
    batches = "data.balanced={classes:4,samples:2}"
    data = ["data=custom", "data.path=toy.h5", *(f"data.{one}" for one in splits), batches]
    words = [*data, *TINY, "method=oneshot", "head.embed_dim=8"]
    line = refused(
        "train", *words, "callbacks.figures.every_n_epochs=1", cwd=tmp_path, capsys=capsys
    )
    assert "pass callbacks.figures.every_n_epochs=0" in line
    printed = command("train", *words, "output_dir=one")
    assert "0 validation, 18 test clips" in printed
    metrics = read_metrics(tmp_path / "one")
    assert "val/top1" not in metrics
    printed = command("train", "method=knn", "init_from=one", "monitor_split=last")
    assert "note: no class of the test clips occurs in training" in printed
    with np.load(tmp_path / "one" / "predictions.npz") as file:
        assert set(file["label"]) == {4, 5}
        assert set(file["logits"].argmax(1)) <= {4, 5}
    command("evaluate", "ckpt_path=one", "corruption=none")
    clean = (tmp_path / "one" / "robustness.csv").read_text().splitlines()[1].split(",")
    assert float(clean[3]) == pytest.approx(metrics["test/top1"], abs=1e-3)


def test_report_of_several_runs(
    tmp_path: Path, command: Command, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bone = ["clip.stream=bone", "loss=ce", "masking=none", SMALL_HEAD]
    command("train", *toy(start.parent), *bone, "output_dir=bone")
    printed = command(
        *("report", "kind=ensemble", f"runs=[{start},bone]", "weights=[0.6,0.4]", "output_dir=both")
    )
    assert printed.splitlines()[0].startswith(f"0.6    x {start}")
    twice = ["report", "kind=ensemble", "runs=[both,bone]"]
    assert "both is an ensemble" in refused(*twice, cwd=tmp_path, capsys=capsys)
    metrics = read_metrics(tmp_path / "both")
    with np.load(tmp_path / "both" / "predictions.npz") as file:
        hits = file["logits"].argmax(1) == file["label"]
    assert metrics["test/top1"] == pytest.approx(100 * hits.mean())
    text = command("report", "kind=table", f"runs=[.,{start}]", "output_dir=table")
    assert r"\toprule" in (tmp_path / "table/table.tex").read_text()
    for row in ("supervised", r"supervised (bone)", "2s-supervised"):
        assert f"| {row} " in text
    assert (tmp_path / "table" / "table.csv").read_text().startswith("method,backbone,protocol,")
    assert (tmp_path / "table" / "table.md").read_text() in text


@pytest.mark.recipes
def test_two_processes_know_the_features_of_one(
    tmp_path: Path, command: Command, start: Path
) -> None:
    """Each rank computes its share of the features, both then have all of them."""
    one = [*toy(start.parent), f"init_from={start}", "method=knn"]
    ddp = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    command("train", *one, "output_dir=alone")
    in_subprocess("train", *one, *ddp, "output_dir=ranks", cwd=tmp_path)
    alone, ranks = (
        torch.load(tmp_path / run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for run in ("alone", "ranks")
    )
    assert torch.equal(alone["bank.label"], ranks["bank.label"])
    # other batches of the same clips: float32 sums in another order
    torch.testing.assert_close(ranks["bank.features"], alone["bank.features"], rtol=1e-4, atol=1e-5)
    assert (
        read_metrics(tmp_path / "alone")["test/top1"]
        == read_metrics(tmp_path / "ranks")["test/top1"]
    )


REFUSED = {
    "no start": (
        ["method=finetune", "source.clips=24"],
        "starts from another run; pass init_from=RUN_FOLDER",
    ),
    "nothing to choose by": (
        ["data.val_fraction=0", "source.clips=24"],
        r"data\.val_fraction=0 leaves no clips .* pass monitor_split=last",
    ),
    "one-shot with a choice": (
        ["method=oneshot", "source.clips=64", "monitor_split=val"],
        r"OneShot has no validation accuracy .* pass monitor_split=last",
    ),
    "a head of others": (["method=knn", "init_from=null", "head=action"], "head"),
    "no kind": (["kind=x"], "kind=x: expected comparison, ensemble, table"),
    "weights": (["kind=ensemble", "weights=[1]"], "gone: no predictions"),
    "weights of nothing": (["kind=ensemble", "weights=[0]"], r"weights=\[0\]: expected numbers"),
    "no number": (["kind=ensemble", "weights=[nan]"], r"weights=\[nan\]: expected numbers"),
    "words": (["kind=ensemble", "weights=[a]"], r"weights=\['a'\]: expected numbers"),
    "no list": (["kind=ensemble", "weights=0.6"], r"weights=0\.6: expected numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_settings(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    args, match = REFUSED[case]
    verb = "report" if "kind" in args[0] else "train"
    args = [*args, "runs=[gone]"] if verb == "report" else args
    assert re.search(match, refused(verb, *args, cwd=tmp_path, capsys=capsys))
