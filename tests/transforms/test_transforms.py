import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskclr_pl.skeletons.skeleton import SKELETONS, conversion_matrix
from maskclr_pl.transforms import (
    Convert,
    CropScale,
    RandomMove,
    find_identity_swaps,
    image_normalize,
    jittered_frames,
    uniform_frames,
)
from maskclr_pl.transforms.base import join, planes
from maskclr_pl.types import InputError
from tests.reference import transforms as oracle

LAYOUTS = sorted(SKELETONS)


def clips(
    *shape: int, seed: int = 0, hidden: float = 0.2, outliers: bool = False, absent: bool = True
) -> Tensor:
    """Clips (..., M, T, V, 3) with missing joints; the last person of several is absent."""
    rng = np.random.default_rng(seed)
    clip = rng.uniform(-1, 1, (*shape, 3)).astype(np.float32)
    clip[..., 2] = rng.uniform(0.05, 1, shape) * (rng.random(shape) >= hidden)
    if shape[-3] > 1 and absent:
        clip[..., -1, :, :, :] = 0
    if not outliers:
        clip[clip[..., 2] == 0] = 0
    return torch.from_numpy(clip)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6))
seeds = st.integers(0, 999)


@given(shapes, seeds, st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.booleans(), st.floats(1, 3))
def test_crop_scale_matches_the_reference(shape, seed, hidden, outliers, ratio):
    clip = clips(*shape, seed=seed, hidden=hidden, outliers=outliers)
    out = CropScale((ratio, ratio))(clip)
    # the same in float32: a few roundings of numbers up to ratio / extent
    np.testing.assert_allclose(out.numpy(), oracle.crop_scale(clip.numpy(), ratio), atol=2e-5)


ends = st.tuples(st.floats(-30, 30), st.floats(-30, 30))


@given(shapes, seeds, ends, st.booleans())
def test_random_move_matches_the_reference(shape, seed, angle, outliers):
    rng = np.random.default_rng(seed)
    clip = clips(*shape, seed=seed, outliers=outliers)
    scale, shift = rng.uniform(0.5, 2, 2), rng.uniform(-1, 1, (2, 2))
    values = [torch.tensor(v, dtype=torch.float32) for v in (angle, scale, shift)]
    out = RandomMove.move(clip, *values)
    expected = oracle.random_move(clip.numpy(), *(v.double().numpy() for v in values))
    np.testing.assert_allclose(out.numpy(), expected, atol=2e-6)  # float32 of values below 4
    assert torch.equal(out[..., 2], clip[..., 2])


def steps() -> dict[str, torch.nn.Module]:
    return {
        "crop": CropScale((1.0, 3.0)),
        "crop_test": CropScale((2.0, 2.0)),
        "move": RandomMove(),
        "convert": Convert(SKELETONS["coco17"], SKELETONS["h36m17"]),
        "identity": Convert(SKELETONS["coco17"], SKELETONS["coco17"]),
    }


STEPS = sorted(steps())


@pytest.mark.parametrize("name", STEPS)
def test_zeros_stay_zeros(name):
    clip = clips(4, 2, 6, 17)
    out = steps()[name](clip)
    assert not out[:, 1].any()
    missing = out[..., 2] == 0
    assert missing[:, 0].any()
    assert not out[missing].any()
    assert out[:, 0].any()


@pytest.mark.parametrize("name", STEPS)
def test_input_is_not_changed(name):
    for clip in (clips(3, 2, 4, 17), join(planes(clips(3, 2, 4, 17)))):  # both memory layouts
        before = clip.clone()
        out = steps()[name](clip)
        if name != "identity":
            out.fill_(7.0)
        assert torch.equal(clip, before)


@pytest.mark.parametrize("name", ["crop_test", "convert", "identity"])
def test_single_clips_match_a_batch(name):
    batch = clips(2, 3, 2, 5, 17)
    step = steps()[name]
    together = step(batch)
    for index in np.ndindex(2, 3):
        assert torch.equal(step(batch[index]), together[index])


