from itertools import chain

import lightning as L
import numpy as np
import pytest
import torch

from maskclr_pl.data import Recording, write_store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.data.dataset import ClipDataset, collate
from maskclr_pl.data.holdout import hold_out
from maskclr_pl.data.samplers import ClassBalancedBatches, EpochBatches
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import InputError
from tests.helpers.protocol_tools import Recorder

CHAIN = Skeleton("chain", ("root", "left_hand", "right_hand"), (-1, 0, 0))
CLASSES = 4


def clip(name, label=0, *, persons=1, frames=20, subject=-1, seed=0, place=None, **values):
    """Persons far apart; the x of a joint tells the frame."""
    rng = np.random.default_rng(seed)
    shape = (persons, frames, len(CHAIN))
    keypoint = rng.uniform(1, 5, (*shape, 2)).astype(np.float32)
    keypoint[..., 0] += np.arange(frames)[:, None]
    keypoint[..., 1] += 100 * np.array(range(persons) if place is None else place)[:, None, None]
    values = {"keypoint": keypoint, "score": np.ones(shape, np.float16), **values}
    return Recording(name, label, frame_size=(400, 400), subject=subject, **values)


def clips(count=30, subjects=5):
    return [
        clip(
            f"c{i}",
            i % CLASSES,
            frames=9 + i,
            subject=i // 2 % subjects if subjects else -1,
            seed=i,
        )
        for i in range(count)
    ]


def make_store(folder, recordings, test=10):
    names = [one.name for one in recordings]
    splits = {
        "train": names[: len(names) - test],
        "test": names[len(names) - test :],
        "overlap": names[: len(names) - test + 1],
        "other": names[:3],
    }
    return write_store(folder / "s.h5", recordings, skeleton=CHAIN, splits=splits)


def module(store, **options):
    options = {"frames": 6, "persons": 2, "batch_size": 4, "seed": 7, **options}
    splits = {"train_split": "train", "test_split": "test"}
    return SkeletonDataModule(str(store.path), **{**splits, **options})


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path, clips())


def only(tmp_path, recording, *, persons=2, frames=None, train=False):
    store = write_store(tmp_path / "one.h5", [recording], skeleton=CHAIN, splits={})
    frames = frames or recording.keypoint.shape[1]
    return ClipDataset(store, np.arange(1), frames, persons, train)[0]


# --- resampling -----------------------------------------------------------------------------------


def epoch_of(loader, epoch):
    """index -> frames and clip, as one epoch delivers them."""
    loader.batch_sampler.set_epoch(epoch)
    return {
        int(index): (batch["frame"][i], batch["clip"][i])
        for batch in loader
        for i, index in enumerate(batch["index"])
    }


def test_frames_are_drawn_afresh_per_epoch(store):
    loader = module(store, batch_size=2).train_dataloader()
    first, second, again = (epoch_of(loader, epoch) for epoch in (0, 1, 0))
    assert first.keys() == again.keys()
    for index in first.keys() & second.keys():
        assert not torch.equal(first[index][0], second[index][0])
    for index in first:
        assert torch.equal(first[index][0], again[index][0])
        assert torch.equal(first[index][1], again[index][1])


def test_samples_do_not_depend_on_the_workers(store):
    alone, several = (module(store, num_workers=n).train_dataloader() for n in (0, 2))
    for epoch in (0, 3):
        expected, found = epoch_of(alone, epoch), epoch_of(several, epoch)
        assert list(expected) == list(found)  # the order too
        for index, (frame, values) in expected.items():
            assert torch.equal(frame, found[index][0])
            assert torch.equal(values, found[index][1])


def test_samples_depend_on_the_seed_and_on_the_index(store):
    one, other = (module(store, seed=seed, val_split="test") for seed in (0, 1))
    assert not np.array_equal(one.train[0, 5]["frame"], other.train[0, 5]["frame"])
    long = clip("long", frames=200)
    dataset = ClipDataset(
        make_store(store.path.parent, [long, clip("too", frames=200)], test=1),
        np.arange(2),
        frames=50,
        persons=1,
        train=True,
    )
    assert not np.array_equal(dataset[0, 0]["frame"], dataset[0, 1]["frame"])


