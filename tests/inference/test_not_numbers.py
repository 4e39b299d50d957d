"""Values that are not numbers: in what a model says of clips, in files of poses."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from maskclr_pl.callbacks import BestCheckpoint
from maskclr_pl.cli import refuse_links
from maskclr_pl.data.store.checks import check_recording
from maskclr_pl.data.store.reader import Recording
from maskclr_pl.heads import count_non_finite_as_wrong
from maskclr_pl.inference.inputs import ReadOptions, list_videos
from maskclr_pl.methods.classifier import Classifier
from maskclr_pl.robustness.runner import correct_top1_top5
from maskclr_pl.runs.predictions import accuracy, read_predictions
from maskclr_pl.runs.results import (
    read_table,
    write_metrics,
    write_predictions,
    write_table,
)
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.types import InputError
from tests.helpers.protocol_tools import Coordinates, shared
from tests.helpers.scripted import Scripted, fit

NAN, INF = math.nan, math.inf
LOGITS = torch.tensor(
    [[NAN, NAN, NAN], [NAN, 1, 2], [INF, 1, 2], [-INF, -INF, -INF], [3, -INF, 1], [1, 2, 0]]
)
LABEL = torch.zeros(6, dtype=torch.long)
RIGHT = [False, False, False, False, True, False]


def test_a_clip_without_an_answer_is_wrong(tmp_path: Path) -> None:
    """The kind: the largest of NaNs is the first, so that they counted as class 0."""
    assert (count_non_finite_as_wrong(LOGITS, LABEL).argmax(1) == LABEL).tolist() == RIGHT
    assert correct_top1_top5(LOGITS, {"label": LABEL})[0].tolist() == RIGHT  # type: ignore[typeddict-item]
    assert correct_top1_top5(LOGITS, {"label": LABEL})[1].tolist() == [*RIGHT[:4], True, True]  # type: ignore[typeddict-item]
    names = np.array(list("abcdef"))
    write_predictions(tmp_path, names, LABEL.numpy(), LOGITS.numpy())
    assert accuracy(read_predictions(tmp_path))["test/top1"] == pytest.approx(100 / 6)


class Measured(Classifier):
    """A classifier whose answers are given."""

    def classify(self, tokens, clip_index, batch_size):
        pytest.fail("its answers are given")

    def log(self, *args, **kwargs):
        pass


def test_measured_accuracy() -> None:
    method = Measured(Coordinates(), num_classes=3, **shared())
    method.log_validation(LOGITS, LABEL)
    assert float(method.val_accuracy.compute()["val/top1"]) == pytest.approx(1 / 6)


def test_an_epoch_whose_loss_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path)
    fit(Scripted([(90.0, NAN), (10.0, 0.5), (80.0, NAN)]), tmp_path, best)
    assert best.best is not None
    assert best.best.epoch == 1


@pytest.mark.parametrize("value", [NAN, INF, -1e300, 1e7])
def test_absurd_coordinates_are_refused_by_name(value: float) -> None:
    """The kind: a keypoint of 1e300 was answered with nan."""
    keypoint = np.full((1, 2, 17, 2), 9.0)
    keypoint[0, 1, 9, 1] = value
    recording = Recording("a video", 0, keypoint, frame_size=(10, 10))
    with pytest.raises(InputError, match=r"'a video'.*person 0, frame 1, joint left_wrist"):
        check_recording(recording, SKELETONS["coco17"])


@pytest.mark.parametrize(
    "size",
    [
        np.array([INF, 5.0]),
        np.array([NAN, 5.0]),
        np.array([1, 2, 3]),
        np.array([0, 5]),
        np.array(["9", "9"]),
        np.zeros(2, [("a", "i4")]),
        np.array([True, True]),
        np.zeros((0,)),
    ],
)
def test_frame_sizes_that_are_none(size: np.ndarray, tmp_path: Path) -> None:
    """The kind: a traceback for an image size of infinity, or of records."""
    np.savez(tmp_path / "a.npz", keypoint=np.full((1, 2, 17, 2), 9.0), frame_size=size)
    [entry] = list_videos(tmp_path / "a.npz", ReadOptions(True, SKELETONS["coco17"]))
    with pytest.raises(InputError, match=r"frame_size.* expected"):
        entry.read()


def test_metrics_are_json(tmp_path: Path) -> None:
    write_metrics(tmp_path, {"a": INF, "b": NAN, "c": 1.5})

    def no_number(text: str) -> None:
        raise AssertionError(text)

    values = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=no_number)
    assert values == {"a": None, "b": None, "c": 1.5}


def test_names_are_no_formulas(tmp_path: Path) -> None:
    """The kind: a spreadsheet runs a cell that begins with =, and names come from files."""
    names = ["=1+1", "+x", "-x", "@SUM(A1)", "\tx", "'=x", "'x", "x", "-0.5", "é", ""]
    write_table(tmp_path / "a.csv", [{"=name": name, "n": -1.5} for name in names])
    with (tmp_path / "a.csv").open(newline="") as file:
        cells = [row[0] for row in csv.reader(file)]
    begins = [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t")]
    assert begins == ["-0.5"]
    assert [row["=name"] for row in read_table(tmp_path / "a.csv")] == names


def test_a_cut_table_has_its_whole_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3")
    assert read_table(tmp_path / "a.csv") == [{"a": "1", "b": "2"}]
    for text in (b"", b"a,b\n1\n2,3\n", b"a\n\xff\n"):
        (tmp_path / "a.csv").write_bytes(text)
        with pytest.raises(InputError, match=r"a\.csv: "):
            read_table(tmp_path / "a.csv")


def test_a_run_folder_leads_nowhere_else(tmp_path: Path) -> None:
    """The kind: train.log of a stranger's folder is a link to a file of the user."""
    (tmp_path / "run/figures").mkdir(parents=True)
    refuse_links(tmp_path / "run")
    for name in ("train.log", "figures/training_curves.png"):
        link = tmp_path / "run" / name
        link.symlink_to(tmp_path / "notes.txt")
        with pytest.raises(InputError, match=r"a symbolic link to .*notes"):
            refuse_links(tmp_path / "run")
        link.unlink()