@pytest.mark.parametrize("name", ["crop", "move"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_random_steps_accept_any_batch_shape(name, shape):
    clip = clips(*shape, 2, 5, 17)
    out = steps()[name](clip)
    assert out.shape == clip.shape
    assert out.isfinite().all()


def test_moves_of_single_clips_match_a_batch():
    batch = clips(3, 2, 5, 4)
    rng = torch.Generator().manual_seed(0)
    angle, scale, shift = (torch.rand(3, *more, generator=rng) for more in ((2,), (2,), (2, 2)))
    together = RandomMove.move(batch, angle, scale, shift)
    for i, clip in enumerate(batch):
        assert torch.equal(RandomMove.move(clip, angle[i], scale[i], shift[i]), together[i])


def test_random_steps_draw_once_per_clip():
    clip = clips(1, 2, 4, 6).expand(5, -1, -1, -1, -1)
    for name in ("crop", "move"):
        torch.manual_seed(0)
        out = steps()[name](clip)
        assert not torch.equal(out[0], out[1])
        torch.manual_seed(0)
        assert torch.equal(steps()[name](clip), out)


def test_persons_move_and_crop_together():
    clip = clips(1, 1, 5, 6).expand(-1, 2, -1, -1, -1)
    for name in ("crop", "move"):
        out = steps()[name](clip)
        assert torch.equal(out[:, 0], out[:, 1])


def test_random_move_covers_its_ranges():
    clip = torch.zeros(2000, 1, 2, 2, 3)
    clip[..., 2] = 1
    clip[..., 1, 0] = 1  # the points (0, 0) and (1, 0)
    out = RandomMove(angle=20.0, scale=(0.5, 0.8), shift=0.3)(clip)
    origin, arm = out[:, 0, :, 0, :2], out[:, 0, :, 1, :2] - out[:, 0, :, 0, :2]
    length, turn = arm.norm(dim=-1), torch.atan2(arm[..., 1], arm[..., 0]).rad2deg()
    for values, low, high in ((origin, -0.3, 0.3), (length, 0.5, 0.8), (turn, -20, 20)):
        slack = 1e-4 * (high - low)  # float32
        assert values.min() >= low - slack
        assert values.max() <= high + slack
        # 4000 uniform draws: the extremes are within 1 % of the ends but for 1e-17
        assert values.min() < low + 0.01 * (high - low)
        assert values.max() > high - 0.01 * (high - low)


def test_crop_scale_covers_its_range():
    out = CropScale((1.0, 3.0))(clips(1, 1, 5, 6).expand(500, -1, -1, -1, -1))
    visible = out[..., 2] > 0
    extent = torch.where(visible, out[..., 0].abs(), 0).amax((1, 2, 3))
    height = torch.where(visible, out[..., 1].abs(), 0).amax((1, 2, 3))
    ratio = 1 / torch.maximum(extent, height)
    assert 1 - 1e-5 < ratio.min() < 1.05  # 500 draws; float32
    assert 2.95 < ratio.max() < 3 + 1e-5


def test_crop_scale_ignores_position_and_size():
    clip = clips(2, 1, 5, 6)
    moved = clip.clone()
    moved[..., :2] = (0.25 * clip[..., :2] + 0.5) * (clip[..., 2:] > 0)
    step = CropScale((2.0, 2.0))
    torch.testing.assert_close(step(moved), step(clip), rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("frames", [1, 2])
def test_random_move_handles_short_clips(frames):
    clip = clips(2, 2, frames, 4)
    assert RandomMove()(clip).isfinite().all()


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("target", LAYOUTS)
def test_converted_joints_have_the_smallest_confidence(source, target):
    clip = clips(2, 2, 3, len(SKELETONS[source]))
    out = Convert(SKELETONS[source], SKELETONS[target])(clip).numpy()
    weights, missing = conversion_matrix(SKELETONS[source], SKELETONS[target])
    for joint, row in enumerate(weights):
        parts = np.flatnonzero(row)
        if not len(parts):
            assert SKELETONS[target].joints[joint] in missing
            assert not out[..., joint, :].any()
            continue
        score = clip.numpy()[..., parts, 2].min(-1)
        np.testing.assert_array_equal(out[..., joint, 2], score)
        mean = sum(row[part] * clip.numpy()[..., part, :2].astype(np.float64) for part in parts)
        np.testing.assert_allclose(
            out[..., joint, :2], mean * (score > 0)[..., None], atol=1e-6
        )  # float32 mean


def test_converting_metric_clips_averages_z():
    clip = torch.randn(2, 1, 3, 25, 3)
    step = Convert(SKELETONS["ntu25"].to_dict(), SKELETONS["h36m17"].to_dict(), confidence=False)
    out = step(clip)
    torch.testing.assert_close(out[..., 9, :], clip[..., [2, 3], :].mean(-2))
    assert torch.equal(out[..., 0, :], clip[..., 0, :])
    assert step.missing == ()


def test_converting_metric_clips_invents_no_joints():
    clip = torch.randn(2, 1, 3, 25, 3)
    clip[0, :, 1, 3] = 0  # without the head there is no nose, which is between head and neck
    step = Convert(SKELETONS["ntu25"], SKELETONS["h36m17"], confidence=False)
    out = step(clip)
    assert not out[0, :, 1, 9].any()
    assert not out[0, :, 1, 10].any()
    assert (out != 0).any(-1).sum() == 2 * 3 * 17 - 2


@pytest.mark.parametrize("name", STEPS)
def test_autocast_leaves_coordinates_in_float32(name):
    """Training in mixed precision augments inside its context."""
    clip, step = clips(2, 2, 5, 17), steps()[name]
    torch.manual_seed(0)
    expected = step(clip)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = step(clip)
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)


@given(st.lists(st.floats(0, 5000, width=32), min_size=2, max_size=8), st.integers(1, 4000))
def test_image_normalize_matches_the_formula(pixels, height):
    keypoint = np.array(pixels[: len(pixels) // 2 * 2], np.float32).reshape(-1, 2)
    out = image_normalize(keypoint, (height, 900))
    expected = [[2 * float(v) / max(height, 900) - 1 for v in point] for point in keypoint]
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    assert out.dtype == np.float32


def test_half_precision_pixels_are_normalized_in_single_precision():
    keypoint = np.array([[1919.0, 3.0]], np.float16)
    np.testing.assert_allclose(
        image_normalize(keypoint, (1080, 1920)),
        [[2 * float(keypoint[0, 0]) / 1920 - 1, 2 * 3 / 1920 - 1]],
        atol=1e-6,  # half precision would be off by 5e-4
    )


@given(st.integers(1, 400), st.integers(1, 300))
def test_uniform_frames_are_exact(frames, length):
    assert uniform_frames(frames, length).tolist() == [i * frames // length for i in range(length)]


def test_uniform_frames_example():
    assert uniform_frames(103, 10).tolist() == [0, 10, 20, 30, 41, 51, 61, 72, 82, 92]


@given(st.integers(1, 400), st.integers(1, 100), seeds)
def test_jittered_frames_come_from_their_stretches(frames, length, seed):
    draws = np.random.default_rng(seed).random(length)
    indices = jittered_frames(frames, length, draws)
    assert indices.shape == (length,)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < frames
    assert (np.diff(indices) >= 0).all()
    start = np.arange(length) * frames
    if frames >= length:  # one of each stretch
        assert (indices * length > start - length).all()
        assert (indices * length < start + frames).all()
    else:
        assert (indices * length > start - length).all()
        assert (indices * length < start + length).all()


def two_persons(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two persons who drift slowly, far apart, and their scores."""
    rng = np.random.default_rng(seed)
    drift = 0.01 * rng.standard_normal((2, frames, 5, 2)).cumsum(1)
    keypoint = drift + np.array([-3.0, 3.0])[:, None, None, None]
    return keypoint.astype(np.float32), rng.uniform(0.1, 1, (2, frames, 5)).astype(np.float32)


@given(st.lists(st.booleans(), min_size=1, max_size=12), seeds)
def test_identity_swaps_are_found(swaps, seed):
    keypoint, score = two_persons(len(swaps) + 1, seed)
    swapped = np.array([False, *swaps])
    tracked = np.where(swapped[None, :, None, None], keypoint[::-1], keypoint)
    assert find_identity_swaps(tracked, score).tolist() == swapped.tolist()


def test_identity_swaps_need_both_persons():
    keypoint, score = two_persons(6)
    keypoint[:, 3:] = keypoint[::-1, 3:]
    assert find_identity_swaps(keypoint, score).tolist() == [False] * 3 + [True] * 3
    score[1, 2] = 0  # the person to compare with is gone in the frame before
    assert not find_identity_swaps(keypoint, score).any()
    assert find_identity_swaps(*two_persons(1)).tolist() == [False]


def test_planes_and_join_are_inverse():
    clip = clips(2, 2, 3, 4)
    channels = planes(clip)
    assert channels.shape == (3, 2, 2, 3, 4)
    assert all(channel.is_contiguous() for channel in channels)
    again = join(channels)
    assert torch.equal(again, clip)
    assert planes(again).data_ptr() == channels.data_ptr()  # no copy
    assert torch.equal(join(list(channels)), clip)


def test_released_conversion_keeps_the_order_of_confidences():
    """Coordinates are converted as usual; channel 2 keeps the order of the source."""
    source, target = SKELETONS["coco17"], SKELETONS["h36m17"]
    clip = torch.rand(2, 1, 4, 17, 3) + 0.1
    right, released = Convert(source, target)(clip), Convert(source, target, True, True)(clip)
    assert torch.equal(released[..., :2], right[..., :2])
    assert torch.equal(released[..., 2], clip[..., 2])
    assert not torch.equal(released[..., 2], right[..., 2])
    with pytest.raises(InputError, match="compat=none"):
        Convert(SKELETONS["halpe26"], target, True, True)
