"""Clips that a model was trained on, found again in later runs."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from maskclr_pl.backbones.weight_files import read_weights
from maskclr_pl.checkpoint.trained_on import ClipSet, TrainingRecord, check_start, start_advice
from maskclr_pl.data import Recording, write_store
from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError
from tests.helpers.commands import SMALL, in_process, refused

CHAIN = Skeleton("chain", ("root", "hand"), (-1, 0))


def part(folder, names, *, seed=0, channels=3, classes=("sit", "stand"), **options):
    """Clips whose poses depend on seed and place."""
    rng = np.random.default_rng(seed)
    recordings = [
        Recording(
            name,
            i % 2,
            rng.uniform(1, 9, (1, 5, 2, channels)).astype(np.float32),
            frame_size=None if channels == 3 else (10, 10),
        )
        for i, name in enumerate(names)
    ]
    folder.mkdir(exist_ok=True)
    store = write_store(
        folder / f"{seed}{channels}{len(names)}.h5",
        recordings,
        skeleton=CHAIN,
        splits={},
        class_names=list(classes),
    )
    return ClipDataset(store, np.arange(len(names)), 4, 1, False, **options)


def only(clips, rows):
    some = copy.copy(clips)
    some.rows = clips.rows[rows]
    return some


def check(record, keep=False, **parts):
    return check_start(record, parts, "runs/a", "use other clips", keep)


def test_the_record_survives_a_checkpoint(tmp_path):
    """Kind: what a model was trained on is forgotten with its run."""
    clips = part(tmp_path, [f"c{i}" for i in range(9)])
    record = TrainingRecord().trained(only(clips, slice(0, 4)), labels=True)
    record = record.trained(only(clips, slice(2, 6)), labels=False)
    torch.save({"maskclr_pl": {"trained_on": record.to_dict()}}, tmp_path / "a.ckpt")
    read = TrainingRecord.read(read_weights(tmp_path / "a.ckpt"), "a")
    assert read.unrecorded == ()
    for kind, rows in (("labeled", range(4)), ("unlabeled", range(2, 6))):
        same, namesakes = getattr(read, kind).find_in(clips)
        assert np.flatnonzero(same).tolist() == list(rows)
        assert not namesakes.any()
        expected = np.sort(clips.store.digest[list(rows)].astype(np.uint64).view(np.int64))
        assert np.array_equal(getattr(read, kind).poses, expected)


def test_the_same_poses_by_another_name(tmp_path):
    """Kind: another split, another store."""
    before = part(tmp_path, [f"a{i}" for i in range(6)])
    now = part(tmp_path / "now", [f"b{i}" for i in range(6)])
    record = TrainingRecord().trained(only(before, [1, 4]), labels=True)
    with pytest.raises(InputError) as refusal:
        check(record, validation=only(now, [0, 1]), test=only(now, [3, 4, 5]))
    assert str(refusal.value) == (
        "init_from=runs/a, or a run that it started from, was trained with labels on 1 of the 2 "
        "validation clips and 1 of the 3 test clips of this run, the first is 'b1'; use other "
        "clips, or init_overlap=keep to accept it"
    )
    [note] = check(record, keep=True, test=only(now, [3, 4, 5]))
    assert note.endswith("1 of the 3 test clips of this run, the first is 'b4' (init_overlap=keep)")
    assert check(record, validation=only(now, [0, 2]), test=only(now, [3, 5])) == []


def test_ntu_samples_are_the_same_in_2d_and_3d(tmp_path):
    """Kind: as above, where the poses differ but the recordings do not."""
    names = [f"S001C00{i}P001R001A001" for i in range(1, 4)]
    deep = part(tmp_path, names)
    flat = part(tmp_path / "flat", [f"{name}_rgb" for name in names], seed=1, channels=2)
    record = TrainingRecord().trained(only(deep, [0]), labels=True)
    with pytest.raises(
        InputError, match=r"1 of the 3 test clips of this run, the first is 'S001C001"
    ):
        check(record, test=flat)
    assert check(record, test=only(flat, [1, 2])) == []


def test_a_name_alone_is_mentioned(tmp_path):
    """Another set may call its clips 0, 1, 2 as well."""
    before = part(tmp_path, ["0", "1"])
    record = TrainingRecord().trained(before, labels=True)
    again = part(tmp_path / "again", ["0", "7"], seed=1)
    [note] = check(record, test=again)
    assert "with the names and classes of 1 of the 2 test clips, but with other poses" in note
    other = part(tmp_path / "other", ["0", "7"], seed=1, classes=("jump", "run"))
    assert check(record, test=other) == []


def test_a_pretraining_on_test_clips_is_a_note(tmp_path):
    clips = part(tmp_path, ["a", "b", "c"])
    record = TrainingRecord().trained(only(clips, [0, 1]), labels=False)
    parts = {"validation": only(clips, [0]), "test": only(clips, [1, 2])}
    assert check(record, **parts) == ["runs/a saw 1 of the 2 test clips, without labels"]


def test_checkpoints_without_a_record_are_said(tmp_path):
    """Kind: a check that passes because there is nothing to check by."""
    for content in ({}, {"maskclr_pl": {"config": {}}}, {"maskclr_pl": {"trained_on": [3]}}):
        record = TrainingRecord.read(content, "runs/old")
        clips = part(tmp_path, ["a"])
        assert check(record, test=clips)[0].startswith(
            "runs/old has no record of its training clips"
        )
        later = TrainingRecord.read({"maskclr_pl": {"trained_on": record.to_dict()}}, "runs/new")
        assert later.unrecorded == ("runs/old",)


def test_stores_without_digests(tmp_path):
    clips = part(tmp_path, ["a", "S001C001P001R001A001"])
    clips.store.digest = None
    known = ClipSet.from_dataset(clips)
    assert not len(known.poses)
    same, namesakes = known.find_in(clips)
    assert (same.tolist(), namesakes.tolist()) == ([False, True], [True, False])


@pytest.mark.parametrize(
    ("ours", "theirs", "advice"),
    [
        ({}, {}, "use clips that it has not seen"),
        ({}, {"seed": 3}, "pass data.seed=3 to hold out the same clips"),
        ({}, {"val_fraction": 0}, "pass monitor_split=last, which holds no clips out, as it did"),
        ({}, {"val_fraction": 0.2}, "pass data.val_fraction=0.2 to hold out the same clips"),
        ({}, {"train_split": "a"}, "pass data.train_split=a as it had"),
        ({}, {"path": "b.h5"}, "use clips that it has not seen"),
        ({"seed": 1}, {"path": "b.h5"}, "pass data.seed=0 to hold out the same clips"),
    ],
)
def test_advice(ours, theirs, advice):
    base = {"path": "a.h5", "train_split": "t", "test_split": "u", "val_split": None}
    base |= {"val_fraction": 0.1, "seed": 0}
    full = {**base, **theirs} if theirs else {}
    assert start_advice({**base, **ours}, full) == advice


@pytest.mark.slow
def test_runs_that_start_from_others(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: another seed or split whose clips the start was trained on; also two runs ago."""
    data = ["data=custom", f"data.path={toy_run / 'poses.h5'}", *SMALL, "trainer.max_epochs=1"]
    split = [*data, "data.train_split=train", "data.test_split=test"]
    start = f"init_from={toy_run / 'run'}"
    line = refused("train", *split, start, "seed=1", cwd=tmp_path, capsys=capsys)
    assert "was trained with labels on" in line
    assert "validation clips of this run, the first is 'clip0" in line
    assert "pass data.seed=0 to hold out the same clips, or init_overlap=keep" in line
    quick = "data.batch_size=8"
    out = in_process(
        "train",
        *split,
        start,
        "seed=1",
        "data.seed=0",
        quick,
        "output_dir=b",
        cwd=tmp_path,
        capsys=capsys,
    )
    assert "trained with labels" not in out
    turned = [*data, "data.train_split=test", "data.test_split=train", "monitor_split=last"]
    line = refused("train", *turned, "init_from=b", cwd=tmp_path, capsys=capsys)
    assert "test clips of this run" in line
    assert "pass data.train_split=train data.test_split=test as it had" in line
    kept = ["init_overlap=keep", quick, "output_dir=c"]
    out = in_process("train", *turned, "init_from=b", *kept, cwd=tmp_path, capsys=capsys)
    [note] = [one for one in out.splitlines() if "(init_overlap=keep)" in one]
    assert note.startswith("note: b, or a run that it started from, was trained with labels on")
    records = [
        torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)["maskclr_pl"]
        for run in ("b", "c")
    ]
    before, after = (len(one["trained_on"]["labelled"]["poses"]) for one in records)
    assert after == before + 8, "the clips of the start and its own"
    line = refused("train", *turned, "init_from=c", "init_overlap=ok", cwd=tmp_path, capsys=capsys)
    assert "init_overlap=ok: expected refuse or keep" in line
