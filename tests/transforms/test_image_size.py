"""By default 2D clips do not depend on the size of the image or of the body in it."""

import functools

import hydra
import lightning as L
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from maskclr_pl.config.build import build_method
from maskclr_pl.config.paths import config_dir
from maskclr_pl.data import Recording, write_store
from maskclr_pl.data.dataset import collate, make_clip
from maskclr_pl.data.store.reader import Store
from maskclr_pl.methods import Classifier
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.transforms import RandomMove
from maskclr_pl.types import InputError
from tests.helpers.protocol_tools import trainer
from tests.reference import transforms as oracle
from tests.transforms.test_transforms import clips, seeds, shapes

COCO = SKELETONS["coco17"]
SIZES = [(480, 640), (2880, 3840), (120, 160), (300, 2000), (1, 1)]


def compose(*overrides):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", ["clip.pairs=[[5,6],[7,8]]", *overrides])
    GlobalHydra.instance().clear()
    return cfg


@functools.cache
def pipeline(augment, name):
    """The transforms of an augment= entry as one module."""
    cfg = compose("data=custom", f"augment={augment}")
    return nn.Sequential(*hydra.utils.instantiate(cfg.augment[name], _convert_="all").values())


PIPELINES = (
    ("body2d", "augment"),
    ("body2d", "preprocess"),
    ("aimclr_2d", "augment"),
    ("aimclr_2d", "extreme"),
    ("none", "augment"),
)


