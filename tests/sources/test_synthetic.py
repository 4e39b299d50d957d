import numpy as np
import pytest

from maskclr_pl.sources.synthetic import ACTIONS, FRAME_SIZE, SKELETON, SyntheticSource, cue_joints

QUIET = {"jitter": 0.0, "dropout": 0.0, "bystander": 0.0}


def joints(*names):
    return {SKELETON.joints.index(name) for name in names}


def one_per_action(clips=64, **options):
    """Recordings of each action, by label."""
    by_label = {}
    for result in SyntheticSource(clips=clips, **{**QUIET, **options}):
        by_label.setdefault(result.label, []).append(result)
    return by_label


def test_recordings_are_reproducible():
    first, second = (list(SyntheticSource(clips=20, seed=3)) for _ in range(2))
    assert len(first) == 20
    for a, b in zip(first, second, strict=True):
        assert (a.name, a.label, a.subject) == (b.name, b.label, b.subject)
        assert np.array_equal(a.keypoint, b.keypoint)
        assert np.array_equal(a.score, b.score)


def test_seed_changes_recordings():
    first, second = (list(SyntheticSource(clips=4, seed=seed)) for seed in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert a.keypoint.shape != b.keypoint.shape or not np.array_equal(a.keypoint, b.keypoint)


def test_recording_does_not_depend_on_their_number():
    few, many = list(SyntheticSource(clips=8)), list(SyntheticSource(clips=16))
    for a, b in zip(few, many, strict=False):
        assert np.array_equal(a.keypoint, b.keypoint)


def test_shapes_ranges_and_labels():
    source = SyntheticSource(clips=40, frames=(12, 15))
    result = list(source)
    assert len(source) == len(result) == len({item.name for item in result})
    assert {item.label for item in result} == set(range(len(ACTIONS)))
    for item in result:
        persons, frames, count, channels = item.keypoint.shape
        assert persons in (1, 2)
        assert 12 <= frames <= 15
        assert (count, channels) == (len(SKELETON), 2)
        assert item.frame_size == FRAME_SIZE
        assert item.score.min() >= 0
        assert item.score.max() <= 1
        seen = item.keypoint[item.score > 0]
        assert (seen[:, 1] < FRAME_SIZE[0] + 20).all()
        assert (seen[:, 0] < FRAME_SIZE[1] + 20).all()


def test_subjects_and_clips_of_train_and_test_are_disjoint():
    source = SyntheticSource(clips=300, subjects=7)
    subject = {item.name: item.subject for item in source}
    train, test = source.splits["train"], source.splits["test"]
    assert not set(train) & set(test)
    assert sorted([*train, *test]) == sorted(subject)
    assert not {subject[name] for name in train} & {subject[name] for name in test}
    assert {subject[name] for name in subject} == set(range(7))


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_action_is_in_both_splits(split):
    source = SyntheticSource(clips=200, subjects=6)
    label = {item.name: item.label for item in source}
    assert {label[name] for name in source.splits[split]} == set(range(len(ACTIONS)))


# --- the truth ------------------------------------------------------------------------------------

ARM = {side: joints(f"{side}_elbow", f"{side}_wrist") for side in ("left", "right")}
STRONG = {
    "wave right": ARM["right"],
    "wave left": ARM["left"],
    "punch right": ARM["right"],
    "punch left": ARM["left"],
    "drink right": ARM["right"],
    "drink left": ARM["left"],
    "clap": ARM["left"] | ARM["right"],
    "raise both arms": ARM["left"] | ARM["right"],
}


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_strong_cue_joints_are_the_limbs_of_the_action(action):
    assert set(cue_joints(action, "strong")) == STRONG[action.name]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_weak_cues_include_other_joints(action):
    weak = set(cue_joints(action, "weak"))
    assert weak - STRONG[action.name]
    assert joints("nose", "left_eye", "right_eye") <= weak


def movement(recording):
    """Mean distance of each joint from its mean position, in pixels."""
    pixels = recording.keypoint[0].astype(np.float64)
    return np.linalg.norm(pixels - pixels.mean(0), axis=-1).mean(0)


@pytest.mark.parametrize("label", range(len(ACTIONS)), ids=lambda i: ACTIONS[i].name)
def test_strong_joints_move_most(label):
    clips = one_per_action(frames=(60, 90))[label]
    assert len(clips) >= 5
    moved = np.mean([movement(clip) for clip in clips], axis=0)
    strong = STRONG[ACTIONS[label].name]
    wrists = [i for i in strong if SKELETON.joints[i].endswith("wrist")]
    others = [i for i in range(len(SKELETON)) if i not in strong]
    assert moved[wrists].min() > 1.5 * moved[others].max()
    assert moved[list(strong)].mean() > 2 * moved[others].mean()


def test_mirrored_actions_have_mirrored_cues():
    by_label = one_per_action(clips=160)
    right, left = (SKELETON.joints.index(f"{side}_wrist") for side in ("right", "left"))
    for label, action in enumerate(ACTIONS):
        side = action.name.rpartition(" ")[2]
        if side not in ("left", "right"):
            continue
        moving, still = (right, left) if side == "right" else (left, right)
        shares = [movement(clip)[moving] > movement(clip)[still] for clip in by_label[label]]
        assert np.mean(shares) > 0.9, action.name


# --- the estimator --------------------------------------------------------------------------------


def test_missing_joints_are_zero_with_score_zero():
    result = list(SyntheticSource(clips=60, dropout=0.3))
    lost = np.concatenate([(item.score == 0).ravel() for item in result])
    assert 0.1 < lost.mean() < 0.6
    for item in result:
        assert not item.keypoint[item.score == 0].any()
        assert item.keypoint[item.score > 0].any(-1).all()


def test_no_dropout_and_noise_gives_exact_positions():
    exact = next(iter(SyntheticSource(clips=1, **QUIET)))
    noisy = next(iter(SyntheticSource(clips=1, **{**QUIET, "jitter": 4.0})))
    assert (exact.score > 0.5).mean() > 0.95
    difference = (exact.keypoint.astype(float) - noisy.keypoint.astype(float))[noisy.score > 0]
    assert 1 < difference.std() < 10


def test_dropout_comes_in_bursts():
    def share(dropout):
        options = {**QUIET, "dropout": dropout, "frames": (60, 60)}
        lost = np.stack([item.score[0] == 0 for item in SyntheticSource(clips=30, **options)])
        again = (lost[:, 1:] & lost[:, :-1]).sum() / max(lost[:, :-1].sum(), 1)
        return lost.mean(), again

    (little, _), (much, again) = share(0.02), share(0.2)
    assert 2 * little < much
    assert again > 2 * much  # a lost joint is likely to stay lost for a moment


def test_bystanders_have_requested_frequency():
    persons = [len(item.keypoint) for item in SyntheticSource(clips=200, bystander=0.5)]
    assert 0.35 < np.mean(np.array(persons) == 2) < 0.65
    assert {len(item.keypoint) for item in SyntheticSource(clips=40, bystander=0.0)} == {1}
