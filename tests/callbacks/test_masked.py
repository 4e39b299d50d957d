"""The record of what was hidden, by class and by epoch; the stages of a mask; their figures."""

import csv
from pathlib import Path
from unittest.mock import Mock

import lightning as L
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from maskclr_pl.callbacks import MaskingCallback
from maskclr_pl.callbacks.masking import masked_sums
from maskclr_pl.figures import masked as figures
from maskclr_pl.figures.masked import masked_classes, masked_over_epochs, masking_stages
from maskclr_pl.masking import AttentionGuidedMasking
from maskclr_pl.runs.read import masked_by_class, masked_history, masked_shares
from maskclr_pl.skeletons.skeleton import SKELETONS
from tests.analysis.test_attention import batch_of
from tests.helpers.protocol_tools import CHAIN

pytestmark = pytest.mark.figures

COCO = SKELETONS["coco17"]
PRESENT = [[True, True], [False, False], [False, True], [True, False]]


def masks(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 2, 3, generator=torch.Generator().manual_seed(seed)) < 0.4


@pytest.mark.parametrize("padded", [False, True])
def test_by_class_against_a_loop(padded):
    batch = batch_of(PRESENT)
    batch["label"] = torch.tensor([2, 0, 2, 1])
    mask = masks(8 if padded else 4)
    sums = np.zeros((4, 4))
    for n, place in enumerate(batch["sequence"].tolist()):
        sums[batch["label"][place // 2]] += [*mask[place if padded else n].float().mean(0), 1]
    assert np.allclose(masked_sums(mask, batch, 4).numpy(), sums)
    assert sums[3].sum() == 0


class Masked(L.LightningModule):
    masking, skeleton = None, CHAIN

    def log_dict(self, *_: object, **__: object) -> None:
        """Nothing is logged."""


class Run:
    """A trainer and a method, as far as the callback asks for them."""

    def __init__(self, folder: Path, classes: list[str]):
        self.trainer = Mock(spec=L.Trainer, current_epoch=0, is_global_zero=True)
        self.trainer.default_root_dir, self.trainer.max_epochs = str(folder), 3
        self.trainer.strategy = Mock(reduce=lambda tensor, reduce_op: tensor)
        self.trainer.datamodule = Mock(store=Mock(class_names=classes))
        self.method = Masked()

    def epoch(self, callback: MaskingCallback, number: int, seen) -> None:
        self.trainer.current_epoch = number
        callback.on_train_epoch_start(self.trainer, self.method)
        for index, (mask, batch) in enumerate(seen):
            callback.on_train_batch_end(self.trainer, self.method, {"mask": mask}, batch, index)
        callback.on_train_epoch_end(self.trainer, self.method)


def test_the_record_of_a_training_that_was_continued(tmp_path):
    """Epoch 0 has no masking, epoch 2 is that of a continued run; a class is never seen."""
    batch = batch_of(PRESENT)
    batch["label"] = torch.tensor([2, 0, 2, 1])
    run = Run(tmp_path, ["a", "b", "c, d"])
    first = MaskingCallback(AttentionGuidedMasking(), start_epoch=1)
    first.setup(run.trainer, run.method, "fit")
    run.epoch(first, 0, [(None, batch)])
    assert first.state_dict() == {}
    run.epoch(first, 1, [(masks(4), batch), (masks(4, 1), batch)])
    second = MaskingCallback(AttentionGuidedMasking(), start_epoch=1)
    second.setup(run.trainer, run.method, "fit")
    second.load_state_dict(first.state_dict())
    run.epoch(second, 2, [(masks(4, 2), batch), (masks(0), batch_of([[False]]))])
    second.on_fit_end(run.trainer, run.method)
    rows = list(csv.DictReader((tmp_path / "masked_by_class.csv").open(newline="")))
    assert [(row["class"], row["sequences"]) for row in rows] == [
        ("a", "0"),
        ("b", "3"),
        ("c, d", "9"),
    ]
    share = torch.stack([masks(4, seed).float().mean(1) for seed in range(3)])  # (3, 4, V)
    for v, joint in enumerate(CHAIN.joints):
        assert rows[0][joint] == ""
        assert float(rows[1][joint]) == pytest.approx(share[:, 3, v].mean().item(), abs=1e-6)
        assert float(rows[2][joint]) == pytest.approx(share[:, :3, v].mean().item(), abs=1e-6)
    names, shares = masked_by_class(tmp_path)
    assert names == ["a", "b", "c, d"]
    assert np.isnan(shares[0]).all()
    assert shares[1] == [float(rows[1][joint]) for joint in CHAIN.joints]


def test_an_epoch_in_which_nobody_was_seen(tmp_path):
    run = Run(tmp_path, ["a"])
    callback = MaskingCallback(AttentionGuidedMasking())
    callback.setup(run.trainer, run.method, "fit")
    run.epoch(callback, 0, [(masks(0), batch_of([[False]]))])
    callback.on_fit_end(run.trainer, run.method)
    assert (tmp_path / "masked_by_class.csv").read_text().splitlines()[1] == "a,0,,,"


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_writes_and_only_where_classes_have_names(tmp_path, rank):
    run = Run(tmp_path, ["a"])
    run.trainer.is_global_zero = rank == 0
    run.trainer.datamodule = None if rank == 0 else run.trainer.datamodule
    callback = MaskingCallback(AttentionGuidedMasking())
    callback.setup(run.trainer, run.method, "fit")
    run.epoch(callback, 0, [(masks(1), batch_of([[True]]))])
    callback.on_fit_end(run.trainer, run.method)
    assert not list(tmp_path.iterdir())


def test_no_record(tmp_path):
    assert masked_history(tmp_path) == masked_shares(tmp_path) == {}
    assert masked_by_class(tmp_path) == ([], [])


# --- figures ----------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure) or [path])
    return kept


def named_rows(axes) -> dict[str, np.ndarray]:
    """Label -> row of the heat map."""
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    return dict(zip(names, axes.images[0].get_array().filled(np.nan), strict=True))


def keys(figure) -> list[str]:
    """Texts of the keys of a figure."""
    return [text.get_text() for key in figure.legends for text in key.get_texts()]


def test_epochs_without_masking_are_empty(drawn):
    history = {joint: ([2, 3], [0.1 * i, 0.5]) for i, joint in enumerate(CHAIN.joints)}
    masked_over_epochs(history, CHAIN, Path("x.png"))
    rows = named_rows(drawn[0].axes[0])
    assert rows.keys() == {"root", "left hand", "right hand"}
    for i, joint in enumerate(CHAIN.joints):
        row = rows[joint.replace("_", " ")]
        assert np.isnan(row[0])
        assert row[1:].tolist() == pytest.approx([0.1 * i, 0.5])
    assert drawn[0].axes[0].patch.get_hatch()
    assert keys(drawn[0]) == ["no masking in this epoch"]
    masked_over_epochs({j: ([1], [0.5]) for j in CHAIN.joints}, CHAIN, Path("x.png"))
    assert keys(drawn[1]) == []
    assert drawn[0].axes[0].images[0].get_extent()[:2] == [0.5, 3.5]


@pytest.mark.parametrize("classes", [1, 3, 120])
def test_rows_of_classes(drawn, classes):
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.2, 0.3, (classes, 17))
    shares[0, 4] = 0.9  # the class that differs most, in the left ear's place
    if classes > 1:
        shares[1] = np.nan
    names = [f"$c{k}" for k in range(classes)]
    masked_classes(shares, names, COCO, Path("x.png"))
    axes = drawn[0].axes[0]
    rows = named_rows(axes)
    assert len(rows) == 1 + min(classes, 60)
    order = [tick.get_text().replace(" ", "_") for tick in axes.get_xticklabels()]
    assert sorted(order) == sorted(COCO.joints)
    place = [COCO.joints.index(joint) for joint in order]
    for k, name in enumerate(names):
        if name in rows:
            assert np.array_equal(rows[name], shares[k, place], equal_nan=True)
    assert "$c0" in rows
    assert np.allclose(rows["mean of all classes"], np.nanmean(shares, 0)[place])
    assert keys(drawn[0]) == (["no clip of this class"] if "$c1" in rows else [])
    assert ("60 of 120" in drawn[0].get_suptitle()) == (classes > 60)


STRATEGIES = {
    "clip": AttentionGuidedMasking(0.3, scope="clip"),
    "frame": AttentionGuidedMasking(0.3, scope="frame"),
    "tube": AttentionGuidedMasking(0.3, scope="tube", tube_length=2),
    "zscore": AttentionGuidedMasking(0.3, scope="frame", normalize="zscore"),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_stages(name, drawn):
    """Probabilities are softmax(scores / (temperature * max)); the mask is the draw's."""
    strategy, stride, num_steps = STRATEGIES[name], 2, 5
    rng = torch.Generator().manual_seed(1)
    importance = torch.rand(3, stride * num_steps, 17, generator=rng).pow(3)
    draw = strategy.sampling_steps(importance, stride, torch.Generator().manual_seed(7))
    x = torch.zeros(3, stride * num_steps, 17, 3)
    same = strategy(x, importance, stride, torch.Generator().manual_seed(7))
    assert torch.equal(draw.mask, same)
    per_step = importance.unflatten(1, (num_steps, stride)).mean(2)
    if name == "tube":  # stretches of 2, 2 and 1 steps
        stretches = [(0, 1), (0, 1), (2, 3), (2, 3), (4,)]
        per_step = torch.stack([per_step[:, list(s)].mean(1) for s in stretches], 1)
    torch.testing.assert_close(draw.scores, per_step)
    pool = (1, 2) if name == "clip" else (2,)
    z = per_step / per_step.amax(pool, keepdim=True)
    if name == "zscore":
        std, mean = torch.std_mean(per_step, 2, correction=0, keepdim=True)
        z = (per_step - mean) / std
    odds = (z / strategy.temperature).exp()
    torch.testing.assert_close(draw.probabilities, odds / odds.sum(pool, keepdim=True))

    arrays = [step[0].numpy() for step in draw]
    masking_stages(*arrays, COCO, Path("x.png"), "$title", uniform=1 / 17, stride=stride)
    panels = drawn[0].axes[:3]
    order = [tick.get_text().replace(" ", "_") for tick in panels[0].get_yticklabels()]
    place = [COCO.joints.index(joint) for joint in order]
    expected = (arrays[0] / arrays[0].max(), *arrays[1:])
    for axes, values in zip(panels, expected, strict=True):
        assert np.allclose(axes.images[0].get_array(), values.T[place])
        assert axes.images[0].get_extent()[:2] == [-0.5, 9.5], "frames, not steps"
    assert f"{arrays[2].sum()} of 85 tokens" in panels[2].get_title()


def test_files_are_written(tmp_path):
    history = {joint: ([1], [0.3]) for joint in COCO.joints}
    files = masked_over_epochs(history, COCO, tmp_path / "a.png")
    files += masked_classes(np.full((2, 17), 0.3), ["日本", "$"], COCO, tmp_path / "b.png")
    assert [file.name for file in files] == ["a.png", "a.svg", "b.png", "b.svg"]
    assert all(file.stat().st_size > 5000 for file in files)