def people(persons, frames, extent, seed):
    """Keypoints and scores of bodies somewhere in an image of 640 x 480; some joints missing."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 480, (persons, 1, 1, 2)) + rng.normal(0, 5, (1, frames, 1, 2)).cumsum(1)
    keypoint = place + rng.normal(0, extent, (persons, frames, 17, 2))
    score = rng.uniform(0.1, 1, (persons, frames, 17)) * (rng.random((persons, frames, 17)) > 0.1)
    return keypoint.astype(np.float32), score.astype(np.float32)


@pytest.mark.parametrize("steps", PIPELINES, ids=" ".join)
@given(
    persons=st.integers(1, 2),
    frames=st.integers(1, 8),
    extent=st.floats(3, 200),
    seed=seeds,
    size=st.sampled_from(SIZES[1:]),
)
def test_default_2d_augmentation_ignores_the_image_size(steps, persons, frames, extent, seed, size):
    """The same poses and draws give the same clip for another image size."""
    keypoint, score = people(persons, frames, extent, seed)
    results = []
    for stated in (SIZES[0], size):
        one = Recording("clip", 0, keypoint, score, stated)
        batch = collate([make_clip(one, np.arange(frames), 2, 0)])
        torch.manual_seed(seed)
        results.append(pipeline(*steps)(batch["clip"]))
    # float32: pixels to units of up to 4000, in a box of at least 10 of them
    torch.testing.assert_close(*results, rtol=0, atol=5e-4)
    assert results[0].any()


@given(shapes, seeds)
def test_moves_about_the_body_match_the_reference(shape, seed):
    rng = np.random.default_rng(seed)
    clip = clips(*shape, seed=seed)
    values = [rng.uniform(-30, 30, 2), rng.uniform(0.5, 2, 2), rng.uniform(-1, 1, (2, 2))]
    center = rng.uniform(-1, 1, 2)
    tensors = [torch.tensor(v, dtype=torch.float32) for v in (*values, center)]
    out = RandomMove.move(clip, *tensors)
    expected = oracle.random_move(clip.numpy(), *values, tuple(center))
    np.testing.assert_allclose(out.numpy(), expected, atol=5e-6)  # float32 of values below 8


def test_box_covers_all_persons_and_frames():
    """Shifts are in units of half its longer side, turns and scales leave its center in place."""
    clip = torch.zeros(2000, 2, 3, 2, 3)
    clip[..., 2] = 1
    clip[:, 0, ..., :2] = torch.tensor([0.2, 0.5])
    clip[:, 1, ..., :2] = torch.tensor([0.6, 0.6])  # a box of 0.4 by 0.1 about (0.4, 0.55)
    clip[:, 1, 1, 1] = torch.tensor([9.0, 9.0, 0.0])  # not visible
    move = RandomMove(angle=0.0, scale=(1.0, 1.0), shift=0.5, relative_to="body")(clip)
    shift = (move - clip)[:, 0, :, 0, :2]
    # 4000 uniform draws a frame: the extremes are within 1 % of 0.5 * 0.4 / 2 but for 1e-17
    assert 0.099 < shift[:, [0, -1]].abs().max() <= 0.1 + 1e-6
    turn = RandomMove(angle=180.0, scale=(0.1, 3.0), shift=0.0, relative_to="body")(clip)
    middle = turn[..., 0, 0, :2].mean(1)  # of the two persons, who keep their relation
    torch.testing.assert_close(middle, torch.tensor([[0.4, 0.55]]).expand_as(middle))
    assert not turn[:, 1, 1, 1].any()


def test_clips_without_a_box_stay_finite():
    clip = torch.zeros(2, 1, 4, 5, 3)
    clip[1, 0, 0, 0] = 1  # a single point has no box
    out = RandomMove(relative_to="body")(clip)
    assert out.isfinite().all()
    assert not out[0].any()
    with pytest.raises(InputError, match="relative_to=frame: expected image or body"):
        RandomMove(relative_to="frame")


def test_custom_data_move_relative_to_the_body():
    """Benchmarks move relative to the image, as published."""
    for data, augment in (("custom", "body"), ("ntu60_xsub", "image"), ("kinetics400", "image")):
        move = compose(f"data={data}").augment.augment.move
        assert hydra.utils.instantiate(move).relative_to == augment
    published = compose("data=ntu60_xsub").augment
    assert published.augment.move.shift == 0.1
    assert list(published.preprocess.crop.ratio) == [2.0, 2.0]


def waving_store(path, size) -> Store:
    """Two classes that differ in the motion of a hand; small bodies in an image of 640 x 480."""
    rng = np.random.default_rng(0)
    recordings = []
    for i in range(36):
        keypoint = rng.normal(0, 1, (1, 16, 17, 2)) + rng.uniform(-60, 60, 2) + (320, 240)
        keypoint += rng.normal(0, 20, (17, 2))
        phase = np.arange(16) / 16 * 2 * np.pi * (1 + 2 * (i % 2)) + rng.uniform(0, 6)
        keypoint[0, :, 9, 1] += 40 * np.sin(phase)
        score = np.ones(keypoint.shape[:3], np.float32)
        recordings.append(Recording(f"c{i}", i % 2, keypoint.astype(np.float32), score, size))
    names = [one.name for one in recordings]
    splits = {"train": names[:24], "test": names[24:]}
    return write_store(path, recordings, skeleton=COCO, splits=splits)


def train_logits(store: Store, *overrides: str) -> np.ndarray:
    """Logits of the test clips after two epochs from a seed, with what data=custom sets."""
    settings = [
        "data=custom",
        "data.train_split=train",
        "data.test_split=test",
        "head=action_small",
    ]
    settings += [
        "head=action_small",
        "data.val_fraction=0",
        "loss=ce",
        "masking=none",
        "data.batch_size=12",
    ]
    settings += ["data.num_workers=0", "backbone.dim=16", "backbone.rep_dim=16", "optim.lr=0.003"]
    settings += ["clip.frames=8", "clip.joints=17", "clip.channels=3", "clip.classes=2"]
    cfg = compose(*settings, f"data.path={store.path}", *overrides)
    L.seed_everything(0)
    method = build_method(cfg, COCO)
    data = hydra.utils.instantiate(cfg.data, _convert_="all")
    run = trainer(epochs=2)
    run.fit(method, data)
    run.test(method, data, verbose=False)
    assert isinstance(method, Classifier)
    return method.predictions["logits"].numpy()


@pytest.mark.slow
def test_wrong_image_size_gives_the_same_training(tmp_path):
    """Runs from one seed differ by rounding only, which four steps of Adam amplify little."""
    sizes = [SIZES[0], (2880, 3840), (120, 160), (480, 2000)]
    stores = [waving_store(tmp_path / f"{i}.h5", size) for i, size in enumerate(sizes)]
    right, *wrong = [train_logits(store) for store in stores]
    spread = np.ptp(right, axis=0).max()
    for size, logits in zip(sizes[1:], wrong, strict=True):
        assert np.abs(logits - right).max() < 0.05 * spread, size  # measured: 0.01 to 0.024
    # relative to the image it is another run; measured: 2.5
    published = [train_logits(store, "augment=motionbert") for store in stores[:2]]
    assert np.abs(published[0] - published[1]).max() > 0.5 * spread
