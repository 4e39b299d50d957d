"""Passes over corrupted clips, what they amount to, the attack, a second store, the command."""

import csv
import dataclasses
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskclr_pl.config.build import build_method
from maskclr_pl.config.paths import config_dir
from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.methods import Classifier
from maskclr_pl.reporting.published_noise import published_noise
from maskclr_pl.robustness.adversarial import Adversarial
from maskclr_pl.robustness.corruptions import (
    BodyScale,
    ConfidenceDropout,
    FrameDrop,
    FrameMasking,
    FrameRate,
    JointOcclusion,
    KeypointOcclusion,
    PartOcclusion,
    Poses,
    SideSwap,
    SpatialNoise,
    SpatiotemporalNoise,
    TimeCrop,
)
from maskclr_pl.robustness.runner import (
    CLEAN_PASS,
    Passes,
    PassKey,
    mean_over_levels,
    measure_robustness,
    normalized_auc,
    summarize,
)
from maskclr_pl.robustness.second_sensor import match_clips
from maskclr_pl.robustness.tables import (
    back_up,
    class_accuracy_rows,
    class_scores,
    summary_rows,
    write_robustness,
)
from maskclr_pl.runs.read import read_metrics
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.sources.convert import convert
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.types import Batch, InputError
from tests.helpers.commands import SILENT, SMALL, in_process, refused
from tests.helpers.robustness_tools import FLAT, SPACE, V, batch

UI_PRMD = Path(__file__).parents[3] / "shared/data/ui_prmd"
ALL = [SpatialNoise, SpatiotemporalNoise, JointOcclusion, KeypointOcclusion, FrameMasking]
ALL += [FrameDrop, FrameRate, TimeCrop, ConfidenceDropout, SideSwap, BodyScale]
ALL += [partial(PartOcclusion, part="left_arm")]


def fragile(clip: Tensor, batch: Batch) -> Tensor:
    """Right on the clean clip, and wrong as soon as a joint is hidden."""
    hidden = ((clip[..., 2] == 0) & (batch["clip"][..., 2] != 0)).flatten(1).any(1)
    logits = nn.functional.one_hot(batch["label"], 7).float()
    return torch.where(hidden.unsqueeze(1), -logits, logits)


NAMES = [f"clip{i}" for i in range(7)]


def test_rows_of_the_table():
    corruptions = [SpatialNoise((0.01,)), JointOcclusion((0.5, 0.9))]
    batches = [batch(3, first=4), batch(4)]  # in another order than the clips
    found = measure_robustness(fragile, batches, NAMES, corruptions, FLAT, draws=2)
    assert found.name.tolist() == NAMES
    assert found.label.tolist() == [0, 1, 2, 0, 0, 1, 2]
    rows = found.rows()
    assert rows[0] == {"corruption": "clean", "level": 0, "draw": 0, "top1": 100, "top5": 100}
    keys = [(row["corruption"], row["level"], row["draw"]) for row in rows[1:]]
    assert keys == [
        (corruption.name, level, draw)
        for corruption in corruptions
        for level in (0.0, *corruption.levels)
        for draw in range(2)
    ]
    for row in rows[1:]:
        wrong = row["corruption"] == "joint_occlusion" and row["level"] > 0
        assert row["top1"] == (0 if wrong else 100)
    summary = summarize(rows)
    assert summary["joint_occlusion"] == {0: (100, 0), 0.5: (0, 0), 0.9: (0, 0)}
    assert mean_over_levels(summary["spatial_noise"]) == 100
    assert mean_over_levels(summary["joint_occlusion"]) == 0


def test_top5_of_few_and_many_classes():
    def ranked(clip: Tensor, batch: Batch) -> Tensor:
        scores = -torch.arange(9.0).expand(len(clip), 9).clone()
        return scores.roll(-2, 1)  # best: 7, then 8, 0, 1, 2

    found = measure_robustness(ranked, [batch(7)], NAMES, [], FLAT)
    assert found.rows()[0] | {"top1": 0, "top5": 100} == found.rows()[0]
    few = measure_robustness(lambda clip, b: ranked(clip, b)[:, :3], [batch(7)], NAMES, [], FLAT)
    assert few.correct_top5.all()


def recording(clips: list[Tensor]) -> Callable[[Tensor, Batch], Tensor]:
    """A model that remembers what it was asked."""

    def predict(clip: Tensor, batch: Batch) -> Tensor:
        clips.append(clip)
        return torch.zeros(len(clip), 3)

    return predict


