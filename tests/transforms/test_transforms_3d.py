import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.transforms import (
    AxisMask,
    Center,
    FaceView,
    GaussianBlur,
    GaussianNoise,
    RandomRotation,
    RotateMainAxis,
    Shear,
    SpatialFlip,
    Stream,
    TemporalCrop,
    TemporalFlip,
    ValidCropResize,
)
from maskclr_pl.transforms.augment3d import apply_matrix, rotation_matrix
from maskclr_pl.transforms.base import join, planes
from maskclr_pl.types import InputError
from tests.reference import transforms3d as oracle

PAIRS = ((1, 2), (3, 4))


def bodies(*shape: int, seed: int = 0, hidden: float = 0.0, away: float = 0.0) -> Tensor:
    """Bodies (..., M, T, V, 3) three meters off, with joints and whole frames missing."""
    rng = np.random.default_rng(seed)
    place = rng.normal([0, 1, 3], 0.1, (*shape[:-3], 1, 1, 1, 3))
    clip = rng.normal(place, 0.3, (*shape, 3))
    clip *= (rng.random(shape) >= hidden)[..., None]
    clip *= (rng.random(shape[:-1]) >= away)[..., None, None]
    return torch.from_numpy(clip.astype(np.float32))


def visible(clip: Tensor) -> Tensor:
    return (clip != 0).any(-1)


def steps() -> dict[str, nn.Module]:
    """Transforms that keep the shape of a clip."""
    return {
        "axis_mask": AxisMask(),
        "blur": GaussianBlur(kernel=5),
        "blur_released": GaussianBlur(normalize=False),
        "center": Center(0),
        "center_per_frame": Center(1, per_frame=True),
        "face_view": FaceView([1, 2]),
        "noise": GaussianNoise(),
        "rotate": RandomRotation(),
        "rotate_main": RotateMainAxis(),
        "shear": Shear(),
        "spatial_flip": SpatialFlip(PAIRS),
        "stream": Stream(SKELETONS["coco17"], "bone_motion", confidence=False),
        "temporal_crop": TemporalCrop(),
        "temporal_flip": TemporalFlip(),
        "resize": ValidCropResize(8, [0.5, 1.0], min_frames=2),
        "resize_test": ValidCropResize(8, [0.95]),
    }


STEPS = sorted(steps())
IN_PLACE = sorted(
    set(STEPS)
    - {"stream", "spatial_flip", "temporal_crop", "temporal_flip"}
    - {name for name in STEPS if name.startswith("resize")}
)
FIXED = ("center", "center_per_frame", "face_view", "stream", "resize_test")
RANDOM = sorted(set(STEPS) - set(FIXED))

shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(3, 5))
seeds = st.integers(0, 999)
shares = st.sampled_from([0.0, 0.3, 0.8, 1.0])


@pytest.mark.parametrize("name", STEPS)
def test_absent_persons_stay_absent(name):
    clip = bodies(20, 2, 9, 17, hidden=0.2)
    clip[:, 1] = 0
    out = steps()[name](clip)
    assert not out[:, 1].any()
    assert out[:, 0].any()
    assert not steps()[name](torch.zeros(2, 2, 9, 17, 3)).any()


@pytest.mark.parametrize("name", IN_PLACE)
@given(seed=seeds, hidden=shares)
def test_exactly_the_missing_joints_stay_missing(name, seed, hidden):
    clip = bodies(4, 2, 6, 5, seed=seed, hidden=hidden, away=0.2)
    assert torch.equal(visible(steps()[name](clip)), visible(clip))


@pytest.mark.parametrize("name", STEPS)
def test_input_is_not_changed(name):
    for clip in (bodies(3, 2, 8, 17), join(planes(bodies(3, 2, 8, 17)))):  # both memory layouts
        before = clip.clone()
        steps()[name](clip).fill_(7.0)
        assert torch.equal(clip, before)


