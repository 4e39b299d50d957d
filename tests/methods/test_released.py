"""compat=released: the inputs that published checkpoints were trained with, and their logits."""

from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from maskclr_pl.config.build import build_method
from maskclr_pl.config.paths import config_dir
from maskclr_pl.data import Recording, write_store
from maskclr_pl.data.datamodule import SkeletonDataModule
from maskclr_pl.inference.predictor import Predictor
from maskclr_pl.methods import Classifier
from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.transforms import CropScale, RandomMove, uniform_frames
from tests.reference import released as oracle
from tests.reference import transforms as right
from tests.transforms.test_transforms import clips, seeds, shapes

COCO = SKELETONS["coco17"]
SIZE, FRAMES = (480, 640), 20
CLASS_NAMES = ["a", "b", "c"]


def recording(name: str, persons: int, frames: int = 33) -> Recording:
    """People who stand apart; some of their joints are missing, at pixel 0 with score 0."""
    rng = np.random.default_rng(len(name))
    body = rng.normal(0, 40, (persons, 1, 17, 2)) + rng.normal(0, 3, (persons, frames, 17, 2))
    places = np.array([[200.0, 250], [430, 220]])[:persons, None, None]
    keypoint = (body + places).astype(np.float32)
    score = rng.uniform(0.2, 1, (persons, frames, 17)).astype(np.float16).astype(np.float32)
    missing = rng.random(score.shape) < 0.1
    keypoint[missing], score[missing] = 0, 0
    return Recording(name, len(name) % 3, keypoint, score, SIZE)


def exchanged(name: str, *stretches: slice) -> Recording:
    """The detector confused two persons for a while."""
    one = recording(name, 2)
    for values in (one.keypoint, one.score):
        assert values is not None
        for stretch in stretches:
            values[:, stretch] = values[::-1, stretch].copy()
    return one


def leaves(name: str, stretch: slice) -> Recording:
    """The second person is not there for a while."""
    one = recording(name, 2)
    for values in (one.keypoint, one.score):
        assert values is not None
        values[1, stretch] = 0
    return one


