"""The command `evaluate`."""

import csv
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest

from maskclr_pl.config.paths import config_dir
from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.runs.read import read_metrics
from maskclr_pl.skeletons.skeleton import Skeleton
from tests.helpers.commands import SILENT, SMALL, in_process, refused
from tests.helpers.robustness_tools import FLAT, V
from tests.robustness.test_second_sensor import body_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on toy data, and what frozen features of it are worth."""
    folder = tmp_path_factory.mktemp("world")
    size = ["source.clips=96", "clip.frames=8", "data.batch_size=16", "data.path=toy.h5"]
    size += ["backbone.dim=32", "backbone.rep_dim=32"]
    args = ["loss=ce", "masking=none", "trainer.max_epochs=10", "optim.lr=0.003", "~logger.csv"]
    words = [*SMALL, *size, *args, "output_dir=run"]
    in_process("train", *words, cwd=folder, capsys=SILENT)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.figures
def test_poster_suite_end_to_end(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it on toy data; an attack does at least the harm of noise of the same size."""
    options = ["corruption=poster", "draws=1", "adversarial=[0.01,0.03]", "output_dir=poster"]
    options.append("figures=none")
    printed = in_process("evaluate", "ckpt_path=run", *options, cwd=world, capsys=capsys)
    rows = rows_of(world / "poster/robustness.csv")
    clean = float(rows[0]["top1"])
    assert clean == pytest.approx(read_metrics(world / "run")["test/top1"], abs=1e-3)
    assert clean > 30  # chance is 12.5: there is something to lose
    names = list(dict.fromkeys(row["corruption"] for row in rows))
    assert len(names) == 1 + 18 + 1
    zeros = [row for row in rows if float(row["level"]) == 0]
    assert len(zeros) == len(names)
    assert {row["top1"] for row in zeros} == {rows[0]["top1"]}
    summary = {row["corruption"]: row for row in rows_of(world / "poster/robustness_summary.csv")}
    assert list(summary) == names[1:]
    for name, row in summary.items():
        assert re.search(rf"^{name} +{float(row['mean']):.1f} ", printed, re.M), name
    at = {(r["corruption"], float(r["level"])): float(r["top1"]) for r in rows}
    # noise of sigma 0.01 mostly stays within a reach of 0.03, and often within 0.01
    for reach in (0.01, 0.03):
        for noise in ("spatial_noise", "spatiotemporal_noise"):
            assert at["adversarial", reach] <= at[noise, 0.01]
    assert at["adversarial", 0.03] < clean
    for figure in ("robustness", "noisy_classes"):
        assert (world / f"poster/figures/{figure}.png").stat().st_size > 5000
    assert "figures    poster/figures: robustness, noisy_classes\n" in printed
    with np.load(world / "poster/robustness_clips.npz") as file:
        assert 100 * file["correct"][0].mean() == pytest.approx(clean, abs=1e-3)
        assert file["name"].tolist() == np.load(world / "run/predictions.npz")["name"].tolist()
    classes = rows_of(world / "poster/robustness_classes.csv")
    assert sum(int(row["clips"]) for row in classes if row["corruption"] == "clean") == 32


def shuffled(world: Path, change: Callable[[str], str], **options: Any) -> Path:
    """The toy clips in another order of joints, with other names."""
    store = Store(world / "toy.h5")
    order = np.random.default_rng(1).permutation(len(store.skeleton))
    place = np.argsort(order)
    parents = [store.skeleton.parents[i] for i in order]
    skeleton = Skeleton(
        "other",
        tuple(store.skeleton.joints[i] for i in order),
        tuple(-1 if parent < 0 else int(place[parent]) for parent in parents),
    )
    recordings = []
    for i in store.rows("test")[::-2]:
        one = store.recording(int(i))
        keypoint, score = one.keypoint[:, :, order], one.score[:, :, order]
        named = {"name": change(one.name), "keypoint": keypoint, "score": score}
        recordings.append(dataclasses.replace(one, **named, **options))
    path = world / "other.h5"
    path.unlink(missing_ok=True)
    names = [one.name for one in recordings]
    write_store(
        *(path, recordings),
        skeleton=skeleton,
        splits={"all": names},
        class_names=store.class_names,
    )
    return path


