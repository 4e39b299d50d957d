"""Pictures of a model: what is drawn is what the model was shown and attended to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from torch import nn

from maskclr_pl.analysis import model_figures as pictures
from maskclr_pl.analysis.attention import sequence_importance
from maskclr_pl.analysis.examples import example_clips, example_pose, model_poses
from maskclr_pl.analysis.model_figures import (
    DEFAULT,
    FIGURES,
    available,
    draw_model_figures,
    draw_run_figures,
    masking_of,
)
from maskclr_pl.callbacks import FiguresCallback
from maskclr_pl.data import Recording, write_store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.figures import attention as figures
from maskclr_pl.figures.attention import (
    attention_colors,
    attention_sizes,
)
from maskclr_pl.heads import LinearHead
from maskclr_pl.losses import CrossEntropy, WeightedSum
from maskclr_pl.masking import AttentionGuidedMasking
from maskclr_pl.methods import KNN, Recognizer
from maskclr_pl.methods.base import Method
from maskclr_pl.runs.results import read_table, write_predictions
from maskclr_pl.transforms import Stream
from maskclr_pl.types import InputError
from tests.backbones.test_backbones import NAMES as BACKBONES
from tests.backbones.test_backbones import small
from tests.helpers.protocol_tools import (
    CHAIN,
    NAMES,
    Coordinates,
    shared,
    state_of,
    toy_data,
    toy_store,
    trainer,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SkeletonDataModule:
    store = toy_store(tmp_path_factory.mktemp("data"), clips=45)
    return toy_data(store, frames=12)


def recognizer(backbone: str = "dstformer", **options: Any) -> Recognizer:
    model = small(backbone, joints=3)
    return Recognizer(
        backbone=model,
        head=LinearHead(model.dim, 3),
        loss=WeightedSum({"ce": CrossEntropy()}),
        num_classes=3,
        **shared(lr=0.01) | options,
    ).eval()


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


BOTH = {f"figures/{n}{s}" for n in ("confusion", "per_class", "attention", "activated_joints")
        for s in (".png", ".svg")}  # fmt: skip
TABLES = {"per_class.csv", "attention.json"}


@pytest.mark.figures
@pytest.mark.parametrize("backbone", BACKBONES)
def test_default_figures(data, tmp_path, backbone):
    files = draw_model_figures(recognizer(backbone), data, CPU, tmp_path)
    assert {str(file.relative_to(tmp_path)) for file in files} == files_below(tmp_path)
    assert files_below(tmp_path) == BOTH | TABLES
    assert all(file.stat().st_size > 5000 for file in (tmp_path / "figures").iterdir())
    assert sum(int(row["clips"]) for row in read_table(tmp_path / "per_class.csv")) == 15


@pytest.mark.parametrize("backbone", ["dstformer_tiny", "transformer"])
def test_every_picture(data, tmp_path, backbone):
    model = recognizer(backbone)
    assert available(model) == list(FIGURES)
    files = draw_model_figures(model, data, CPU, tmp_path, list(FIGURES))
    suffixes = dict.fromkeys(FIGURES, ("svg", "png")) | {"attention_gif": ()}
    expected = {f"figures/{name}.{s}" for name, both in suffixes.items() for s in both}
    assert files_below(tmp_path) == expected | TABLES | {"figures/attention.gif"}
    assert len(files) == len(set(files)) == len(files_below(tmp_path))


def test_methods_without_classes_have_other_figures(data, tmp_path):
    model = Method(backbone=small("transformer", joints=3), **shared())
    assert set(FIGURES) - set(available(model)) == {"confusion", "per_class"}
    draw_model_figures(model, data, CPU, tmp_path)
    assert {path.split("/")[-1].split(".")[0] for path in files_below(tmp_path)} == {
        "attention",
        "activated_joints",
    }
    with pytest.raises(
        InputError, match=r"^figure confusion: Method is not a classifier; expected"
    ):
        draw_model_figures(model, data, CPU, tmp_path, ["confusion"])


def test_unknown_figures_are_refused(data, tmp_path):
    listed = ", ".join(FIGURES)
    with pytest.raises(
        InputError,
        match=rf"no figure named 'atention' \(did you mean attention\?\); expected {listed}",
    ):
        draw_model_figures(recognizer(), data, CPU, tmp_path, ["confusion", "atention"])
    assert not files_below(tmp_path)
    with pytest.raises(InputError, match="has no attention to read"):
        draw_model_figures(
            KNN(backbone=Coordinates(), num_classes=3, **shared()),
            data,
            CPU,
            tmp_path,
            ["attention"],
        )
    assert not draw_model_figures(recognizer(), data, CPU, tmp_path, [])


def test_empty_splits_are_refused(data, tmp_path):
    whole = toy_data(data.store, frames=12, val_fraction=0)
    with pytest.raises(InputError, match="the val split has no clips"):
        draw_model_figures(recognizer(), whole, CPU, tmp_path, split="val")


# --- what is on the pictures --------------------------------------------------------------------


def kept(monkeypatch, module) -> list[Figure]:
    figures_: list[Figure] = []
    monkeypatch.setattr(module, "save", lambda figure, path: figures_.append(figure) or [path])
    return figures_


class Shown(Recognizer):
    """Names class 2 of every clip."""

    def predict_clips(self, clip, batch):
        prediction = super().predict_clips(clip, batch)
        return prediction._replace(logits=torch.eye(3)[[2]].expand(len(clip), 3))


def test_joints_are_colored_by_attention(data, tmp_path, monkeypatch):
    """Places, colors and sizes of the dots of a strip, from the model's own importance."""
    drawn = kept(monkeypatch, figures)
    model = recognizer()
    model.__class__ = Shown
    draw_model_figures(model, data, CPU, tmp_path, ["attention"])
    axes = drawn[0].axes[0]
    titles = [text.get_text() for text in axes.texts if "true:" in text.get_text()]
    chosen = example_clips(data.test, 4)
    assert len(chosen) == len(titles) == 4
    assert {title.split()[-1] for title in titles} == {"c"}
    # after the legend: bones and dots of each clip
    dots = [one for one in axes.collections[1:] if isinstance(one, PathCollection)]
    for index, title, one in zip(chosen, titles, dots, strict=True):
        assert title.startswith(
            f"{data.test.names[index]}   true: {NAMES[data.test.labels[index]]} "
        )
        batch = pictures.collate([data.test[index]])
        with torch.no_grad():
            importance, _ = sequence_importance(model, batch)
        frames = np.linspace(0, 11, 8).round().astype(int)
        relative = (importance / importance.max())[:, frames].flatten().numpy()
        assert len(relative) == len(batch["sequence"]) * 8 * 3
        assert np.allclose(one.get_facecolor()[:, :3], attention_colors(relative), atol=1e-6)
        assert np.allclose(one.get_sizes(), attention_sizes(relative), atol=1e-4)
        places = one.get_offsets().reshape(len(batch["sequence"]), 8, 3, 2)
        seen = batch["clip"].flatten(0, 1)[batch["sequence"]][:, frames, :, :2].numpy()
        for frame in range(8):  # the same shape as the clip, y up
            a, b = places[:, frame].reshape(-1, 2), seen[:, frame].reshape(-1, 2) * (1, -1)
            scale = np.ptp(a, axis=0).max() / np.ptp(b, axis=0).max()
            assert np.allclose(a - a[0], scale * (b - b[0]), atol=1e-3)


