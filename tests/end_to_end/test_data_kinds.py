"""Every `data=` of the benchmarks trains on a small file of its published layout."""

import pickle

import numpy as np
import pytest
import torch

from maskclr_pl.checkpoint.load import load_run
from tests.helpers.commands import SMALL, in_process, refused
from tests.sources.test_kinetics import annotation as annotated
from tests.sources.test_kinetics import index_file, save, skeletons_of

pytestmark = pytest.mark.slow

CLASSES = {"ntu60_xsub": 60, "ntu120_xset_3d": 120, "kinetics400": 400}
QUICK = [*SMALL, "debug=fast", "data.batch_size=4", "trainer.accelerator=cpu"]


def ntu_names(actions):
    """Two training and two test clips of each class, whatever the protocol."""
    return [
        f"S{setup:03d}C{camera:03d}P{subject:03d}R001A{action:03d}"
        for action in actions
        for setup, camera, subject in ((2, 2, 1), (4, 3, 2), (1, 1, 3), (3, 1, 6))
    ]


def annotation(name, channels, rng):
    persons, frames = int(rng.integers(1, 3)), int(rng.integers(20, 90))
    joints = 17 if channels == 2 else 25
    shape = (persons, frames, joints)
    clip = {"frame_dir": name, "label": int(name[-3:]) - 1, "total_frames": frames}
    if channels == 3:
        return {**clip, "keypoint": rng.normal(0, 1, (*shape, 3)).astype(np.float16)}
    return {
        **clip,
        "keypoint": rng.uniform(100, 900, (*shape, 2)).astype(np.float16),
        "keypoint_score": rng.uniform(0.2, 1, shape).astype(np.float16),
        "img_shape": (1080, 1920),
        "original_shape": (1080, 1920),
    }


def write_kinetics(folder, rng):
    """The index, and beside it a file with the skeletons; a frame has some or none."""
    items = []
    for i in range(24):
        frame, label = np.sort(rng.integers(0, 40, 60)), (7, 99, 399)[i % 3]
        items.append(annotated(f"clip{i}", frame, label, file="kpfiles/part.pkl"))
    skeletons = skeletons_of(items).items()
    save(folder / "kpfiles/part.pkl", {name: {"keypoint": one} for name, one in skeletons})
    names = [item["frame_dir"] for item in items]
    split = {"train": names[:15], "val": names[15:]}
    index_file(folder, items, split).rename(folder / "k400_hrnet.pkl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The published files in small; NTU's without splits: they follow from the names."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    write_kinetics(folder, rng)
    for number, actions in ((60, (1, 7, 50)), (120, (1, 7, 50, 61, 120))):
        for form, channels in (("hrnet", 2), ("3danno", 3)):
            clips = [annotation(name, channels, rng) for name in ntu_names(actions)]
            path = folder / f"ntu{number}_{form}.pkl"
            path.write_bytes(pickle.dumps({"split": {}, "annotations": clips}))
    return folder


def stored(data, folder, capsys):
    """Where the data is missing, type what the training's message says.

    Kind: an error with several steps was one line of 700 characters.
    """
    store = f"{data.split('_')[0]}{'_3d' if data.endswith('_3d') else ''}.h5"
    if not (folder / "data" / store).exists():
        steps = refused("train", f"data={data}", *QUICK, cwd=folder, capsys=capsys)
        assert steps.startswith(f"error: data/{store} is missing\n")
        assert "\n    https://download.openmmlab.com" in steps
        command = steps.split("python -m maskclr_pl.prepare ")[1].split("`")[0].split()
        shown = in_process("prepare", *command, cwd=folder, capsys=capsys)
        assert shown.strip().endswith(f"data/{store}")


def train(data, *more, folder, capsys):
    stored(data, folder, capsys)
    return in_process("train", f"data={data}", *QUICK, *more, cwd=folder, capsys=capsys)


@pytest.mark.parametrize("data", CLASSES)
def test_what_the_message_says_works_and_trains(folder, capsys, data):
    output = train(data, folder=folder, capsys=capsys)
    assert "result     test top1" in output
    assert f"{CLASSES[data]} classes" in output
    assert f"{25 if data.endswith('_3d') else 17} joints" in output


@pytest.mark.parametrize(
    ("data", "stream"),
    [
        ("ntu60_xsub_3d", "bone"),
        pytest.param("ntu60_xsub", "bone_motion", marks=pytest.mark.recipes),
        pytest.param("ntu60_xsub_3d", "joint_motion", marks=pytest.mark.recipes),
    ],
)
def test_streams_train_and_are_evaluated(folder, capsys, data, stream):
    output = train(data, f"clip.stream={stream}", folder=folder, capsys=capsys)
    shown = in_process(
        "evaluate",
        f"ckpt_path={output.strip().splitlines()[-1]}",
        "draws=1",
        "which=last",
        cwd=folder,
        capsys=capsys,
    )
    assert "spatial_noise" in shown


def test_the_views_of_aimclr_train(folder, capsys):
    output = train("ntu60_xsub_3d", "augment=aimclr", folder=folder, capsys=capsys)
    assert "result     test top1" in output


@pytest.mark.parametrize(
    ("where", "advice"),
    [
        ("clip.center=knee", "spine_mid"),
        ("clip.stream=velocity", "joint_motion"),
        ("augment=motionbert", "pass augment=ntu3d"),
    ],
)
def test_what_does_not_fit_is_said(folder, capsys, where, advice):
    stored("ntu60_xsub_3d", folder, capsys)
    words = ["data=ntu60_xsub_3d", *QUICK, where]
    assert advice in refused("train", *words, cwd=folder, capsys=capsys)


def test_a_lifting_backbone_is_fine_tuned_in_2d_and_probed_in_3d(folder, capsys):
    stored("ntu60_xsub_3d", folder, capsys)
    small = ["backbone.dim=16", "backbone.rep_dim=16", "backbone.depth=1", "clip.frames=12"]
    words = ["experiment=lift_dstformer", *small, "debug=fast", "data.num_workers=0"]
    words += ["data.batch_size=4", "trainer.accelerator=cpu"]
    output = in_process("train", *words, cwd=folder, capsys=capsys)
    assert "result     loss" in output
    # the clips of a 2D recipe have the same joints and channels
    start = f"init_from={output.strip().splitlines()[-1]}/checkpoints/last.ckpt"
    words = ["backbone=dstformer", *small, "pose=h36m17", "masking=none", "loss=ce", start]
    output = train("ntu60_xsub", *words, folder=folder, capsys=capsys)
    assert "start      backbone from" in output
    # it was shown 2D poses
    assert output.count("is for metres and is not inherited") == 1
    # and on the 3D clips themselves it is shown what it learnt to lift
    words = ["method=linear_probe", start, "output_dir=probe", "debug=fast"]
    words += ["data.num_workers=0", "trainer.accelerator=cpu"]
    output = in_process("train", *words, cwd=folder, capsys=capsys)
    assert "not inherited" not in output
    probe, info = load_run(folder / "probe" / "checkpoints" / "last.ckpt")
    clips = probe.preprocess(torch.randn(2, 1, 12, 25, 3))
    assert set(clips[..., 2].unique().tolist()) == {1.0}
    assert clips[..., :2].abs().max() <= 1
    assert [str(step["_target_"]) for step in info["config"]["augment"]["augment"]][-1:] == [
        "maskclr_pl.transforms.Project"
    ]
