import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.transforms import Center, RandomRotation, Stream
from maskclr_pl.types import InputError
from tests.reference import transforms3d as oracle
from tests.transforms.test_transforms import clips
from tests.transforms.test_transforms_3d import bodies, seeds, shares

KINDS = ("joint", "bone", "joint_motion", "bone_motion")
PARENTS = (1, -1, 1, 2, -1)
SMALL = Skeleton("small", tuple("abcde"), PARENTS)
NTU = SKELETONS["ntu25"]
sizes = st.tuples(st.integers(1, 3), st.integers(1, 6))


@given(sizes, seeds, shares, st.sampled_from(KINDS[1:]))
def test_metric_streams_match_the_reference(size, seed, hidden, kind):
    clip = bodies(*size, 5, seed=seed, hidden=hidden, away=0.2)
    out = Stream(SMALL, kind, confidence=False)(clip)
    expected = oracle.stream(clip.numpy(), PARENTS, kind, False)
    np.testing.assert_allclose(out.numpy(), expected, atol=2e-6)  # float32 of numbers up to 5


@given(sizes, seeds, shares, st.sampled_from(KINDS[1:]))
def test_image_streams_match_the_reference(size, seed, hidden, kind):
    clip = clips(*size, 5, seed=seed, hidden=hidden, absent=False)
    out = Stream(SMALL, kind, confidence=True)(clip)
    expected = oracle.stream(clip.numpy(), PARENTS, kind, True)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-6)  # float32 of numbers up to 1
    assert not out[out[..., 2] == 0].any()


def test_joint_stream_returns_the_clip():
    clip = bodies(2, 4, 5)
    assert Stream(SMALL, "joint", confidence=False)(clip) is clip


def test_bones_of_ntu_match_the_publication():
    """(child, parent), counted from 1, as published; joint 21 has no bone."""
    published = (
        "1-2 2-21 3-21 4-3 5-21 6-5 7-6 8-7 9-21 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 "
        "18-17 19-18 20-19 22-23 23-8 24-25 25-12"
    )
    clip = bodies(1, 3, 25)
    out = Stream(NTU, "bone", confidence=False)(clip)
    for bone in published.split():
        child, parent = (int(end) - 1 for end in bone.split("-"))
        assert torch.equal(out[:, :, child], clip[:, :, child] - clip[:, :, parent])
    assert not out[:, :, 20].any()


@pytest.mark.parametrize("per_frame", [False, True])
def test_bones_of_a_centered_root_are_visible(per_frame):
    clip = bodies(2, 2, 8, 25)
    centered = RandomRotation()(Center(NTU.root, per_frame)(clip))
    out = Stream(NTU, "bone", confidence=False)(centered)
    visible = (out != 0).any(-1)
    visible[..., NTU.root] = True
    assert visible.all()
    moved = Stream(NTU, "bone_motion", confidence=False)(centered)
    assert (moved[:, :, :-1] != 0).any(-1).sum() == 2 * 2 * 7 * 24
    lengths = out.norm(dim=-1)
    expected = Stream(NTU, "bone", confidence=False)(clip).norm(dim=-1)
    torch.testing.assert_close(lengths, expected, rtol=0, atol=5e-6)  # float32, three meters off


def test_motion_to_an_absent_frame_is_zero():
    clip = bodies(1, 10, 5)
    clip[0, 4:7] = 0
    out = Stream(SMALL, "joint_motion", confidence=False)(clip)
    present = (out != 0).any(-1).all(-1)[0]
    assert present.tolist() == [True] * 3 + [False] * 4 + [True] * 2 + [False]
    assert out.abs().max() < 3  # the body stands further off than it moves


def test_skeleton_can_be_a_dict():
    clip = bodies(1, 3, 25)
    plain = Stream(NTU.to_dict(), "bone", confidence=False)(clip)
    assert torch.equal(plain, Stream(NTU, "bone", confidence=False)(clip))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_matches_single_clips_and_persons_are_independent(kind):
    batch = bodies(2, 3, 2, 4, 5, hidden=0.2)
    step = Stream(SMALL, kind, confidence=False)
    together = step(batch)
    for index in np.ndindex(2, 3):
        assert torch.equal(step(batch[index]), together[index])
    assert torch.equal(step(batch.flip(2)), together.flip(2))


def test_unknown_kind_is_refused():
    with pytest.raises(InputError, match="stream=bones: expected joint, bone, joint_motion"):
        Stream(SMALL, "bones", confidence=False)
