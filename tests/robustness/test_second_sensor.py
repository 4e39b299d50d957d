"""Matching clips of a second store."""

from pathlib import Path

import numpy as np
import pytest

from maskclr_pl.data import Recording, Store, write_store
from maskclr_pl.data.dataset import ClipDataset
from maskclr_pl.robustness.second_sensor import match_clips
from maskclr_pl.skeletons.layouts import load_skeleton
from maskclr_pl.sources.convert import convert
from maskclr_pl.sources.pyskl import PysklSource
from maskclr_pl.types import InputError
from tests.helpers.robustness_tools import FLAT, V

UI_PRMD = Path(__file__).parents[3] / "shared/data/ui_prmd"


def body_store(path: Path, names: list[str], labels: list[int], classes: str = "xy") -> Store:
    rng = np.random.default_rng(0)
    recordings = [
        Recording(name, label, rng.uniform(1, 99, (1, 5, V, 2)).astype(np.float32), None, (99, 99))
        for name, label in zip(names, labels, strict=True)
    ]
    splits = {"test": names}
    return write_store(
        path, recordings, skeleton=FLAT.skeleton, splits=splits, class_names=list(classes)
    )


def part_of(store: Store) -> ClipDataset:
    return ClipDataset(store, np.arange(len(store)), 4, 1, train=False)


def test_clips_are_matched_by_name(tmp_path):
    test = part_of(body_store(tmp_path / "a.h5", ["p", "q.avi", "r"], [0, 1, 0]))
    same = body_store(tmp_path / "b.h5", ["r", "x", "q.avi"], [0, 0, 1])
    test_index, store_index = match_clips(same, test)
    assert (test_index.tolist(), store_index.tolist()) == ([1, 2], [2, 0])
    stems = body_store(tmp_path / "c.h5", ["r.npz", "q.json", "q.npz", "p.json"], [0, 1, 1, 0])
    test_index, store_index = match_clips(stems, test)
    assert (test_index.tolist(), store_index.tolist()) == ([0, 2], [3, 0])  # there are two of q


def test_stores_of_other_clips_are_refused(tmp_path):
    test = part_of(body_store(tmp_path / "a.h5", ["p", "q"], [0, 1]))
    with pytest.raises(InputError, match=r"b\.h5: no clip has the name of a test clip"):
        match_clips(body_store(tmp_path / "b.h5", ["z"], [0]), test)
    with pytest.raises(InputError, match=r"clip 'q' has class 0 \('x'\), expected class 1 "):
        match_clips(body_store(tmp_path / "c.h5", ["p", "q"], [0, 0]), test)
    with pytest.raises(InputError, match=r"clip 'q' has class 1 \('z'\)"):
        match_clips(body_store(tmp_path / "d.h5", ["p", "q"], [0, 1], "xz"), test)


@pytest.mark.slow
@pytest.mark.skipif(not UI_PRMD.is_dir(), reason="real data not here")
def test_two_sensors_of_ui_prmd_match(tmp_path):
    """UI-PRMD: 20 clips that Kinect saw are not among those of Vicon."""
    kinect, vicon = (
        convert(
            PysklSource(UI_PRMD / f"ui_prmd_{sensor}.pkl"),
            tmp_path / f"{sensor}.h5",
            skeleton=load_skeleton(UI_PRMD / f"ui_prmd_{sensor}.meta.yaml"),
            splits={},
        )
        for sensor in ("kinect", "vicon")
    )
    test_index, store_index = match_clips(vicon, part_of(kinect))
    assert len(test_index) == 1980
    assert all(
        kinect.name(int(i)) == vicon.name(int(j))
        for i, j in zip(test_index, store_index, strict=True)
    )