def test_the_global_generators_have_no_say_and_are_left_alone(store):
    def sample():
        data = module(store, num_workers=0)
        return [batch["frame"] for batch in data.train_dataloader()]

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    first = sample()
    state = torch.get_rng_state()
    second = sample()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_each_training_frame_is_from_its_own_stretch(tmp_path):
    store = make_store(tmp_path, [clip("a", frames=60), clip("b", frames=3)], test=1)
    dataset = ClipDataset(store, np.arange(2), frames=6, persons=1, train=True)
    for epoch in range(20):
        frame = dataset[epoch, 0]["frame"]
        assert (frame // 10 == np.arange(6)).all()
        short = dataset[epoch, 1]["frame"]
        assert (np.diff(short) >= 0).all()
        assert set(short) <= {0, 1, 2}


@pytest.mark.parametrize("frames", [1, 2, 6, 7, 100])
def test_test_clips_are_evenly_spaced_and_the_same_each_time(tmp_path, frames):
    store = make_store(tmp_path, [clip("a", frames=frames), clip("b")], test=1)
    dataset = ClipDataset(store, np.arange(1), frames=6, persons=1, train=False)
    frame = dataset[0, 0]["frame"]
    assert frame.tolist() == [i * frames // 6 for i in range(6)]
    assert np.array_equal(frame, dataset[9, 0]["frame"])
    x = store.recording(0).keypoint[0, frame, :, 0]
    assert np.allclose(dataset[0]["clip"][0, 0], 2 * x / 400 - 1, atol=1e-6)


@pytest.mark.parametrize("balanced", [None, {"classes": 2, "samples": 2}])
def test_the_trainer_tells_the_epoch(store, tmp_path, balanced):
    method = Recorder()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )
    data = module(store, balanced=balanced)
    trainer.fit(method, data.train_dataloader())
    first, second = ([seen[1:] for seen in method.seen if seen[0] == epoch] for epoch in (0, 1))
    assert first
    assert first != second


# --- parts ----------------------------------------------------------------------------------------


def parts(data):
    return [set(part.rows.tolist()) for part in (data.train, data.val, data.test)]


@pytest.mark.parametrize("seed", range(5))
def test_validation_holds_out_whole_subjects(store, seed):
    data = module(store, seed=seed, val_fraction=0.2)
    train, val, test = parts(data)
    assert train
    assert val
    assert not train & val
    assert not (train | val) & test
    assert train | val == set(store.rows("train").tolist())
    subject = store.subject
    assert not {subject[i] for i in train} & {subject[i] for i in val}


def test_another_seed_holds_out_other_subjects(store):
    held = {frozenset(parts(module(store, seed=seed))[1]) for seed in range(10)}
    assert len(held) > 1


def test_the_same_seed_holds_out_the_same_clips(store):
    assert parts(module(store)) == parts(module(store))


def test_without_subjects_the_same_share_of_each_class_is_held_out():
    labels = np.repeat([0, 1, 2, 3], [40, 20, 10, 1])
    kept, held = hold_out(labels, None, 0.2, seed=0)
    assert not set(kept) & set(held)
    assert sorted([*kept, *held]) == list(range(71))
    assert np.bincount(labels[held], minlength=4).tolist() == [8, 4, 2, 0]


def test_every_class_stays_in_training_without_subjects(tmp_path):
    store = make_store(tmp_path, clips(subjects=0))
    assert store.subject is None
    data = module(store, val_fraction=0.1)
    assert set(data.train.labels) == set(data.val.labels) == set(range(CLASSES))


def test_at_least_one_subject_stays_in_training():
    subjects = np.repeat([1, 2, 3], 4)
    kept, held = hold_out(np.zeros(12, int), subjects, 0.99, seed=0)
    assert len(set(subjects[kept])) == 1
    assert len(set(subjects[held])) == 2


def test_a_validation_split_can_be_given(store, tmp_path):
    store = make_store(tmp_path, clips())
    with pytest.raises(InputError, match=r"'train' and 'other' share 3 clips, for example 'c0'"):
        module(store, val_split="other")
    data = module(store, val_split="test")
    assert data.val.rows.tolist() == data.test.rows.tolist()
    assert not data.val.train


def test_overlapping_splits_are_refused(store):
    with pytest.raises(InputError, match=r"'overlap' and 'test' share 1 clips, for example 'c20'"):
        module(store, train_split="overlap")


def test_only_training_clips_are_drawn_at_random(store):
    data = module(store)
    assert [part.train for part in (data.train, data.val, data.test)] == [True, False, False]


def test_an_empty_part_is_refused(tmp_path):
    store = make_store(tmp_path, [clip("a"), clip("b", 1, seed=1)], test=1)
    with pytest.raises(InputError, match=r"1 training, 0 validation, and 1 test clips"):
        module(store)


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 11])
def test_every_test_clip_comes_exactly_once_in_order(store, batch_size):
    data = module(store, batch_size=batch_size)
    loader = data.test_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches)
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(10))
    labels = torch.cat([batch["label"] for batch in batches])
    assert labels.tolist() == store.label[store.rows("test")].tolist()
    assert data.test.names == [f"c{i}" for i in range(20, 30)]


