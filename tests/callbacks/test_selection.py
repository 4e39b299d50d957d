"""The epoch in best.ckpt, and early stopping."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.callbacks import BestCheckpoint, EarlyStopping, MaskingCallback, too_few_clips
from maskclr_pl.figures.curves import training_curves
from maskclr_pl.masking import RandomMasking
from maskclr_pl.methods.stages import Stage, check_stages, planned_epochs
from maskclr_pl.runs.read import epoch_markers
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.types import InputError
from tests.helpers.scripted import Scripted, fit


def chosen(folder: Path) -> int:
    """The epoch in best.ckpt, from 0."""
    epoch: int = torch.load(folder / "best.ckpt", weights_only=True)["epoch"]
    return epoch


SCORES = [(90.0, 0.5), (40.0, 0.9), (70.0, 0.6), (70.0, 0.3), (70.0, 0.3), (60.0, 0.1)]


@pytest.mark.parametrize(
    ("stages", "monitor", "expected"),
    [
        ([], "val/top1", 0),
        # ties: the lower loss, then the later epoch
        ([Stage("masking", "masking.start_epoch", 2)], "val/top1", 4),
        ([Stage("masking", "masking.start_epoch", 0.7)], "val/top1", 4),
        # the ratio is still growing in epochs 2 to 4
        ([Stage("masking", "masking.start_epoch", 2, 3, "masking.ramp_epochs")], "val/top1", 5),
        ([Stage("mining", "method.mining_epoch", 1), Stage("x", "m.x", 5)], "val/top1", 5),
        ([], None, 5),
    ],
)
def test_only_epochs_in_which_every_stage_is_on_are_eligible(
    tmp_path: Path, stages: list[Stage], monitor: str | None, expected: int
) -> None:
    """The kind: best.ckpt from an epoch in which the method was still another one."""
    for stage in stages:
        stage.resolve(len(SCORES))
    best = BestCheckpoint(tmp_path, monitor)
    fit(Scripted(SCORES, stages=stages), tmp_path, best)
    assert chosen(tmp_path) == best.best.epoch == expected


def test_callbacks_have_stages_too(tmp_path: Path) -> None:
    masking = MaskingCallback(RandomMasking(), start_epoch=3)
    assert [stage.full for stage in masking.stages] == [3]
    module = Scripted(SCORES)
    module.masking, module.skeleton = None, load_skeleton("coco17")
    fit(module, tmp_path, masking, BestCheckpoint(tmp_path))
    assert chosen(tmp_path) == 4


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    fit(
        Scripted([(math.nan, 0.1), (10.0, math.nan), (10.0, 0.4)]),
        tmp_path,
        BestCheckpoint(tmp_path),
    )
    assert chosen(tmp_path) == 2


def test_epochs_that_are_not_validated_are_not_chosen(tmp_path: Path) -> None:
    """Their score would be that of an earlier epoch."""
    options = {"check_val_every_n_epoch": 2}
    fit(Scripted(SCORES), tmp_path, BestCheckpoint(tmp_path), **options)
    assert chosen(tmp_path) == 3


def test_a_continued_run_compares_with_what_it_has(tmp_path: Path) -> None:
    first = BestCheckpoint(tmp_path)
    first.best = None
    fit(Scripted(SCORES[:1]), tmp_path, first)
    second = BestCheckpoint(tmp_path)
    second.load_state_dict(first.state_dict())
    fit(Scripted([(90.0, 0.6), (80.0, 0.1)]), tmp_path, second)
    assert second.best == first.best == (90.0, -0.5, 0)


@pytest.mark.parametrize(("epoch", "adopted"), [(3, True), (1, False)])
def test_best_of_an_older_version_is_kept_if_it_is_eligible(
    tmp_path: Path, epoch: int, adopted: bool
) -> None:
    """As version 15b7e28 left it: the state of Lightning's ModelCheckpoint."""
    torch.save({"epoch": epoch}, tmp_path / "best.ckpt")
    best = BestCheckpoint(tmp_path)
    state = {"monitor": "val/top1", "best_model_score": torch.tensor(75.0)}
    checkpoint = {"callbacks": {"ModelCheckpoint{'monitor': 'val/top1'}": state}}
    module = Scripted([(70.0, 0.1)] * 2, stages=[Stage("masking", "masking.start_epoch", 2)])
    trainer = fit(module, tmp_path, best)
    best.best = None
    trainer.state.fn = "fit"
    best.on_load_checkpoint(trainer, module, checkpoint)
    assert best.best == ((75.0, -math.inf, 3) if adopted else None)