def test_examples_show_a_person(tmp_path):
    keypoint = np.random.default_rng(0).uniform(1, 9, (1, 6, 3, 2)).astype(np.float32)
    clips = [Recording(f"c{i}", i % 2, keypoint * (i > 3), frame_size=(9, 9)) for i in range(8)]
    names = [clip.name for clip in clips]
    splits = {"train": names[:1], "test": names[1:]}
    store = write_store(
        tmp_path / "s.h5", clips, skeleton=CHAIN, splits=splits, class_names=["a", "b"]
    )
    part = toy_data(store, val_fraction=0, duplicates="keep").test
    assert [part.names[i] for i in example_clips(part, 2)] == ["c4", "c5"]
    assert [part.names[i] for i in example_clips(part, 4)] == ["c4", "c6", "c5", "c7"]


@pytest.mark.parametrize("stream", [False, True])
def test_model_poses_skip_streams_and_point_up(data, stream):
    """The poses are those before a stream is made of them, with z left out."""
    batch = pictures.collate([data.test[0], data.test[1]])
    steps = [Stream(CHAIN, "bone", confidence=False)] if stream else []
    model = recognizer(preprocess=nn.Sequential(nn.Identity(), *steps))
    flat = batch["clip"].flatten(0, 1)
    points, visible = model_poses(model, batch, "metres")
    assert np.array_equal(points, flat[..., :2])
    assert np.array_equal(visible, (flat != 0).any(-1))
    points, visible = model_poses(model, batch, "pixels")
    assert np.array_equal(points, flat[..., :2] * torch.tensor([1, -1]))
    assert np.array_equal(visible, flat[..., 2] > 0)
    assert np.array_equal(example_pose(model, data.test), flat[0, 0, :, :2])