@pytest.mark.parametrize("name", FIXED)
def test_single_clips_match_a_batch(name):
    batch = bodies(2, 3, 2, 9, 17, hidden=0.2, away=0.2)
    batch[0, :, :, 6:] = 0  # clips of different lengths
    together = steps()[name](batch)
    for index in np.ndindex(2, 3):
        assert torch.equal(steps()[name](batch[index]), together[index])


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_any_batch_shape_is_accepted(name, shape):
    clip = bodies(*shape, 2, 8, 17)
    out = steps()[name](clip)
    assert out.shape == clip.shape
    assert out.isfinite().all()


@pytest.mark.parametrize("name", STEPS)
def test_short_clips_are_accepted(name):
    for frames in (1, 2, 3):
        assert steps()[name](bodies(3, 2, frames, 17, away=0.3)).isfinite().all()


@pytest.mark.parametrize("name", RANDOM)
def test_draws_are_per_clip_and_repeatable(name):
    clip = bodies(1, 2, 8, 17).expand(30, -1, -1, -1, -1)
    torch.manual_seed(0)
    out = steps()[name](clip)
    assert (out != out[:1]).flatten(1).any(1).any()
    torch.manual_seed(0)
    assert torch.equal(steps()[name](clip), out)


@pytest.mark.parametrize("name", STEPS)
def test_persons_are_treated_alike(name):
    clip = bodies(4, 1, 8, 17, hidden=0.1).expand(-1, 2, -1, -1, -1)
    step = steps()["noise" if name == "noise" else name]
    out = step(clip)
    if name == "noise":  # the one draw that is not shared
        out = torch.where(visible(out)[..., None], clip, out)
    assert torch.equal(out[:, 0], out[:, 1])


@pytest.mark.parametrize("name", STEPS)
def test_autocast_leaves_coordinates_in_float32(name):
    clip, step = bodies(2, 2, 8, 17, hidden=0.1), steps()[name]
    torch.manual_seed(0)
    expected = step(clip)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = step(clip)
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)


@pytest.mark.parametrize("name", STEPS)
def test_transforms_do_not_synchronize_the_device(name):
    """Meta tensors have no values, so a step that reads one would fail."""
    step = steps()[name].to("meta")
    out = step(torch.empty(3, 2, 8, 17, 3, device="meta"))
    assert out.shape == (3, 2, 8, 17, 3)


@pytest.mark.parametrize("name", STEPS)
def test_transforms_have_no_parameters_or_state(name):
    assert not list(steps()[name].parameters())
    assert not steps()[name].state_dict()
    assert not steps()[name](bodies(1, 2, 8, 17)).requires_grad


@given(shapes, seeds, shares, st.booleans())
def test_center_matches_the_reference(shape, seed, hidden, per_frame):
    clip = bodies(*shape, seed=seed, hidden=hidden, away=0.2)
    expected = oracle.center(clip.numpy(), 1, per_frame)
    # float32 of numbers up to 5
    np.testing.assert_allclose(Center(1, per_frame)(clip).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("per_frame", [False, True])
def test_center_keeps_the_joint_at_the_origin(per_frame):
    clip = bodies(4, 2, 6, 5)
    out = Center(2, per_frame)(clip)
    centred = out[:, :, :, 2] if per_frame else out[:, 0, 0, 2]
    assert 0 < centred.abs().max() < 1e-9
    assert torch.equal(Center(2, per_frame)(out), out)
    inside = torch.cdist(out.flatten(0, 2), out.flatten(0, 2))
    before = torch.cdist(clip.flatten(0, 2), clip.flatten(0, 2))
    torch.testing.assert_close(inside, before, rtol=0, atol=2e-6)  # float32, two roundings


def test_center_of_a_whole_clip_matches_the_publication():
    clip = bodies(2, 8, 5)
    clip[0, :3] = 0  # the first person appears later
    out = Center(1)(clip)
    expected = clip - clip[0, 3, 1]
    expected[0, :3] = 0
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)  # the nudge, and nothing else
    clip[0] = 0
    torch.testing.assert_close(Center(1)(clip)[1], clip[1] - clip[1, 0, 1], rtol=0, atol=1e-6)