@pytest.mark.parametrize(
    ("patience", "stages", "epochs"),
    [
        (2, [], 3),
        # epochs 0 and 1 are not eligible and do not count; 4 is the best
        (1, [Stage("masking", "masking.start_epoch", 2)], 6),
        (None, [], 6),
    ],
)
def test_early_stopping_counts_eligible_epochs(
    tmp_path: Path, patience: int | None, stages: list[Stage], epochs: int
) -> None:
    module = Scripted(SCORES, stages=stages)
    trainer = fit(module, tmp_path, EarlyStopping(patience), BestCheckpoint(tmp_path))
    assert trainer.current_epoch == epochs


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_that_is_no_number_of_epochs(patience: int) -> None:
    with pytest.raises(InputError, match=r"patience=.*expected a whole number"):
        EarlyStopping(patience)


@pytest.mark.parametrize(
    ("clips", "classes", "few"), [(2, 2, True), (19, 2, True), (20, 2, False), (50, 60, True)]
)
def test_a_validation_part_that_is_too_small(clips: int, classes: int, few: bool) -> None:
    """The kind: two clips, tied at 100 from the first epoch on, choose the first epoch."""
    assert bool(too_few_clips(clips, classes)) == few


@given(st.integers(1, 50), st.integers(1, 500), st.integers(1, 40), st.integers(1, 4))
def test_epochs_of_a_training_that_ends_with_steps(
    epochs: int, steps: int, batches: int, accumulate: int
) -> None:
    """Counted one by one: a step after `accumulate` batches, and at the end of an epoch."""
    taken = trained = 0
    while taken < steps and trained < epochs:
        taken += -(-batches // accumulate)
        trained += 1
    assert planned_epochs(epochs, steps, batches, accumulate) == trained
    assert planned_epochs(epochs, -1, batches, accumulate) == epochs


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((-1, -1), "max_epochs=-1 without trainer.max_steps"),
        ((None, -1), "max_epochs=null without trainer.max_steps"),
        ((0, -1), "max_epochs=0"),
        ((3, 0), "max_steps=0"),
    ],
)
def test_a_training_without_an_end(limits: tuple[int | None, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned_epochs(*limits, batches=10)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            Stage("masking", "masking.start_epoch", 300),
            r"start_epoch=300 but max_epochs=4: .*=0\.5",
        ),
        (Stage("mining", "method.mining_epoch", 4), r"mining_epoch=4 but max_epochs=4"),
        (
            Stage("masking", "masking.start_epoch", 2, 2, "masking.ramp_epochs"),
            r"ramp_epochs=2 but max_epochs=4: .* begins in epoch 3 .*ramp_epochs=1 or less",
        ),
    ],
)
def test_a_stage_that_never_begins_is_refused(stage: Stage, message: str) -> None:
    """The kind: `start_epoch: 300` of four epochs was the supervised model, called MaskCLR."""
    stage.resolve(4)
    with pytest.raises(InputError, match=message):
        check_stages([stage], 4, "max_epochs=4")
    check_stages([stage], 301, "max_epochs=301")


def test_a_ramp_can_be_a_share() -> None:
    stage = Stage("masking", "masking.start_epoch", 0.25, 0.5, "masking.ramp_epochs")
    stage.resolve(8)
    assert (stage.first, stage.full) == (2, 6)
    callback = MaskingCallback(RandomMasking(ratio=0.5), 0.25, 0.5)
    callback.stages[0].resolve(8)
    ratios = [m.ratio if m else 0 for m in map(callback.masking_at, range(8))]
    assert ratios == pytest.approx([0, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_curves_mark_where_stages_begin_and_the_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From metrics.json; of an older run, from the columns of what was hidden."""
    metrics = {"best/epoch": 3, "first_epoch/masking": 2, "first_epoch/mining": 1}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert epoch_markers(tmp_path) == {"masking": 2, "best.ckpt": 3}
    drawn = []
    monkeypatch.setattr("maskclr_pl.figures.curves.save", lambda figure, path: drawn.append(figure))
    run = {"loss": ([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0]), "accuracy": ([2, 3, 4], [7.0, 9.0, 8.0])}
    training_curves({"a": run}, tmp_path / "x.png", marks={"a": epoch_markers(tmp_path)})
    for axes, height in zip(drawn[0].axes, (2.0, 9.0), strict=True):
        _, begin, star = axes.lines
        assert list(begin.get_xdata()) == [1.5, 1.5]
        assert (list(star.get_xdata()), list(star.get_ydata())) == ([3], [height])
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "metrics.csv").write_text("epoch,step,masked/nose\n0,1,\n1,2,0.5\n2,3,0.4\n")
    assert epoch_markers(tmp_path) == {"masking": 2}


def test_a_share_is_settled_once() -> None:
    """The kind: with more epochs, masking that was on went off again."""
    stage = Stage("masking", "masking.start_epoch", 0.5)
    stage.resolve(300)
    stage.resolve(600)
    assert stage.first == 150
    assert [Stage("a", "a.b", start).first for start in (0, 150)] == [0, 150]


@pytest.mark.parametrize("start", [-1, -0.5, 1.5, math.nan])
def test_a_start_is_an_epoch_or_a_share(start: float) -> None:
    with pytest.raises(ValueError, match="start_epoch must"):
        Stage("masking", "masking.start_epoch", start)