def test_training_batches_are_full_shuffled_and_without_repeats():
    batches = EpochBatches(23, 5, seed=0, shuffle=True)
    epochs = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        keys = list(batches)
        assert len(keys) == len(batches) == 4
        assert {len(batch) for batch in keys} == {5}
        assert {key[0] for batch in keys for key in batch} == {epoch}
        epochs.append([index for batch in keys for _, index in batch])
        assert len(set(epochs[-1])) == 20
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_a_split_smaller_than_a_batch_is_one_batch():
    assert [len(batch) for batch in EpochBatches(3, 5, seed=0, shuffle=True)] == [3]


def shares(batches, world, monkeypatch):
    """What each rank gets."""
    found = []
    for rank in range(world):
        monkeypatch.setattr(type(batches), "_share", lambda self, rank=rank: (rank, world))
        mine = list(batches)
        assert len(mine) == len(batches)
        found.append(mine)
    return found


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("size", [10, 11, 24])
def test_ranks_share_the_test_clips(monkeypatch, world, size):
    ranks = shares(EpochBatches(size, 4, seed=0, shuffle=False), world, monkeypatch)
    indices = [[index for batch in rank for _, index in batch] for rank in ranks]
    assert sorted(chain.from_iterable(indices)) == list(range(size))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("size", [24, 25, 29])
def test_ranks_share_the_training_clips(monkeypatch, world, size):
    ranks = shares(EpochBatches(size, 12, seed=0, shuffle=True), world, monkeypatch)
    assert len({len(rank) for rank in ranks}) == 1  # else the others wait for ever
    indices = [[index for batch in rank for _, index in batch] for rank in ranks]
    together = list(chain.from_iterable(indices))
    assert len(set(together)) == len(together)
    if size == 24:
        assert sorted(together) == list(range(24))
    assert len(together) > size - 12


def test_class_balanced_batches():
    labels = np.repeat(range(6), [50, 30, 20, 10, 8, 2])
    batches = ClassBalancedBatches(labels, classes=4, samples=3, seed=0)
    seen, epochs = set(), []
    for epoch in range(4):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
        assert len(epochs[-1]) == len(batches) == len(labels) // 12
        for batch in epochs[-1]:
            assert {key[0] for key in batch} == {epoch}
            found = labels[[index for _, index in batch]]
            assert np.bincount(found, minlength=6)[np.unique(found)].tolist() == [3] * 4
            for label in set(found) - {5}:  # only the class of two clips repeats them
                members = [index for _, index in batch if labels[index] == label]
                assert len(set(members)) == 3
            seen |= set(found)
    assert seen == set(range(6))
    assert epochs[0] != epochs[1]


def test_class_balanced_batches_in_the_module(store):
    data = module(store, balanced={"classes": 2, "samples": 3})
    for batch in data.train_dataloader():
        assert sorted(batch["label"].unique(return_counts=True)[1].tolist()) == [3, 3]


def test_more_classes_than_there_are_is_refused(store):
    data = module(store, balanced={"classes": 5, "samples": 2})
    with pytest.raises(
        InputError, match=r"classes=5.*has 4 classes; pass data\.balanced\.classes=4"
    ):
        data.train_dataloader()


# --- clips ----------------------------------------------------------------------------------------


def test_shapes_and_types_of_a_batch(store):
    batch = next(iter(module(store).test_dataloader()))
    assert batch["clip"].shape == (4, 2, 6, 3, 3)
    assert batch["clip"].dtype == torch.float32
    assert batch["present"].tolist() == [[True, False]] * 4
    assert batch["sequence"].tolist() == [0, 2, 4, 6]
    assert batch["frame"].shape == (4, 6)
    assert batch["label"].dtype == torch.int64


