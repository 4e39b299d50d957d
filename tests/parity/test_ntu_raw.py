"""The published preparation of raw NTU RGB+D files, against what its scripts made of eight."""

import os
from pathlib import Path

import numpy as np
import pytest

from maskclr_pl.sources.ntu.source import NtuSkeletonSource
from tests.parity import golden
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("ntu_raw")
FOLDER = Path(os.environ.get("MASKCLR_GOLDEN") or golden._DEFAULT) / "ntu_raw"
NAMES = GOLDEN["in/names"].tolist()


def prepared(name: str) -> tuple[np.ndarray, int]:
    """Translated and padded like the published arrays, and the number of frames."""
    source = NtuSkeletonSource(FOLDER / f"{name}.skeleton")
    clip = source[0].keypoint
    persons, frames = clip.shape[:2]
    present = clip.any((2, 3))
    origin = clip[0, present[0].argmax(), 1]
    length, columns = GOLDEN["out/joints"].shape[1:]
    padded = np.zeros((length, 2, columns // 6, 3), np.float32)
    padded[:frames, :persons] = np.where(present[..., None, None], clip - origin, 0).swapaxes(0, 1)
    return padded.reshape(length, columns), frames


@pytest.mark.parametrize(("row", "name"), list(enumerate(NAMES)), ids=NAMES)
def test_prepared(row, name):
    joints, frames = prepared(name)
    assert frames == GOLDEN["out/num_frames"][row] == GOLDEN["out/num_frames_released"][row]
    # the tolerance of the golden arrays: one float32 subtraction
    assert_close(joints, GOLDEN["out/joints"][row], 2e-6)


@pytest.mark.parametrize(("row", "name"), list(enumerate(NAMES)), ids=NAMES)
def test_released_scripts_differ_where_a_body_returns_only(row, name):
    """They close the gap of a body that leaves and returns, so that its rest lands too early."""
    joints, _ = prepared(name)
    same = np.allclose(joints, GOLDEN["out/joints_released"][row], rtol=0, atol=2e-6)
    assert same == (GOLDEN.config["scenario"][name] != "leaves_and_returns")


def test_folder():
    source = NtuSkeletonSource(FOLDER)
    assert sorted(source.name(i) for i in range(len(source))) == sorted(NAMES)
    assert not source.notes  # nothing was left out