def test_robustness_does_not_depend_on_the_batches():
    def measure(batches: list[Batch]) -> list[Tensor]:
        seen: list[Tensor] = []
        corruptions = [make(levels=(0.5,)) for make in ALL]
        measure_robustness(recording(seen), batches, NAMES, corruptions, FLAT, draws=2)
        per_batch = len(seen) // len(batches)
        return [torch.cat(seen[i::per_batch]) for i in range(per_batch)]

    whole = batch(6)
    whole["frame"][2] //= 3  # a shorter recording
    parts = [
        {key: value[rows] for key, value in whole.items() if key != "sequence"}
        for rows in (slice(0, 2), slice(2, 3), slice(3, 6))
    ]
    for one, several in zip(measure([whole]), measure(parts), strict=True):
        assert torch.equal(one, several)


def test_the_data_are_read_once_and_models_see_the_same():
    """Draws depend on seed, draw, corruption and name; not on the model or on other corruptions."""
    first: list[Tensor] = []
    other: list[Tensor] = []
    reads = iter([batch(7)])  # a second pass over the data would find nothing
    corruptions = [make(levels=(0.5,)) for make in ALL]
    measure_robustness(recording(first), reads, NAMES, corruptions, FLAT, draws=1)
    measure_robustness(recording(other), [batch(7)], NAMES, corruptions[::-1], FLAT, draws=1)
    assert len(first) == 1 + len(ALL)
    for one, two in zip(first[1:], other[:0:-1], strict=True):
        assert torch.equal(one, two)
    seeded: list[Tensor] = []
    measure_robustness(recording(seeded), [batch(7)], NAMES, corruptions, FLAT, draws=1, seed=1)
    assert not torch.equal(seeded[1], first[1])


# what the passes amount to


@st.composite
def tables(draw):
    """Levels, draws, clips and seed of passes whose hits are random; a class may have no clip."""
    levels = draw(st.lists(st.floats(0.01, 5), min_size=1, max_size=4, unique=True))
    return sorted(levels), *(draw(st.integers(1, most)) for most in (3, 9, 1000))


def passes_of(levels: list[float], draws: int, clips: int, seed: int) -> Passes:
    keys = [CLEAN_PASS]
    keys += [PassKey("a", level, d) for level in levels for d in range(draws)]
    rng = np.random.default_rng(seed)
    correct = rng.random((len(keys), clips)) < 0.6
    label = rng.integers(0, 3, clips)
    names = np.array([f"c{i}" for i in range(clips)])
    return Passes(names, label, keys, correct, correct | (rng.random(correct.shape) < 0.5))


@given(tables())
def test_summary_against_loops(table):
    levels, draws, *_ = table
    passes = passes_of(*table)

    def top1(level: float, draw: int) -> float:
        row = passes.keys.index(("a", level, draw))
        return 100 * sum(passes.correct[row].tolist()) / len(passes.name)

    clean = 100 * sum(passes.correct[0].tolist()) / len(passes.name)
    mean = [sum(top1(level, d) for d in range(draws)) / draws for level in levels]
    total, x, y = 0.0, 0.0, clean
    for level, value in zip(levels, mean, strict=True):
        total += (level - x) * (value + y) / 2
        x, y = level, value
    by_draw = [sum(top1(level, d) for level in levels) / len(levels) for d in range(draws)]
    average = sum(by_draw) / draws
    variance = sum((value - average) ** 2 for value in by_draw) / max(draws - 1, 1)
    [row] = summary_rows(passes.rows())
    # the table is rounded to 4 digits, as are the rows that it is made from
    assert row["clean"] == pytest.approx(clean, abs=2e-4)
    assert row["mean"] == pytest.approx(average, abs=2e-4)
    assert row["auc"] == pytest.approx(total / levels[-1], abs=2e-4)
    assert row["worst"] == pytest.approx(min(mean), abs=2e-4)
    expected = variance**0.5 if draws > 1 else float("nan")
    assert row["spread"] == pytest.approx(expected, abs=4e-4, nan_ok=True)
    if clean:
        assert row["retention"] == pytest.approx(100 * average / clean, abs=4e-3)
    else:
        assert np.isnan(row["retention"])


