import numpy as np
import pytest
import torch
from torch import Tensor

from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.transforms import Stream, ValidCropResize
from maskclr_pl.transforms.augment3d import apply_matrix, rotation_matrix
from maskclr_pl.transforms.temporal import occupied_frames
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("ntu3d_transforms")
COORDINATES, STREAMS = 2e-6, 1e-6  # golden/README.md
TRAIN = range(len(GOLDEN["in/train_p"]))


def ours(array: np.ndarray) -> Tensor:
    """(3, T, V, M) to (M, T, V, 3)."""
    return torch.from_numpy(array).permute(3, 1, 2, 0)


def theirs(clip: Tensor) -> Tensor:
    """(M, T, V, 3) to (3, T, V, M)."""
    return clip.permute(3, 1, 2, 0)


def sequence() -> Tensor:
    """The padded clip (M, T, V, 3), read from columns (body * 25 + joint) * 3 + coordinate."""
    return GOLDEN.tensor("in/sequence").unflatten(1, (2, 25, 3)).movedim(1, 0)


def test_layout():
    np.testing.assert_array_equal(theirs(sequence()), GOLDEN["out/layout"])
    shown = occupied_frames(sequence())
    assert ValidCropResize.valid_frames(shown).item() == GOLDEN["out/valid_frames"]


@pytest.mark.parametrize("row", range(len(GOLDEN["in/test_windows"])))
def test_crop_for_testing(row):
    step = ValidCropResize(int(GOLDEN["in/test_windows"][row]), [GOLDEN.config["test_p"]])
    assert_close(theirs(step(sequence())), GOLDEN[f"out/test_{row}"], COORDINATES)


@pytest.mark.parametrize("row", TRAIN)
def test_length_of_a_training_crop(row):
    valid, share = GOLDEN.tensor("out/valid_frames"), GOLDEN.tensor("in/train_p")[row]
    least = GOLDEN.config["min_crop_length"]
    for place in (0.0, 0.5, 1.0):
        start, length = ValidCropResize.crop(valid, share, torch.tensor(place), least)
        assert length == GOLDEN["in/train_length"][row]
        assert 0 <= start <= valid - length


@pytest.mark.parametrize("row", TRAIN)
def test_crop_for_training(row):
    start, length = (GOLDEN.tensor(f"in/train_{name}")[row] for name in ("start", "length"))
    window = int(GOLDEN["in/train_window"][row])
    out = ValidCropResize.resize(sequence(), start, length, window)
    assert_close(theirs(out), GOLDEN[f"out/train_{row}"], COORDINATES)


def test_crops_in_one_batch():
    start, length = GOLDEN.tensor("in/train_start"), GOLDEN.tensor("in/train_length")
    batch = sequence().expand(len(start), -1, -1, -1, -1)
    for row, window in enumerate(GOLDEN["in/train_window"]):
        out = ValidCropResize.resize(batch, start, length, int(window))
        assert_close(theirs(out[row]), GOLDEN[f"out/train_{row}"], COORDINATES)


def test_rotation():
    matrix = rotation_matrix(GOLDEN.tensor("in/angles"))
    assert_close(matrix, GOLDEN["out/rotation_matrix"], COORDINATES)
    out = apply_matrix(ours(GOLDEN["in/y"]), matrix)
    assert_close(theirs(out), GOLDEN["out/rotated"], COORDINATES)


@pytest.mark.parametrize(
    ("kind", "key"), [("bone", "bone"), ("joint_motion", "motion"), ("bone_motion", "bone_motion")]
)
def test_streams(kind, key):
    out = Stream(SKELETONS["ntu25"], kind, confidence=False)(ours(GOLDEN["in/y"]))
    assert_close(theirs(out), GOLDEN[f"out/{key}"], STREAMS)