def test_center_of_an_occluded_joint_uses_its_last_position():
    clip = bodies(2, 2, 6, 5)
    clip[:, :, :, 0] = 0
    for per_frame in (False, True):
        out = Center(0, per_frame)(clip)
        assert out.abs().max() < 2  # the bodies stood three meters off
        assert not out[:, :, :, 0].any()


@given(shapes, seeds, shares)
def test_face_view_matches_the_reference(shape, seed, hidden):
    clip = bodies(*shape, seed=seed, hidden=hidden)
    expected = oracle.face_view(clip.numpy(), 1, 2)
    np.testing.assert_allclose(FaceView([1, 2])(clip).numpy(), expected, atol=2e-6)  # float32


def test_face_view_turns_every_frame_to_the_camera():
    clip = bodies(3, 2, 20, 5)
    out = FaceView([1, 2])(clip)
    across = out[..., 2, :] - out[..., 1, :]
    assert (across[..., 0] > 0).all()
    assert across[..., 2].abs().max() < 2e-6  # float32
    assert torch.equal(out[..., 1], clip[..., 1])
    torch.testing.assert_close(out.norm(dim=-1), clip.norm(dim=-1))


def test_face_view_keeps_the_last_turn_without_shoulders():
    clip = bodies(1, 1, 1, 5).repeat(1, 1, 3, 1, 1)
    clip[:, :, 1, 2] = clip[:, :, 1, 1] + torch.tensor([0.0, 0.4, 2e-6])  # above each other
    clip[:, :, 2, 2] = 0
    out = FaceView([1, 2])(clip)
    others = [0, 1, 3, 4]
    for frame in (1, 2):
        assert torch.equal(out[:, :, frame, others], out[:, :, 0, others])
    alone = clip[:, :, 1:2]
    assert torch.equal(FaceView([1, 2])(alone), alone)


@pytest.mark.parametrize("shoulders", [None, [1], [1, 2, 3]])
def test_face_view_needs_two_shoulders(shoulders):
    with pytest.raises(InputError, match=r"pass clip.shoulders=\[LEFT,RIGHT\]"):
        FaceView(shoulders)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Center(5), r"joint=\[5\]: expected indices from 0 to 4"),
        (FaceView([4, 5]), r"shoulders=\[4, 5\]: expected indices from 0 to 4"),
        (SpatialFlip([[1, 7]]), r"pairs=\[1, 7\]"),
    ],
)
def test_joints_out_of_range_are_refused(step, message):
    with pytest.raises(InputError, match=message):
        step(bodies(2, 2, 3, 5))


@given(seeds)
def test_rotation_matrix_matches_single_turns(seed):
    angle = torch.from_numpy(np.random.default_rng(seed).uniform(-3, 3, 3))
    (cx, cy, cz), (sx, sy, sz) = np.cos(angle.numpy()), np.sin(angle.numpy())
    x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    np.testing.assert_allclose(rotation_matrix(angle).numpy(), z @ y @ x, atol=1e-15)  # double


@given(shapes, seeds)
def test_apply_matrix_matches_matrix_products(shape, seed):
    clip = bodies(2, *shape, seed=seed)
    matrix = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, 3)).astype(np.float32))
    expected = np.einsum("bij,bmtvj->bmtvi", matrix.double().numpy(), clip.double().numpy())
    # float32 sums of three products up to 10
    np.testing.assert_allclose(apply_matrix(clip, matrix).numpy(), expected, atol=5e-6)