def test_reordered_joints_in_a_second_store_give_the_same_result(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same poses in another order of joints: recognised as they are in the first store."""
    shuffled(world, lambda name: f"{name}.json")
    options = ["corruption=none", "second_store=other.h5", "output_dir=second"]
    options.append("figures=none")
    printed = in_process("evaluate", "ckpt_path=run", *options, cwd=world, capsys=capsys)
    assert "other.h5 has 16 of the 32 test clips\n" in printed
    rows = rows_of(world / "second/robustness.csv")
    assert [(row["corruption"], row["level"]) for row in rows[1:]] == [
        *(("second_store", "0.0"), ("second_store", "1.0"))
    ]
    with np.load(world / "second/robustness_second_store.npz") as second:
        assert (second["correct"][0] == second["correct"][1]).all()
        assert 100 * second["correct"][0].mean() == pytest.approx(float(rows[1]["top1"]), abs=1e-3)
        with np.load(world / "second/robustness_clips.npz") as first:
            order = {name: i for i, name in enumerate(first["name"].tolist())}
            indices = [order[name] for name in second["name"].tolist()]
            assert (first["correct"][0][indices] == second["correct"][0]).all()
    assert rows[2]["top1"] == rows[1]["top1"]
    assert re.search(r"^second_store +\d+\.\d", printed, re.M)


@pytest.mark.parametrize("method", ["linear_probe", "knn"])
def test_protocols_can_be_evaluated(
    world: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    size = ["source.clips=96", "data.batch_size=16", "data.path=toy.h5", "trainer.max_epochs=3"]
    args = [*size, f"method={method}", "init_from=run", f"output_dir={method}", "~logger.csv"]
    in_process("train", *args, cwd=world, capsys=capsys)
    options = ["corruption=none", "adversarial=0.02", "figures=confusion"]
    in_process("evaluate", f"ckpt_path={method}", *options, cwd=world, capsys=capsys)
    rows = rows_of(world / method / "robustness.csv")
    assert float(rows[0]["top1"]) == pytest.approx(
        read_metrics(world / method)["test/top1"], abs=1e-3
    )
    assert rows[-1]["corruption"] == "adversarial"
    assert (world / method / "figures/confusion.png").is_file()
    assert float(rows[-1]["top1"]) <= float(rows[0]["top1"])


OWN = {
    "twice": "a: {_target_: TARGET.FrameDrop}\nb: {_target_: TARGET.FrameDrop, levels: [0.1]}\n",
    "falling": "a: {_target_: TARGET.FrameDrop, levels: [0.2, 0.1]}\n",
    "tail": "a: {_target_: TARGET.PartOcclusion, part: tail}\n",
}
MISTAKES = {
    "second_store=gone.h5": r"gone\.h5: no such file",
    "second_store=strange.h5": r"strange\.h5: no clip has the name of a test clip",
    "second_store=space.h5": r"space\.h5: coordinates are metres, expected pixels as in \S*toy\.h5",
    "figures=confusoin": r"no figure named 'confusoin' \(did you mean confusion\?\)",
    "adversarial=much": r"adversarial=much: expected numbers, such as adversarial=\[0",
    "adversarial=[-1]": r"adversarial=\[-1\.0\].*expected ascending levels above 0",
    "corruption=postr": r"no corruption named 'postr' \(did you mean poster\?\)",
    "corruption=twice": r"frame_drop is configured twice; list all of its levels in one entry",
    "corruption=falling": r"frame_drop: levels \[0\.2, 0\.1\], expected ascending levels above 0",
    "corruption=tail": r"part=tail: expected left_arm, right_arm",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_mistakes_are_refused_in_one_line(
    world: Path, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    group = world / "own/corruption"
    group.mkdir(parents=True, exist_ok=True)
    for name, text in OWN.items():
        target = "maskclr_pl.robustness.corruptions"
        (group / f"{name}.yaml").write_text(text.replace("TARGET", target))
    body_store(world / "strange.h5", ["z"], [0])
    space = [Recording("z", 0, np.ones((1, 2, V, 3), np.float32))]
    write_store(world / "space.h5", space, skeleton=FLAT.skeleton, splits={}, class_names=["x"])
    args = ["ckpt_path=run", "corruption=none", "output_dir=mistake", typed]
    if typed.startswith("corruption"):
        args.pop(1)
    error = refused("evaluate", "--config-dir", "own", *args, cwd=world, capsys=capsys)
    assert re.search(MISTAKES[typed], error), error
    assert not (world / "mistake").exists()


def test_corruptions_that_do_not_apply_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chain of three joints in space, with one-frame recordings."""
    skeleton = Skeleton("chain", ("root", "left_hand", "right_hand"), (-1, 0, 0))
    rng = np.random.default_rng(0)
    recordings = [
        Recording(f"c{i}", i % 2, rng.normal(size=(1, 1 + i % 3, 3, 3)).astype(np.float32))
        for i in range(24)
    ]
    names = [one.name for one in recordings]
    splits = {"train": names[:16], "test": names[16:]}
    write_store(tmp_path / "s.h5", recordings, skeleton=skeleton, splits=splits)
    data = ["data=custom", "data.path=s.h5", "data.train_split=train", "data.test_split=test"]
    args = [*data, *SMALL, "augment=ntu3d", "debug=fast", "output_dir=run", "~logger.csv"]
    in_process("train", *args, cwd=tmp_path, capsys=capsys)
    options = ["corruption=poster", "draws=1", "adversarial=[0.01]", "figures=none"]
    printed = in_process("evaluate", "ckpt_path=run", *options, cwd=tmp_path, capsys=capsys)
    assert re.findall(r"^skipped    (\w+): (.*)$", printed, re.M) == [
        ("occlusion_left_leg", "chain has no joints named as left leg"),
        ("occlusion_right_leg", "chain has no joints named as right leg"),
        ("occlusion_legs", "chain has no joints named as left leg"),
        ("confidence_dropout", "3D joints have no confidence"),
    ]
    assert len({row["corruption"] for row in rows_of(tmp_path / "run/robustness.csv")}) == 16


def test_corruptions_are_overridden_by_name() -> None:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        overrides = [
            "ckpt_path=x",
            "corruption.frame_drop.levels=[0.1]",
            "~corruption.spatial_noise",
        ]
        corruption = hydra.compose("evaluate", overrides).corruption
    assert corruption.frame_drop.levels == [0.1]
    assert corruption.joint_occlusion.levels == [0.1, 0.2, 0.3, 0.4]
    assert "spatial_noise" not in corruption