@given(tables())
def test_classes_against_loops(table):
    passes = passes_of(*table)
    rows = class_accuracy_rows(passes, ["x", "y", "z"])
    groups = list(dict.fromkeys((name, level) for name, level, _ in passes.keys))
    present = sorted(set(passes.label.tolist()))
    assert [(r["class"], r["corruption"], r["level"]) for r in rows] == [
        ("xyz"[label], *group) for label in present for group in groups
    ]
    for row in rows:
        mine = [i for i, label in enumerate(passes.label) if "xyz"[label] == row["class"]]
        passed = [
            r for r, k in enumerate(passes.keys) if k[:2] == (row["corruption"], row["level"])
        ]
        hits = [passes.correct[r, i] for r in passed for i in mine]
        assert row["clips"] == len(mine)
        assert row["top1"] == pytest.approx(100 * sum(hits) / len(hits), abs=1e-4)


def test_area_of_a_straight_line():
    area = normalized_auc({0.0: (80, 0), 1.0: (60, 0), 4.0: (0, 0)})
    assert area == pytest.approx(70 / 4 + 90 / 4)


def test_files_and_earlier_ones(tmp_path):
    keys = [CLEAN_PASS, PassKey("a", 0.5, 0), PassKey("a", 0.5, 1)]
    correct = np.array([[True, True], [True, False], [False, False]])
    passes = Passes(np.array(["n", "m"]), np.array([1, 0]), keys, correct, correct)
    seconds = [CLEAN_PASS, PassKey("second_store", 1.0, 0)]
    second = Passes(
        passes.name[:1], passes.label[:1], seconds, correct[[0, 2], :1], correct[:2, :1]
    )
    assert back_up(tmp_path) is None
    write_robustness(tmp_path, passes, ["x", "y"], second)
    with np.load(tmp_path / "robustness_clips.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["correct"], correct)
        assert file["correct"].dtype == bool
        assert file["name"].tolist() == ["n", "m"]
        assert file["label"].tolist() == [1, 0]
        columns = (file[key].tolist() for key in ("corruption", "level", "draw"))
        assert list(zip(*columns, strict=True)) == keys
    with np.load(tmp_path / "robustness_second_store.npz") as file:
        assert file["corruption"].tolist() == ["clean", "second_store"]
        assert file["correct"].tolist() == [[True], [False]]
    rows = list(csv.DictReader((tmp_path / "robustness.csv").open()))
    assert [(r["corruption"], float(r["level"]), float(r["top1"])) for r in rows] == [
        *(("clean", 0, 100), ("a", 0, 100), ("a", 0, 100), ("a", 0.5, 50), ("a", 0.5, 0)),
        *(("second_store", 0, 100), ("second_store", 1, 0)),
    ]
    text = (tmp_path / "robustness_summary.csv").read_text().splitlines()
    assert text[0] == "corruption,clean,mean,auc,retention,worst,spread"
    assert text[1] == f"a,100.0,25.0,62.5,25.0,25.0,{round(50 / 2**0.5, 4)}"
    assert text[2] == "second_store,100.0,0.0,50.0,0.0,0.0,nan"
    classes = list(csv.DictReader((tmp_path / "robustness_classes.csv").open()))
    assert class_scores(classes, "a", 0.5) == {"x": 0, "y": 50}
    assert class_scores(classes, "second_store", 0.0) == {"y": 100}
    assert class_scores(classes, "b", 0.5) == {}
    assert back_up(tmp_path) == tmp_path / "robustness.1.csv"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("robustness.1.csv", "robustness_summary.1.csv", "robustness_classes.1.csv"),
        *("robustness_clips.1.npz", "robustness_second_store.1.npz"),
    }
    (tmp_path / "robustness.csv").write_text("")
    assert back_up(tmp_path) == tmp_path / "robustness.2.csv"


def test_published_curves():
    curves = published_noise(["MaskCLR", "PoseConv3D"])
    sigma, top1 = curves["spatiotemporal_noise"]["PoseConv3D (published, NTU60-XSub)"]
    assert sigma == [i / 1000 for i in range(11)]
    assert (top1[0], top1[-1]) == (93.7, 15.2)
    everything = published_noise(["MaskCLR, class loss only", "MotionBERT-R", "MS-G3D", "AAGCN"])
    for methods in everything.values():
        assert all(len(x) == len(y) == 11 for x, y in methods.values())
    with pytest.raises(InputError, match="no published curve of 'x'; expected one of MaskCLR, "):
        published_noise(["x"])


# the attack