def test_masking_of_a_run():
    model = recognizer()
    assert masking_of(model) == AttentionGuidedMasking()
    strategy = {
        "_target_": "maskclr_pl.masking.AttentionGuidedMasking",
        "ratio": 0.2,
        "scope": "frame",
    }
    model.metadata = {"config": {"masking": {"strategy": strategy}}}
    assert masking_of(model) == AttentionGuidedMasking(ratio=0.2, scope="frame")
    for other in ({"_target_": "maskclr_pl.masking.RandomMasking", "ratio": 0.2}, None):
        model.metadata = {"config": {"masking": {"strategy": other}}}
        assert masking_of(model) == AttentionGuidedMasking()


# --- a run folder, a training ---------------------------------------------------------------------


def test_figures_of_a_run_folder(tmp_path):
    """Only what there is a record of."""
    assert draw_run_figures(tmp_path, ["a", "b"], CHAIN) == []
    logits = np.array([[2.0, 1], [2, 1], [0, 1]], np.float32)
    write_predictions(tmp_path, np.array(["x", "y", "z"]), np.array([0, 1, 1]), logits)
    files = draw_run_figures(tmp_path, ["a", "b"], CHAIN)
    assert {file.name for file in files} == {"per_class.csv", "confusion.png", "confusion.svg"}
    assert [row["top1"] for row in read_table(tmp_path / "per_class.csv")] == ["100.0", "50.0"]
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,masked/root,masked/left_hand,masked/right_hand\n0,1,,,\n1,2,0.1,0.2,0.3\n"
    )
    (tmp_path / "masked_by_class.csv").write_text(
        "class,sequences,root,left_hand,right_hand\na,2,0.1,0.2,0.3\nb,0,,,\n"
    )
    names = {file.name for file in draw_run_figures(tmp_path, ["a", "b"], CHAIN)}
    assert {"masked_epochs.png", "masked_classes.svg"} <= names


def test_figures_do_not_change_a_training(data, tmp_path):
    def trained(*callbacks: FiguresCallback) -> Recognizer:
        torch.manual_seed(0)
        model = recognizer().train()
        run = trainer(3, callbacks=list(callbacks), default_root_dir=str(tmp_path))
        run.fit(model, datamodule=toy_data(data.store, frames=12))
        return model

    plain = state_of(trained(FiguresCallback()))
    assert not files_below(tmp_path)
    names = ["attention", "confusion", "activated_joints", "masking"]
    drawn = state_of(trained(FiguresCallback(2, names)))
    assert all(torch.equal(plain[name], drawn[name]) for name in plain)
    folders = {path.split("/")[1] for path in files_below(tmp_path)}
    assert folders == {"epoch_002", "epoch_003"}
    for folder in folders:
        there = files_below(tmp_path / "figures" / folder)
        both = {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
        assert there == both | TABLES
        rows = read_table(tmp_path / "figures" / folder / "per_class.csv")
        assert sum(int(row["clips"]) for row in rows) == len(data.val), "validation clips"


def test_unavailable_figures_are_refused_by_the_callback():
    with pytest.raises(InputError, match="every_n_epochs=-1: expected 0"):
        FiguresCallback(-1)
    with pytest.raises(InputError, match="no figure named 'atention'"):
        FiguresCallback(1, ["atention"])
    model = Method(backbone=small("transformer", joints=3), **shared())
    FiguresCallback(0, ["confusion"]).setup(trainer(), model, "fit")
    with pytest.raises(InputError, match="is not a classifier"):
        FiguresCallback(1, ["confusion"]).setup(trainer(), model, "fit")


def test_default_figures_exist():
    assert set(DEFAULT) < set(FIGURES)