def test_rotations_keep_distances():
    clip = bodies(3, 2, 4, 5)
    for step in (RandomRotation(3.0), RotateMainAxis(180.0, 90.0)):
        out = step(clip)
        torch.testing.assert_close(out.norm(dim=-1), clip.norm(dim=-1))
        assert (out - clip).abs().amax((1, 2, 3, 4)).min() > 1e-3


def matrices(step: nn.Module) -> Tensor:
    """Matrices of 2000 draws, measured on the three unit vectors."""
    return step(torch.eye(3).expand(2000, 1, 1, 3, 3))[:, 0, 0].mT


def test_random_rotation_covers_its_range():
    angles = torch.asin(matrices(RandomRotation(0.3))[:, 2, 0])
    assert angles.abs().max() <= 0.3 + 1e-6
    assert angles.min() < -0.29  # 2000 uniform draws
    assert angles.max() > 0.29


def test_rotate_main_axis_covers_its_ranges():
    matrix = matrices(RotateMainAxis(30.0, 1.0))
    y = torch.asin(matrix[:, 2, 0])
    x = torch.atan2(-matrix[:, 2, 1], matrix[:, 2, 2])
    z = torch.atan2(-matrix[:, 1, 0], matrix[:, 0, 0])
    degrees = torch.stack((x, y, z), dim=1).rad2deg()
    assert degrees.min() > -1e-3  # never negative; float32
    ordered = degrees.sort(dim=1).values
    assert 0.9 < ordered[:, 1].max() <= 1.001
    assert 29 < ordered[:, 2].max() <= 30.001
    main = degrees.argmax(1).bincount(minlength=3)
    assert (main > 550).all()  # 667 on average; five standard deviations


def test_shear_covers_its_range():
    matrix = matrices(Shear(0.5))
    assert torch.equal(matrix.diagonal(dim1=1, dim2=2), torch.ones(2000, 3))
    rest = matrix[:, ~torch.eye(3, dtype=torch.bool)]
    assert (rest.amin(0) < -0.49).all()  # each of the six has its own draws
    assert (rest.amax(0) > 0.49).all()
    assert rest.abs().max() <= 0.5
    assert np.abs(np.corrcoef(rest.T.numpy()) - np.eye(6)).max() < 0.12  # five deviations


def test_noise_has_the_expected_deviation():
    clip = bodies(400, 1, 5, 5)
    added = GaussianNoise(sigma=0.02, p=0.5)(clip) - clip
    noisy = (added != 0).flatten(1).any(1)
    assert 150 < noisy.sum() < 250  # five standard deviations
    assert abs(added[noisy].std() - 0.02) < 0.001


@pytest.mark.parametrize(
    "make", [AxisMask, TemporalFlip, lambda p: SpatialFlip(PAIRS, p), lambda p: GaussianNoise(p=p)]
)
def test_transforms_are_applied_with_their_probability(make):
    clip = bodies(400, 1, 5, 5)
    for p, low, high in ((0.0, 0, 0), (0.5, 150, 250), (1.0, 400, 400)):
        changed = (make(p)(clip) != clip).flatten(1).any(1).sum()
        assert low <= changed <= high


def test_axis_mask_zeros_one_axis():
    clip = bodies(300, 1, 5, 5)
    gone = (AxisMask(1.0)(clip) == 0).all(dim=(1, 2, 3))
    assert (gone.sum(1) == 1).all()
    assert (gone.sum(0) > 59).all()  # 100 on average; five standard deviations


def test_flipping_twice_restores_the_clip():
    clip, yes = bodies(3, 2, 6, 5, hidden=0.2), torch.tensor([True, True, False])
    for flip in (SpatialFlip(PAIRS).flip, TemporalFlip.flip):
        once = flip(clip, yes)
        assert torch.equal(once[2], clip[2])
        assert not torch.equal(once[0], clip[0])
        assert torch.equal(flip(once, yes), clip)
    assert torch.equal(SpatialFlip(PAIRS).flip(clip, yes)[0, :, :, 3], clip[0, :, :, 4])
