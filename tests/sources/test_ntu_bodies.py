import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from maskclr_pl.sources.ntu.actors import select_actors, stack_actors
from maskclr_pl.sources.ntu.parser import parse
from tests.reference import ntu_skeleton as reference
from tests.reference.ntu_skeleton import person


def select(bodies, frames):
    """Select and stack the actors among these bodies."""
    data = reference.write(bodies, frames, lambda value: repr(float(value)))
    return stack_actors(select_actors(parse(data, "file")), lambda body: body.joints)


@settings(max_examples=40)
@given(
    people=st.lists(
        st.tuples(st.integers(0, 30), st.integers(8, 30), st.integers(0, 20), st.booleans()),
        max_size=5,
    ),
    seed=st.integers(0, 10**6),
)
def test_actors_match_published_rules(people, seed):
    """Bodies come and go, some with gaps, some flat, some partial."""
    bodies = {}
    for i, (start, length, gap, flat) in enumerate(people):
        seen = [f + (gap if f > length // 2 else 0) for f in range(start, start + length)]
        bodies[i] = person(seen, x=i, size=1 + i / 7, flat=flat, seed=seed + i)
        for frame in seen[: seed % (length + 1)]:  # arms stretched out
            bodies[i][frame] = bodies[i][frame] * np.float32([3, 1, 1])
    # as they appear in the file
    bodies = dict(sorted(bodies.items(), key=lambda item: (min(item[1]), item[0])))
    expected = reference.two_actors(bodies) if bodies else None
    slots = select_actors(parse(reference.write(bodies, 80, lambda v: repr(float(v))), "file"))
    assert len(slots) == (0 if expected is None else len(expected))
    if expected is not None:
        np.testing.assert_array_equal(stack_actors(slots, lambda body: body.joints), expected)


def test_no_bodies_give_no_actors():
    assert select_actors(parse(b"3\n0\n0\n0\n", "file")) == []


def test_returning_body_keeps_its_time():
    away = [*range(20), *range(40, 60)]
    bodies = {1: person(away, size=1.5), 2: person(range(60), x=2, seed=1)}
    clip = select(bodies, 60)
    assert clip.shape[:2] == (2, 60)
    assert clip[0].any((1, 2)).nonzero()[0].tolist() == away
    np.testing.assert_array_equal(clip[0, 50], bodies[1][50])


def test_second_slot_is_free_until_it_is_used():
    bodies = {
        1: person(range(60), size=2),
        2: person(range(20), x=1, size=0.8, seed=1),
        3: person(range(40, 60), x=1, size=1.2, seed=2),  # moves more, so it is placed earlier
    }
    clip = select(bodies, 60)
    assert clip.shape[:2] == (2, 60)
    np.testing.assert_array_equal(clip[1, 5], bodies[2][5])
    np.testing.assert_array_equal(clip[1, 45], bodies[3][45])
    assert not clip[1, 20:40].any()


def test_frames_without_actors_are_left_out():
    """Those without any body, and those with a body that is dropped."""
    bodies = {1: person(range(5), x=4), 2: person([*range(10, 30), *range(40, 50)])}
    clip = select(bodies, 70)
    np.testing.assert_array_equal(clip, np.array([[*bodies[2].values()]]))


def test_flat_second_body_in_every_frame_is_dropped():
    bodies = {1: person(range(30)), 2: person(range(30), flat=True, size=3, seed=1)}
    np.testing.assert_array_equal(select(bodies, 30), np.array([[*bodies[1].values()]]))


def test_single_body_is_never_noise():
    bodies = {1: person(range(5), flat=True)}
    np.testing.assert_array_equal(select(bodies, 5), np.array([[*bodies[1].values()]]))


def test_short_bodies_are_kept_in_a_short_file():
    assert select({1: person(range(8)), 2: person(range(8), x=2, seed=1)}, 8).shape[:2] == (2, 8)


def test_frames_of_zeros_are_absent():
    bodies = {1: person(range(20)), 2: {f: np.zeros((25, 3), np.float32) for f in range(30)}}
    assert select(bodies, 30).shape[:2] == (1, 20)


@pytest.mark.parametrize(("frames", "persons"), [(11, 1), (12, 2)])
def test_short_bodies_are_noise(frames, persons):
    bodies = {1: person(range(30)), 2: person(range(frames), x=2, seed=1)}
    assert len(select(bodies, 30)) == persons


@pytest.mark.parametrize(("wide", "persons"), [(69, 2), (70, 1)])
def test_wide_bodies_are_noise(wide, persons):
    """From 69.754 % of the frames on."""
    bodies = {1: person(range(100)), 2: person(range(100), x=2, seed=1)}
    for frame in range(wide):
        bodies[2][frame] = bodies[2][frame] * np.float32([4, 1, 1])
    assert len(select(bodies, 100)) == persons


@pytest.mark.parametrize(
    ("spans", "persons"),
    [
        ([(0, 20), (20, 40)], 1),  # one frame is shared
        ([(0, 21), (20, 40)], 2),
        ([(20, 40), (0, 20), (0, 12)], 2),  # the first slot is occupied from 0 on now
        ([(0, 20), (20, 40), (28, 40)], 2),
    ],
)
def test_successive_bodies_share_a_slot(spans, persons):
    """`spans` in order of motion: first and last frame."""
    bodies = {
        i: person(range(first, last + 1), size=3 - i, seed=i)
        for i, (first, last) in enumerate(spans)
    }
    bodies = dict(sorted(bodies.items(), key=lambda item: min(item[1])))
    clip = select(bodies, 50)
    assert len(clip) == persons
    np.testing.assert_array_equal(clip, reference.two_actors(bodies))


def test_motion_ignores_wide_frames_if_less():
    """A body that shrinks to a flat spot moves more in its other frames; those do not count."""
    pose = person([0])[0] - np.float32([0, 0, 3])
    small = {f: pose * np.float32([0.2, 0.01, 0.1] if f < 10 else 1) for f in range(30)}
    upright = {f: pose * np.float32(0.9) for f in range(30)}
    bodies = {1: small, 2: upright}
    assert reference.motion(small.values()) < reference.motion(upright.values())
    assert reference.motion(small[f] for f in range(10, 30)) > reference.motion(upright.values())
    np.testing.assert_array_equal(select(bodies, 30)[0], np.array([*upright.values()]))
