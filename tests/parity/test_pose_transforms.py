import numpy as np
import pytest
import torch

from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.data.store.reader import Recording
from maskclr_pl.data.store.writer import write_store
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.transforms import (
    Convert,
    CropScale,
    RandomMove,
    find_identity_swaps,
    image_normalize,
    jittered_frames,
    uniform_frames,
)
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("pose_transforms")
COCO, H36M = SKELETONS["coco17"], SKELETONS["h36m17"]
# which COCO joints make up each H36M joint (spec of the data formats, 7.6); 7 = mean of 0 and 8
PARTS = [
    [11, 12], [12], [14], [16], [11], [13], [15], [11, 12, 5, 6], [5, 6], [0], [1, 2],
    [5], [7], [9], [6], [8], [10],
]  # fmt: skip
XY, MOVED = 1e-6, 2e-6  # golden/README.md


def exchange(values: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """The two persons exchanged in the frames that `swapped` names."""
    out = values.copy()
    for t in np.flatnonzero(swapped):
        out[0, t], out[1, t] = values[1, t], values[0, t]
    return out


def converted_score(score: np.ndarray) -> np.ndarray:
    """A joint made of several has the smallest of their confidences."""
    return np.stack([score[..., part].min(-1) for part in PARTS], axis=-1)


def size(name: str = "img_shape") -> tuple[int, int]:
    height, width = GOLDEN[f"in/{name}"].tolist()
    return height, width


@pytest.fixture
def whole_path(tmp_path):
    """Store, data set and conversion: keypoint and score to a clip (M, T, V, 3)."""

    def run(keypoint: np.ndarray, score: np.ndarray, released: bool = False) -> np.ndarray:
        recording = Recording("clip", 0, keypoint, score, size())
        store = write_store(
            tmp_path / "store.h5", [recording], skeleton=COCO, splits={"all": ["clip"]}
        )
        length = GOLDEN.config["clip_len"]
        dataset = ClipDataset(store, store.rows("all"), length, 2, train=False, released=released)
        clip = torch.from_numpy(np.moveaxis(dataset[0]["clip"], 0, -1).copy())
        return Convert(COCO, H36M, released_scores=released)(clip).numpy()

    return run


@pytest.mark.parametrize("suffix", ["", "_portrait", "_missing"])
def test_image_normalize(suffix):
    shape = size("img_shape_portrait" if suffix == "_portrait" else "img_shape")
    keypoint = GOLDEN[f"in/keypoint{suffix}"]
    assert_close(image_normalize(keypoint, shape), GOLDEN[f"out/normalised{suffix}"], XY)


def test_track():
    swapped = find_identity_swaps(GOLDEN["in/keypoint"], GOLDEN["in/score"])
    np.testing.assert_array_equal(swapped, GOLDEN["out/track_swapped"])
    assert swapped.any()
    assert not swapped.all()
    normalised = image_normalize(GOLDEN["in/keypoint"], size())
    np.testing.assert_array_equal(find_identity_swaps(normalised, GOLDEN["in/score"]), swapped)
    assert_close(exchange(normalised, swapped), GOLDEN["out/tracked"], XY)


def test_track_with_an_absent_person():
    score = GOLDEN["in/score"].copy()
    score[1] = 0
    swapped = find_identity_swaps(GOLDEN["in/keypoint_missing"], score)
    assert not swapped.any()
    normalised = image_normalize(GOLDEN["in/keypoint_missing"], size())
    assert_close(exchange(normalised, swapped), GOLDEN["out/tracked_missing"], XY)


def test_convert_to_h36m():
    score = exchange(GOLDEN["in/score"], GOLDEN["out/track_swapped"])
    clip = np.concatenate([GOLDEN["out/tracked"], np.ones_like(score)[..., None]], axis=-1)
    out = Convert(COCO, H36M)(torch.from_numpy(clip)).numpy()
    assert_close(out[..., :2], GOLDEN["out/h36m"], XY)

    clip[..., 2] = score
    out = Convert(COCO, H36M)(torch.from_numpy(clip)).numpy()
    expected = converted_score(score)
    np.testing.assert_array_equal(out[..., 2], expected)  # moved values
    seen = expected > 0
    assert 0 < seen.mean() < 1
    assert_close(out[seen][:, :2], GOLDEN["out/h36m"][seen], XY)
    assert not out[~seen].any()


def test_whole_path_coordinates(whole_path):
    # every joint counts as detected, as for the reference, which ignores confidences here
    clip = whole_path(GOLDEN["in/keypoint"], np.ones_like(GOLDEN["in/score"]))
    assert_close(clip[..., :2], GOLDEN["out/clip_xy"], XY)


def test_whole_path_confidence_follows_the_persons(whole_path):
    clip = whole_path(GOLDEN["in/keypoint"], GOLDEN["in/score"])
    stored = GOLDEN["in/score"].astype(np.float16).astype(np.float32)  # precision of a store
    tracked = exchange(stored, GOLDEN["out/track_swapped"])
    picked = [i * stored.shape[1] // clip.shape[1] for i in range(clip.shape[1])]
    expected = converted_score(tracked[:, picked])
    np.testing.assert_array_equal(clip[..., 2], expected)
    seen = expected > 0
    assert 0 < seen.mean() < 1
    assert_close(clip[seen][:, :2], GOLDEN["out/clip_xy"][seen], XY)
    assert not clip[~seen].any()


def test_whole_path_of_a_single_person(whole_path):
    keypoint = GOLDEN["in/keypoint_single"]
    clip = whole_path(keypoint, np.ones(keypoint.shape[:3], np.float32))
    assert_close(clip[..., :2], GOLDEN["out/clip_xy_single"], XY)
    assert not clip[1].any()


@pytest.mark.parametrize("suffix", ["", "_single"])
def test_released_path_is_the_reference_at_every_point(whole_path, suffix):
    """Joints without confidence and the absent person, too; scores stay as the file has them."""
    keypoint = GOLDEN[f"in/keypoint{suffix}"]
    frames = keypoint.shape[1]
    score = GOLDEN["in/score"][: len(keypoint), :frames]
    clip = whole_path(keypoint, score, released=True)
    assert_close(clip[..., :2], GOLDEN[f"out/clip_xy{suffix}"], XY)
    picked = [i * frames // clip.shape[1] for i in range(clip.shape[1])]
    stored = score.astype(np.float16).astype(np.float32)  # precision of a store
    np.testing.assert_array_equal(clip[: len(keypoint), ..., 2], stored[:, picked])
    assert (clip[: len(keypoint), ..., 2] == 0).any()


def test_resample_test():
    for row, (frames, length) in enumerate(GOLDEN["in/resample_test_nt"].tolist()):
        picked = uniform_frames(frames, length)
        np.testing.assert_array_equal(picked, GOLDEN[f"out/resample_test_{row}"])


def test_resample_train():
    for row, (frames, length) in enumerate(GOLDEN["in/resample_train_nt"].tolist()):
        if frames >= length:
            draws = GOLDEN[f"in/resample_train_u_{row}"]
        else:  # which half a draw falls in decides
            draws = np.where(GOLDEN[f"in/resample_train_floor_{row}"] == 1, 0.25, 0.75)
        picked = jittered_frames(frames, length, draws)
        np.testing.assert_array_equal(picked, GOLDEN[f"out/resample_train_{row}"])


@pytest.mark.parametrize("row", range(len(GOLDEN["in/crop_ratio"])))
def test_crop_scale(row):
    ratio = float(GOLDEN["in/crop_ratio"][row])
    out = CropScale((ratio, ratio))(GOLDEN.tensor("in/motion")).numpy()
    seen = GOLDEN["in/motion"][..., 2] != 0
    assert 0 < seen.mean() < 1
    assert_close(out[seen], GOLDEN[f"out/crop_scale_{row}"][seen], MOVED)
    assert not out[~seen].any()


@pytest.mark.parametrize("row", range(len(GOLDEN["in/crop_ratio"])))
def test_released_crop_scale(row):
    """Every point, also the absent person."""
    ratio = float(GOLDEN["in/crop_ratio"][row])
    step = CropScale((ratio, ratio))
    step.released = True
    out = step(GOLDEN.tensor("in/motion"))
    assert_close(out, GOLDEN[f"out/crop_scale_{row}"], MOVED)


def test_released_random_move():
    shift = torch.stack((GOLDEN.tensor("in/move_Tx"), GOLDEN.tensor("in/move_Ty")))
    values = GOLDEN.tensor("in/move_A"), GOLDEN.tensor("in/move_S"), shift
    out = RandomMove.move(GOLDEN.tensor("in/motion"), *values, released=True)
    assert_close(out, GOLDEN["out/random_move"], MOVED)


def test_crop_scale_of_too_few_points():
    out = CropScale((1.0, 1.0))(GOLDEN.tensor("in/motion_few")).numpy()
    np.testing.assert_array_equal(out, GOLDEN["out/crop_scale_few"])


def test_random_move():
    shift = torch.stack((GOLDEN.tensor("in/move_Tx"), GOLDEN.tensor("in/move_Ty")))
    out = RandomMove.move(
        GOLDEN.tensor("in/motion"), GOLDEN.tensor("in/move_A"), GOLDEN.tensor("in/move_S"), shift
    ).numpy()
    seen = GOLDEN["in/motion"][..., 2] != 0
    assert_close(out[seen], GOLDEN["out/random_move"][seen], MOVED)
    np.testing.assert_array_equal(out[..., 2], GOLDEN["in/motion"][..., 2])
    assert not out[~seen].any()