def linear_model(poses: Poses, seed: int = 0) -> Callable[[Tensor, Batch], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(V * poses.coordinates, 4, generator=generator)
    return lambda clip, batch: clip[..., : poses.coordinates].mean((1, 2)).flatten(1) @ weight


@pytest.mark.parametrize("poses", [FLAT, SPACE])
def test_the_attack_finds_the_worst_for_a_linear_model(poses):
    """Cross-entropy of two classes is monotone in the logits' difference: each coordinate moves by
    the full reach along the sign of its weight."""
    weight = linear_model(poses)
    two: Callable[[Tensor, Batch], Tensor] = lambda clip, b: weight(clip, b)[:, :2]  # noqa: E731
    data = batch(4)
    data["label"] %= 2
    data["clip"][..., :2] *= 0.5
    reach = 0.03
    out = Adversarial((reach,))(two, data, reach, poses)
    C = poses.coordinates
    clip = data["clip"].clone().requires_grad_()
    nn.functional.cross_entropy(two(clip, data), data["label"], reduction="sum").backward()
    there = (data["clip"] != 0).any(-1, keepdim=True)
    expected = data["clip"][..., :C] + reach * clip.grad[..., :C].sign() * there
    torch.testing.assert_close(out[..., :C], expected, rtol=0, atol=1e-6)  # float32 near 0.5
    assert torch.equal(out[..., C:], data["clip"][..., C:])


@pytest.mark.parametrize("poses", [FLAT, SPACE])
@given(st.floats(0, 0.2), st.integers(1, 4), st.integers(0, 50))
def test_the_attack_stays_within_reach(poses, reach, steps, seed):
    data = batch(3, length=3, seed=seed, padding=1)
    data["clip"][..., 0] *= 2.2  # some joints outside of the image, which may stay there
    predict = linear_model(poses, seed)
    out = Adversarial((0.1,), steps)(predict, data, reach, poses)
    again = Adversarial((0.1,), steps)(predict, data, reach, poses)
    assert torch.equal(out, again)
    moved = out - data["clip"]
    assert moved.abs().max() <= reach * (1 + 1e-5) + 1e-7  # float32
    assert not out[(data["clip"] == 0).all(-1)].any()
    if poses.coordinates == 2:
        limit = data["clip"][..., :2].abs().clamp(min=1)
        assert (out[..., :2].abs() <= limit).all()
        assert torch.equal(out[..., 2], data["clip"][..., 2])
    if reach == 0:
        assert torch.equal(out, data["clip"])
    losses = [
        nn.functional.cross_entropy(predict(clip, data), data["label"], reduction="none")
        for clip in (data["clip"], out)
    ]
    assert (losses[1] >= losses[0]).all()


def test_a_step_without_gradient_moves_nothing():
    """As of the square root at 0: no number, and joints elsewhere go on."""

    def predict(clip: Tensor, batch: Batch) -> Tensor:
        broken = (clip[..., 1, 0] * 0).sqrt().sum((1, 2))
        return torch.stack((clip[..., 4, 0].sum((1, 2)) + broken, torch.zeros(len(clip))), 1)

    data = batch(2)
    data["label"] %= 2
    moved = Adversarial((0.01,))(predict, data, 0.01, FLAT) != data["clip"]
    assert moved[:, 0, :, 4, 0].all()
    assert not moved[..., 1, 0].any()


def test_attacks_that_make_no_sense_are_refused():
    for levels, steps in (
        ((0.0,), 1),
        ((-1,), 1),
        ((float("inf"),), 1),
        ((0.1,), 0),
        ((0.2, 0.1), 1),
    ):
        with pytest.raises(InputError, match=r"adversarial=.*expected ascending levels above 0"):
            Adversarial(levels, steps)


# a second store


def body_store(path: Path, names: list[str], labels: list[int], classes: str = "xy") -> Store:
    rng = np.random.default_rng(0)
    recordings = [
        Recording(name, label, rng.uniform(1, 99, (1, 5, V, 2)).astype(np.float32), None, (99, 99))
        for name, label in zip(names, labels, strict=True)
    ]
    splits = {"test": names}
    return write_store(
        path, recordings, skeleton=FLAT.skeleton, splits=splits, class_names=list(classes)
    )


def part_of(store: Store) -> ClipDataset:
    return ClipDataset(store, np.arange(len(store)), 4, 1, train=False)


def test_clips_are_matched_by_name(tmp_path):
    test = part_of(body_store(tmp_path / "a.h5", ["p", "q.avi", "r"], [0, 1, 0]))
    same = body_store(tmp_path / "b.h5", ["r", "x", "q.avi"], [0, 0, 1])
    here, there = match_clips(same, test)
    assert (here.tolist(), there.tolist()) == ([1, 2], [2, 0])
    stems = body_store(tmp_path / "c.h5", ["r.npz", "q.json", "q.npz", "p.json"], [0, 1, 1, 0])
    here, there = match_clips(stems, test)
    assert (here.tolist(), there.tolist()) == ([0, 2], [3, 0])  # there are two of q


def test_stores_of_other_clips_are_refused(tmp_path):
    test = part_of(body_store(tmp_path / "a.h5", ["p", "q"], [0, 1]))
    with pytest.raises(InputError, match=r"b\.h5: no clip has the name of a test clip"):
        match_clips(body_store(tmp_path / "b.h5", ["z"], [0]), test)
    with pytest.raises(InputError, match=r"clip 'q' has class 0 \('x'\), expected class 1 "):
        match_clips(body_store(tmp_path / "c.h5", ["p", "q"], [0, 0]), test)
    with pytest.raises(InputError, match=r"clip 'q' has class 1 \('z'\)"):
        match_clips(body_store(tmp_path / "d.h5", ["p", "q"], [0, 1], "xz"), test)


@pytest.mark.skipif(not UI_PRMD.is_dir(), reason="real data not here")
def test_the_two_sensors_of_a_real_set(tmp_path):
    """UI-PRMD: 20 clips that Kinect saw are not among those of Vicon."""
    kinect, vicon = (
        convert(
            PysklSource(UI_PRMD / f"ui_prmd_{sensor}.pkl"),
            tmp_path / f"{sensor}.h5",
            skeleton=load_skeleton(UI_PRMD / f"ui_prmd_{sensor}.meta.yaml"),
            splits={},
        )
        for sensor in ("kinect", "vicon")
    )
    here, there = match_clips(vicon, part_of(kinect))
    assert len(here) == 1980
    assert all(kinect.name(int(i)) == vicon.name(int(j)) for i, j in zip(here, there, strict=True))


# the command


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


@pytest.mark.parametrize("stream", ["joint", "bone", "joint_motion", "bone_motion"])
@pytest.mark.parametrize(
    ("augment", "layout"),
    [
        *(("motionbert", "h36m17"), ("motionbert", None), ("body2d", None), ("none", None)),
        *(("ntu3d", "h36m17"), ("ntu3d", None), ("aimclr", None), ("aimclr_2d", None)),
    ],
)
def test_the_attack_reaches_through_every_preprocessing(augment, layout, stream):
    """The clip that comes out is no longer recognised as well, and every step let gradients by.

    Kind: a command that ends in a traceback for some settings (issue 13, 16: motion streams).
    """
    source = SKELETONS["coco17" if augment not in ("ntu3d", "aimclr") else "ntu25"]
    sizes = [
        f"clip.joints={17 if layout else len(source)}",
        "clip.channels=3",
        "clip.classes=4",
        "clip.parts=[[0]]",
    ]
    sizes += ["clip.pairs=[[4,8]]", "clip.root=0", "clip.center=0", "clip.shoulders=[4,8]"]
    sizes += ["backbone.dim=16", "backbone.depth=1", "backbone.rep_dim=16", "head=action_small"]
    sizes += [f"augment={augment}", f"clip.skeleton={layout or 'null'}", "clip.frames=6"]
    sizes += [f"clip.stream={stream}"]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        method = build_method(hydra.compose("train", sizes), source).eval()
    GlobalHydra.instance().clear()
    assert isinstance(method, Classifier)
    clip = torch.rand(3, 2, 6, len(source), 3)
    clip[1, 1], clip[0, 0, 2], clip[:, :, 3, 5] = 0, 0, 0
    data: Batch = batch(3) | {"clip": clip, "frame": torch.arange(6).expand(3, 6)}
    poses = Poses(source, 2 if "coco" in source.name else 3)
    reach = 0.05

    def predict(clip: Tensor, batch: Batch) -> Tensor:
        return method.predict_clips(clip, batch).logits

    out = Adversarial((reach,))(predict, data, reach, poses)
    with torch.no_grad():
        before, after = (
            nn.functional.cross_entropy(predict(c, data), data["label"]) for c in (clip, out)
        )
    assert after > before
    assert all(parameter.grad is None for parameter in method.parameters())


@pytest.mark.figures
def test_poster(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_second_store_of_the_same_clips(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
            mine = [order[name] for name in second["name"].tolist()]
            assert (first["correct"][0][mine] == second["correct"][0]).all()
    assert rows[2]["top1"] == rows[1]["top1"]
    assert re.search(r"^second_store +\d+\.\d", printed, re.M)


@pytest.mark.parametrize("method", ["linear_probe", "knn"])
def test_every_classifier(world: Path, capsys: pytest.CaptureFixture[str], method: str) -> None:
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
def test_mistakes_end_in_one_line(
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


def test_what_the_data_do_not_have_is_left_out(
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