RECORDINGS = [
    recording("one person", 1),
    recording("two persons", 2),
    exchanged("exchanged", slice(5, 12), slice(20, 33)),
    leaves("leaves for a while", slice(10, 20)),
    leaves("is never there", slice(0, 33)),
    recording("a rounding error", 1, frames=164),  # 164 / 20 = 8.2, and 15 * 8.2 < 123
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "store.h5"
    training = [recording("for training", 1), recording("for training, too", 2)]
    names = [[one.name for one in part] for part in (training, RECORDINGS)]
    splits = {"train": names[0], "test": names[1]}
    write_store(
        path, [*training, *RECORDINGS], skeleton=COCO, splits=splits, class_names=CLASS_NAMES
    )
    return path


def run_of(
    store: Path, *overrides: str
) -> tuple[Classifier, SkeletonDataModule, dict[str, object]]:
    """Method, data and metadata of `train data=custom ...`."""
    words = ["data=custom", "pose=h36m17", "head=action_small", "data.num_workers=0", *overrides]
    words += [f"data.path={store}", "data.train_split=train", "data.test_split=test"]
    words += ["data.val_fraction=0", f"clip.frames={FRAMES}", "clip.joints=17", "clip.channels=3"]
    words += ["clip.classes=3", "backbone.dim=16", "backbone.depth=2", "backbone.rep_dim=12"]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", [*words, "masking=none", "loss=ce"])
    GlobalHydra.instance().clear()
    data = hydra.utils.instantiate(cfg.data, _convert_="all")
    torch.manual_seed(0)
    method = build_method(cfg, COCO).eval()
    assert isinstance(method, Classifier)
    settings = OmegaConf.to_container(cfg.data, resolve=True)
    config = {"data": settings, "augment": {"coordinates": cfg.augment.coordinates}}
    info = {"class_names": CLASS_NAMES, "source_skeleton": COCO.to_dict(), "config": config}
    return method, data, info


def head_of(method: Classifier, tokens: np.ndarray) -> np.ndarray:
    """MotionBERT's action head on (2, T, 17, D): the mean over two persons, present or not."""
    head = method.get_submodule("head").state_dict()
    weights = {name: value.double().numpy() for name, value in head.items()}
    pooled = tokens.mean(1).reshape(2, -1).mean(0)
    x = weights["fc1.weight"] @ pooled + weights["fc1.bias"]
    x = (x - weights["bn.running_mean"]) / np.sqrt(weights["bn.running_var"] + 1e-5)
    x = np.maximum(weights["bn.weight"] * x + weights["bn.bias"], 0)
    return np.asarray(weights["fc2.weight"] @ x + weights["fc2.bias"])


def logits_of(method: Classifier, data: SkeletonDataModule) -> np.ndarray:
    rows = [method.predict_clips(batch["clip"], batch).logits for batch in data.test_dataloader()]
    return torch.cat(rows).numpy()


@torch.no_grad()
def expected_logits(method: Classifier) -> np.ndarray:
    """The reference's input, our backbone (tests/parity compares it), the reference's head."""
    rows = []
    for one in RECORDINGS:
        assert one.score is not None
        x = oracle.network_input(one.keypoint, one.score, SIZE, FRAMES)
        tokens = method.backbone(torch.from_numpy(x).float()).tokens
        rows.append(head_of(method, tokens.double().numpy()))
    return np.stack(rows)


@torch.no_grad()
def test_from_a_recording_to_logits(store):
    """Kind: results that silently differ from the published ones (issue 13, B.9).

    One person, two, exchanged ones, one who leaves: inputs and logits are those of the reference.
    """
    method, data, _ = run_of(store, "compat=released")
    [batch] = data.test_dataloader()
    actual = method.preprocess(batch["clip"]).numpy()
    for one, clip in zip(RECORDINGS, actual, strict=True):
        assert one.score is not None
        x = oracle.network_input(one.keypoint, one.score, SIZE, FRAMES)
        # float32 of pixels up to 640, in a box of 200
        np.testing.assert_allclose(clip, x, rtol=0, atol=5e-6, err_msg=one.name)
    expected = expected_logits(method)
    np.testing.assert_allclose(logits_of(method, data), expected, rtol=0, atol=2e-5)
    # what is right is something else, for each of these clips
    ours = logits_of(*run_of(store)[:2])
    assert (np.abs(ours - expected).max(1) > 1e-3).all()


@torch.no_grad()
def test_prediction_has_the_released_inputs_too(store):
    """Kind: a second way to the same thing that forgets a setting (issue 13, B.9)."""
    method, data, info = run_of(store, "compat=released")
    predictor = Predictor(method, info, torch.device("cpu"))
    expected = logits_of(method, data)
    for row, one in zip(expected, RECORDINGS, strict=True):
        odds = np.exp(row - row.max())
        np.testing.assert_allclose(predictor(one), odds / odds.sum(), rtol=1e-5)


def test_compat_is_one_setting(store):
    """Without the setting, released defects are absent."""
    for compat, released in (("none", False), ("released", True)):
        method, data, _ = run_of(store, f"compat={compat}")
        steps = [*method.augment, *method.preprocess]
        flags = {step.released for step in steps if isinstance(step, RandomMove | CropScale)}
        assert flags == {data.test.released, data.train.released} == {released}
        assert method.persons == ("padded" if released else "packed")
        assert steps[0].released_scores == released


def test_runs_of_earlier_versions_are_read_as_they_were_trained(store):
    """Their `clip.released_scores` is the order of the confidences and nothing else."""
    method, _, _ = run_of(store, "+clip.released_scores=true")
    convert, *steps = method.preprocess
    assert convert.released_scores
    assert not any(step.released for step in steps)


@given(shapes, seeds, st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.booleans(), st.floats(1, 3))
def test_crop_scale_moves_every_point(shape, seed, hidden, outliers, ratio):
    clip = clips(*shape, seed=seed, hidden=hidden, outliers=outliers)
    step = CropScale((ratio, ratio))
    step.released = True
    # the same in float32: a few roundings of numbers up to ratio / extent
    expected = oracle.crop_scale(clip.double().numpy(), ratio)
    np.testing.assert_allclose(step(clip).numpy(), expected, atol=2e-5)


@given(shapes, seeds)
def test_random_move_moves_every_point(shape, seed):
    rng = np.random.default_rng(seed)
    clip = clips(*shape, seed=seed)
    values = [rng.uniform(-30, 30, 2), rng.uniform(0.5, 2, 2), rng.uniform(-1, 1, (2, 2))]
    all_visible = np.concatenate([clip[..., :2], np.ones((*clip.shape[:-1], 1))], axis=-1)
    expected = right.random_move(all_visible, *values)
    tensors = [torch.tensor(v, dtype=torch.float32) for v in values]
    out = RandomMove.move(clip, *tensors, released=True)
    np.testing.assert_allclose(out[..., :2], expected[..., :2], atol=5e-6)  # float32 below 4
    assert torch.equal(out[..., 2], clip[..., 2])


def test_released_frames():
    """The examples of golden/README.md, in which the released code is one or two frames early."""
    for frames, length, early in ((58, 100, 1), (70, 100, 1), (116, 100, 2), (103, 10, 0)):
        late = uniform_frames(frames, length) - uniform_frames(frames, length, released=True)
        assert late.sum() == early
        assert set(late.tolist()) <= {0, 1}
