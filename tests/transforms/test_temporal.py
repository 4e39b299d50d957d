import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maskclr_pl.transforms import GaussianBlur, TemporalCrop, TemporalFlip, ValidCropResize
from maskclr_pl.transforms.base import planes
from maskclr_pl.transforms.temporal import occupied_frames, take_frames
from maskclr_pl.types import InputError
from tests.reference import transforms3d as oracle
from tests.transforms.test_transforms_3d import bodies, seeds, shapes, shares, visible

TRAIN, TEST = ValidCropResize(20, [0.5, 1.0], 8), ValidCropResize(20, [0.95])


def padded(clips: list[Tensor], frames: int) -> Tensor:
    """Clips (M, T, V, 3) of different lengths as a batch, as the data module pads them."""
    out = torch.zeros(len(clips), clips[0].shape[0], frames, *clips[0].shape[2:])
    for row, clip in zip(out, clips, strict=True):
        row[:, : clip.shape[1]] = clip
    return out


@given(shapes, seeds, shares, shares, st.integers(1, 12), st.data())
def test_resize_matches_the_reference(shape, seed, hidden, away, frames, data):
    clip = bodies(*shape, seed=seed, hidden=hidden, away=away)
    start = data.draw(st.integers(0, shape[1] - 1))
    length = data.draw(st.integers(1, shape[1] - start))
    out = ValidCropResize.resize(clip, torch.tensor(start), torch.tensor(length), frames)
    expected = oracle.resize(clip.numpy(), start, length, frames)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-6)  # float32 of numbers up to 5


@given(seeds, st.integers(1, 40))
def test_resizing_a_batch_of_lengths_matches_single_clips(seed, frames):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, 5)
    clips = [bodies(2, n, 3, seed=seed + i, hidden=0.1) for i, n in enumerate(lengths)]
    start = torch.tensor([rng.integers(0, n) for n in lengths])
    length = torch.tensor([rng.integers(1, n - s + 1) for n, s in zip(lengths, start, strict=True)])
    together = ValidCropResize.resize(padded(clips, 12), start, length, frames)
    for i, clip in enumerate(clips):
        alone = ValidCropResize.resize(clip, start[i], length[i], frames)
        assert torch.equal(together[i], alone)


@given(seeds, st.integers(1, 60), st.integers(2, 30), st.integers(0, 30))
def test_resizing_invents_no_poses(seed, frames, until, before):
    """A distant person who stands still is either at that place or missing."""
    place = np.random.default_rng(seed).uniform(1, 4, 3).astype(np.float32)
    clip = torch.zeros(2, 40, 4, 3)
    clip[0] = torch.from_numpy(place)
    clip[1, before : before + until] = torch.from_numpy(place)
    clip[1, before + 1 : before + until, 2] = 0  # and a joint that is lost
    for step in (ValidCropResize(frames, [0.5, 1.0], 4), ValidCropResize(frames, [0.95])):
        out = step(clip)
        shown = out[visible(out)]
        np.testing.assert_allclose(shown, np.broadcast_to(place, shown.shape), rtol=1e-6)
        assert visible(out[0]).all()