def test_the_sequence_points_at_the_present_persons(tmp_path):
    store = make_store(tmp_path, [clip("a", persons=2), clip("b"), clip("c", persons=2)], test=1)
    dataset = ClipDataset(store, np.arange(3), frames=4, persons=2, train=False)
    batch = collate([dataset[i] for i in range(3)])
    assert batch["sequence"].tolist() == [0, 1, 2, 4, 5]
    present = batch["clip"].flatten(0, 1)[batch["sequence"]]
    assert (present[..., 2] == 1).all()


@pytest.mark.parametrize("scored", [True, False])
def test_of_more_persons_those_seen_best_are_kept_in_order(tmp_path, scored):
    one = clip("a", persons=4, frames=8)
    seen = np.zeros((4, 8, 3), bool)
    for person, frames in enumerate((2, 8, 5, 7)):
        seen[person, :frames] = True
    keypoint = one.keypoint * seen[..., None]
    score = seen.astype(np.float16) * np.float16(0.5) if scored else None
    item = only(tmp_path, clip("a", persons=4, frames=8, keypoint=keypoint, score=score))
    assert item["present"].tolist() == [True, True]
    for slot, person in enumerate((1, 3)):
        pixels = (item["clip"][:2, slot] + 1) * 200
        expected = np.moveaxis(keypoint[person], -1, 0)
        visible = np.broadcast_to(seen[person], expected.shape)
        assert np.allclose(pixels[visible], expected[visible], atol=1e-3)


def test_confidence_decides_who_is_seen_best(tmp_path):
    score = np.ones((3, 8, 3), np.float16) * np.array([0.2, 0.9, 0.3], np.float16)[:, None, None]
    item = only(tmp_path, clip("a", persons=3, frames=8, score=score), persons=1)
    assert np.allclose(item["clip"][2], 0.9, atol=1e-3)


def test_absent_persons_are_zeros(tmp_path):
    item = only(tmp_path, clip("a"), persons=3)
    assert item["present"].tolist() == [True, False, False]
    assert item["clip"][:, 0].any()
    assert not item["clip"][:, 1:].any()


def test_a_person_that_is_never_seen_is_absent(tmp_path):
    score = np.ones((2, 20, 3), np.float16)
    score[1] = 0
    item = only(tmp_path, clip("a", persons=2, score=score))
    assert item["present"].tolist() == [True, False]
    assert not item["clip"][:, 1].any()


def test_joints_without_confidence_are_zeros(tmp_path):
    one = clip("a")
    score = one.score.copy()
    score[0, 3, 1] = score[0, 7:9, 2] = 0
    score[0, 11, 0] = -0.5  # some estimators write it
    item = only(tmp_path, clip("a", score=score))
    hidden = score[0] <= 0
    assert not item["clip"][:, 0][:, hidden].any()
    assert (item["clip"][:2, 0][:, ~hidden] != 0).all()
    assert (item["clip"][2, 0][~hidden] == 1).all()


def test_without_scores_zeros_are_missing_joints(tmp_path):
    keypoint = clip("a").keypoint.copy()
    keypoint[0, 2, 1] = 0
    item = only(tmp_path, clip("a", keypoint=keypoint, score=None))
    assert not item["clip"][:, 0, 2, 1].any()
    assert item["clip"][2, 0].sum() == 20 * 3 - 1


def test_persons_who_were_exchanged_keep_their_slots(tmp_path):
    one = clip("a", persons=2)
    keypoint = one.keypoint.copy()
    keypoint[:, 8:14] = keypoint[::-1, 8:14]
    score = one.score * np.array([1, 0.5], np.float16)[:, None, None]
    swapped = score.copy()
    swapped[:, 8:14] = score[::-1, 8:14]
    expected = only(tmp_path, clip("a", persons=2, score=score))["clip"]
    found = only(tmp_path, clip("a", persons=2, keypoint=keypoint, score=swapped))["clip"]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("scored", [False, True])
def test_metres_arrive_unchanged(tmp_path, scored):
    keypoint = np.random.default_rng(0).normal(size=(2, 5, 3, 3)).astype(np.float32)
    score = np.ones((2, 5, 3), np.float16) if scored else None
    one = Recording("a", 0, keypoint, score)
    item = only(tmp_path, one)
    assert np.array_equal(np.moveaxis(item["clip"], 0, -1), keypoint)
    assert item["present"].all()
