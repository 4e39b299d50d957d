import numpy as np
import pytest
import torch
from torch import Tensor

from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.transforms import (
    AxisMask,
    GaussianBlur,
    GaussianNoise,
    RotateMainAxis,
    SpatialFlip,
    TemporalCrop,
    TemporalFlip,
)
from maskclr_pl.transforms.alignment import NUDGE
from maskclr_pl.transforms.augment3d import apply_matrix
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("aimclr_augment")
COORDINATES, NOISE, BLUR = 2e-6, 1e-6, 5e-6  # golden/README.md
YES = torch.tensor(True)
FLIP = SpatialFlip(SKELETONS["ntu25"].pairs)
PADDING = GOLDEN.config["crop_padding"]


def ours(key: str) -> Tensor:
    """(3, T, V, M) to (M, T, V, 3)."""
    return GOLDEN.tensor(key).permute(3, 1, 2, 0)


def clip() -> Tensor:
    """The input. Its joint at the origin is exactly zero, which means missing here: as `Center`
    does, it is put beside it (by less than a millionth of the tolerances)."""
    clip = ours("in/x")
    return torch.where(clip == 0, NUDGE, clip)


def check(out: Tensor, key: str, tolerance: float) -> None:
    assert_close(out.permute(3, 1, 2, 0), GOLDEN[key], tolerance)


def check_moved(out: Tensor, key: str) -> None:
    """Equal values, but for the joint at the origin."""
    check(torch.where(out == NUDGE, 0, out), key, 0)


def view(clip: Tensor, *, extreme: bool = False, last: bool = False) -> Tensor:
    """The composed views with the recorded draws."""
    clip = TemporalCrop.crop(clip, GOLDEN.tensor("in/crop_start")[0], PADDING)
    clip = apply_matrix(clip, GOLDEN.tensor("in/shear_matrix"))
    if extreme:
        clip = FLIP.flip(clip, YES)
        clip = RotateMainAxis.rotate(clip, GOLDEN.tensor("in/rotation_angles_deg"))
        clip = GaussianNoise.add(clip, ours("in/noise"))
        taps = GaussianBlur.taps(GOLDEN.tensor("in/blur_sigma"), GOLDEN.config["blur_taps"])
        clip = GaussianBlur.blur(clip, taps, normalize=False)
        clip = AxisMask.mask(clip, GOLDEN.tensor("in/mask_axis"))
    return TemporalFlip.flip(clip, YES) if last else clip


def test_the_input_is_centred():
    missing = (ours("in/x") == 0).all(-1)
    assert missing[..., SKELETONS["ntu25"].root].all()
    assert missing.sum() == missing.shape[0] * missing.shape[1]


def test_shear():
    out = apply_matrix(clip(), GOLDEN.tensor("in/shear_matrix"))
    check(out, "out/shear", COORDINATES)


@pytest.mark.parametrize("row", range(len(GOLDEN["in/crop_start"])))
def test_temporal_crop(row):
    assert clip().shape[-3] // 6 == PADDING
    start = GOLDEN.tensor("in/crop_start")[row]
    check_moved(TemporalCrop.crop(clip(), start, PADDING), f"out/temporal_crop_{row}")


def test_spatial_flip():
    joints = torch.arange(25.0).view(1, 1, 25, 1).expand(1, 1, 25, 3)
    moved = FLIP.flip(joints, YES)[0, 0, :, 0]
    np.testing.assert_array_equal(moved, GOLDEN["out/flip_permutation"])
    check_moved(FLIP.flip(clip(), YES), "out/spatial_flip")


def test_temporal_flip():
    check_moved(TemporalFlip.flip(clip(), YES), "out/temporal_flip")


def test_rotate():
    degrees = GOLDEN.tensor("in/rotation_angles_deg")
    assert degrees.argmax() == GOLDEN["in/rotation_main_axis"]
    check(RotateMainAxis.rotate(clip(), degrees), "out/rotate", COORDINATES)


def test_noise():
    check(GaussianNoise.add(clip(), ours("in/noise")), "out/noise", NOISE)


def test_blur():
    taps = GaussianBlur.taps(GOLDEN.tensor("in/blur_sigma"), GOLDEN.config["blur_taps"])
    assert_close(taps, GOLDEN["out/blur_kernel"], BLUR)
    check(GaussianBlur.blur(clip(), taps, normalize=False), "out/blur", BLUR)


def test_normalised_blur():
    """Inside the clip; at its ends ours does not draw poses to the origin."""
    taps = GOLDEN.tensor("out/blur_kernel")
    out = GaussianBlur.blur(clip(), taps, normalize=True)
    reach = len(taps) // 2
    inside = slice(reach, out.shape[1] - reach)
    expected = ours("out/blur") / taps.sum()
    assert_close(out[:, inside], expected[:, inside].numpy(), BLUR)


@pytest.mark.parametrize("axis", range(3))
def test_axis_mask(axis):
    check_moved(AxisMask.mask(clip(), torch.tensor(axis)), f"out/axis_mask_{axis}")


def test_views():
    check(view(clip()), "out/normal_view", COORDINATES)
    check(view(clip(), extreme=True), "out/extreme_view_released", BLUR)
    check(view(clip(), extreme=True, last=True), "out/extreme_view_all", BLUR)