def test_resizing_keeps_the_share_of_present_frames():
    clip = bodies(2, 100, 5)
    clip[1, 50:] = 0
    for frames in (30, 100, 170):
        whole = ValidCropResize(frames, [1.0])(clip)
        present = visible(whole[1]).any(-1)
        assert abs(present.sum() - frames / 2) <= 1
        assert present[: frames // 2 - 1].all()


@given(st.integers(1, 300), st.sampled_from([0.95, 0.9, 0.5, 1.0, 0.1, 0.333]))
def test_test_crop_matches_the_publication(valid, share):
    start, length = ValidCropResize.middle(torch.tensor(valid), share)
    margin = int((1 - share) * valid / 2)
    assert (start, length) == (margin, valid - 2 * margin)
    assert length >= 1


@given(st.integers(0, 300), st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_training_crops_are_in_range(valid, share, place):
    values = torch.tensor(share), torch.tensor(place)
    start, length = ValidCropResize.crop(torch.tensor(valid), *values, 64)
    product = np.float32(valid) * np.float32(share)
    assert length == min(max(int(product), 64), valid)
    assert 0 <= start <= valid - length


def test_training_crops_cover_the_clip():
    valid = torch.full((4000,), 80)
    torch.manual_seed(0)
    share, place = torch.empty(4000).uniform_(0.5, 1), torch.rand(4000)
    start, length = ValidCropResize.crop(valid, share, place, 10)
    assert length.unique().tolist() == list(range(40, 80))
    assert start.min() == 0
    room = (80 - length).float()
    middle = (start.float() / room.clamp(min=1))[room > 20].mean()
    assert abs(middle - 0.5) < 0.03  # uniform on both sides; 2000 draws, five deviations
    assert (start == 80 - length).any()


def test_valid_frames_end_with_the_last_occupied_one():
    clip = torch.zeros(3, 2, 9, 4, 3)
    clip[0, 1, 4, 2, 0] = -1e-3  # a gap before the last frame counts
    clip[1, 0, :9] = 1
    assert ValidCropResize.valid_frames(occupied_frames(clip)).tolist() == [5, 9, 0]
    clip[1, 0, 8, :, :2] = torch.tensor([1.0, -1.0])  # sums to zero, and is visible
    clip[1, 0, 8, :, 2] = 0
    assert ValidCropResize.valid_frames(occupied_frames(clip)).tolist() == [5, 9, 0]


@pytest.mark.parametrize("step", [TRAIN, TEST])
def test_padding_does_not_change_the_crop(step):
    short = bodies(2, 30, 5)
    torch.manual_seed(0)
    alone = step(short)
    torch.manual_seed(0)
    assert torch.equal(step(padded([short], 300)[0]), alone)
    assert visible(alone).all()


@pytest.mark.parametrize("step", [TRAIN, TEST])
def test_single_frame_is_repeated_and_empty_clip_stays_empty(step):
    clip = padded([bodies(2, 1, 5), torch.zeros(2, 1, 5, 3)], 10)
    out = step(clip)
    assert torch.equal(out[0], clip[0, :, :1].expand(-1, 20, -1, -1))
    assert not out[1].any()


def test_short_training_clips_are_used_whole():
    clip = bodies(1, 60, 5)
    step = ValidCropResize(60, [0.5, 1.0], min_frames=64)
    torch.testing.assert_close(step(clip), clip, rtol=0, atol=0)


def test_resizing_to_the_same_length_changes_nothing():
    clip = bodies(3, 2, 30, 5, hidden=0.2, away=0.2)
    clip[:, :, -1, 0] = 1
    assert torch.equal(ValidCropResize(30, [1.0])(clip), clip)


@pytest.mark.parametrize(
    "arguments",
    [(0, [0.95]), (8, []), (8, [0.0]), (8, [1.2]), (8, [0.9, 0.5]), (8, [0.1, 0.5, 1.0])],
)
def test_wrong_settings_are_refused(arguments):
    with pytest.raises(InputError, match=r"^(proportion|frames)=.*expected"):
        ValidCropResize(*arguments)


@given(st.integers(1, 30), st.integers(1, 8), st.data())
def test_temporal_crop_matches_symmetric_padding(frames, ratio, data):
    padding = frames // ratio
    starts = data.draw(st.lists(st.integers(0, 2 * padding), min_size=1, max_size=4))
    clip = bodies(len(starts), 2, frames, 3, away=0.2)
    out = TemporalCrop.crop(clip, torch.tensor(starts), padding)
    for row, start, moved in zip(clip, starts, out, strict=True):
        longer = np.pad(row, ((0, 0), (padding, padding), (0, 0), (0, 0)), mode="symmetric")
        np.testing.assert_array_equal(moved, longer[:, start : start + frames])


def test_temporal_crop_reaches_both_ends():
    time = torch.arange(1.0, 13).view(12, 1, 1).expand(500, 1, 12, 1, 3)
    first = TemporalCrop(6)(time)[:, 0, 0, 0, 0]
    assert first.unique().tolist() == [1, 2, 3]  # shifts of -2 ... 2, mirrored at the start
    assert torch.equal(TemporalCrop(20)(time), time)


@given(shapes, seeds, shares, st.floats(0.1, 3), st.booleans())
def test_blur_matches_the_reference(shape, seed, hidden, sigma, normalize):
    clip = bodies(*shape, seed=seed, hidden=hidden, away=0.2)
    taps = GaussianBlur.taps(torch.tensor(sigma), 7)
    expected = oracle.blur(clip.numpy(), sigma, 7, normalize)
    out = GaussianBlur.blur(clip, taps, normalize)
    # float32 sums of seven numbers up to 5
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


def test_blur_keeps_a_body_at_rest():
    clip = bodies(4, 2, 1, 5).repeat(1, 1, 30, 1, 1)
    clip[:, 1, 11:17] = 0
    clip[:, 0, 3, 2] = 0
    torch.manual_seed(0)
    torch.testing.assert_close(GaussianBlur(p=1.0)(clip), clip, rtol=1e-6, atol=0)  # float32


def test_blur_changes_half_of_the_clips():
    clip = bodies(200, 1, 10, 3, hidden=0.1)
    for normalize in (True, False):
        kept = (GaussianBlur(normalize=normalize)(clip) == clip).flatten(1).all(1)
        assert 65 < kept.sum() < 135  # p = 0.5; five standard deviations


def test_blur_smooths():
    clip = bodies(5, 1, 50, 4)
    out = GaussianBlur(sigma=(2.0, 2.0), p=1.0)(clip)
    assert out.diff(dim=2).square().mean() < 0.05 * clip.diff(dim=2).square().mean()


@pytest.mark.parametrize("kernel", [0, 4])
def test_even_kernels_are_refused(kernel):
    with pytest.raises(InputError, match="odd"):
        GaussianBlur(kernel=kernel)


def test_temporal_flip_reverses():
    clip = bodies(2, 2, 6, 3)
    out = TemporalFlip.flip(clip, torch.tensor([True, False]))
    assert torch.equal(out[0], clip[0].flip(1))
    assert torch.equal(out[1], clip[1])


@given(seeds)
def test_take_frames_matches_indexing(seed):
    rng = np.random.default_rng(seed)
    clip = bodies(2, 3, 2, 6, 4, seed=seed)
    frame = torch.from_numpy(rng.integers(0, 6, (2, 3, 9)))
    out = take_frames(planes(clip), frame)
    for i, j in np.ndindex(2, 3):
        assert torch.equal(out[:, i, j].movedim(0, -1), clip[i, j][:, frame[i, j]])
