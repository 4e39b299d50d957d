"""Copies of clips in the data module, and clips of their own length."""

import numpy as np
import pytest
import torch

from maskclr_pl.data import Recording, write_store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.dataset import MAX_FRAMES
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError

CHAIN = Skeleton("chain", ("root", "hand"), (-1, 0))


def clip(name, seed, frames=5, label=0):
    keypoint = np.random.default_rng(seed).uniform(1, 9, (1, frames, 2, 3)).astype(np.float32)
    return Recording(name, label, keypoint)


def module(folder, train, test, **options):
    """Of clips with the given seeds: the same seed means the same poses."""
    names = [f"{part}{i}" for part, seeds in (("a", train), ("b", test)) for i in range(len(seeds))]
    recordings = [clip(name, seed) for name, seed in zip(names, [*train, *test], strict=True)]
    splits = {
        "train": names[: len(train)],
        "val": names[:1],
        "rest": names[1 : len(train)],
        "test": names[len(train) :],
    }
    store = write_store(folder / "s.h5", recordings, skeleton=CHAIN, splits=splits)
    parts = {"train_split": "train", "test_split": "test"}
    return SkeletonDataModule(str(store.path), **{**parts, "sampling": "whole", **options})


def test_training_clips_that_are_copies_of_test_clips_are_left_out(tmp_path):
    data = module(tmp_path, range(20), [3, 100, 7, 7])
    kept = {*data.train.names, *data.val.names}
    assert kept == {f"a{i}" for i in range(20) if i not in (3, 7)}
    assert data.test.names == ["b0", "b1", "b2", "b3"]
    assert data.notes == ["2 clips of train are dropped: same poses as clips of test"]


def test_nor_is_a_checkpoint_chosen_on_them(tmp_path):
    """The clips held out for validation come from the same split as those to train on."""
    for seed in range(5):
        data = module(tmp_path, range(6), [0, 1, 2], val_fraction=0.5, seed=seed)
        assert {*data.train.names, *data.val.names} == {"a3", "a4", "a5"}


def test_copies_of_validation_clips_do_not_train_either(tmp_path):
    data = module(tmp_path, [1, 2, 1, 3], [9], train_split="rest", val_split="val")
    assert (data.train.names, data.val.names) == (["a1", "a3"], ["a0"])
    assert data.notes == ["1 clips of rest are dropped: same poses as clips of validation"]


def test_a_checkpoint_is_not_chosen_on_copies_of_test_clips(tmp_path):
    """Whoever gives a validation split gets the same policy as for training."""
    seeds = [[1, 2, 3, 4], [5, 6, 2]]
    splits = {"train_split": "rest", "val_split": "val"}
    # the only clip to choose on
    with pytest.raises(InputError, match=r"0 validation.*needs at least one; 1 clips of val are"):
        module(tmp_path, [2, 1, 3, 4], seeds[1], **splits)
    data = module(tmp_path, *seeds, train_split="val", val_split="rest")
    assert (data.train.names, data.val.names) == (["a0"], ["a2", "a3"])
    assert data.notes == ["1 clips of rest are dropped: same poses as clips of test"]
    with pytest.raises(InputError, match=r"1 clips of split 'rest' have.*example 'a1'"):
        module(tmp_path, *seeds, train_split="val", val_split="rest", duplicates="refuse")
    data = module(tmp_path, *seeds, train_split="val", val_split="rest", duplicates="keep")
    assert data.val.names == ["a1", "a2", "a3"]


@pytest.mark.parametrize("duplicates", ["drop", "refuse", "keep"])
def test_a_test_split_may_be_given_for_validation(tmp_path, duplicates):
    """Also one with the same poses twice: these are the clips that were asked for."""
    data = module(tmp_path, [1, 2, 3], [7, 8, 7], val_split="test", duplicates=duplicates)
    assert data.val.names == data.test.names == ["b0", "b1", "b2"]
    assert data.train.names == ["a0", "a1", "a2"]
    assert data.notes == [
        "3 clips of test are also in test: the checkpoint is selected on clips it is tested on"
    ]


def test_copies_may_be_refused_or_kept(tmp_path):
    with pytest.raises(InputError, match=r"1 clips of split 'train' have.*example 'a2'"):
        module(tmp_path, range(9), [2], duplicates="refuse")
    data = module(tmp_path, range(9), [2], duplicates="keep")
    assert len(data.train) + len(data.val) == 9
    assert not data.notes


def test_clips_of_their_own_length_are_padded_to_the_longest_of_a_batch(tmp_path):
    recordings = [clip(f"c{i}", i, frames) for i, frames in enumerate((3, 8, 5, 700, 301, 300))]
    names = [one.name for one in recordings]
    splits = {"train": names[:3], "test": names[3:], "short": names[:3]}
    path = str(write_store(tmp_path / "s.h5", recordings, skeleton=CHAIN, splits=splits).path)
    options = {"sampling": "whole", "val_fraction": 0.34}
    data = SkeletonDataModule(path, "test", "short", **options)
    [batch] = data.test_dataloader()
    assert batch["clip"].shape == (3, 2, 8, 2, 3)
    for i, one in enumerate(recordings[:3]):
        length = one.keypoint.shape[1]
        found = batch["clip"][i]
        np.testing.assert_array_equal(found[0, :length], one.keypoint[0])
        assert not found[:, length:].any()
        assert not found[1].any()
        assert batch["frame"][i].tolist() == [*range(length), *[-1] * (8 - length)]
    assert batch["present"].tolist() == [[True, False]] * 3
    # longer ones are thinned evenly
    [batch] = SkeletonDataModule(path, "train", "test", **options).test_dataloader()
    assert batch["clip"].shape[2] == MAX_FRAMES
    for i, frames in enumerate((700, 301, 300)):
        expected = torch.arange(300) * frames // 300
        assert torch.equal(batch["frame"][i], expected)
        pose = torch.from_numpy(recordings[3 + i].keypoint[0])
        assert torch.equal(batch["clip"][i, 0], pose[expected])
