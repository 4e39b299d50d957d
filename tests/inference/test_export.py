"""export: the file says what the model says, for any number of clips, or there is no file."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from maskclr_pl.backbones import Backbone, DSTformer, STTFormer, Transformer
from maskclr_pl.checkpoint.load import load_run
from maskclr_pl.data.dataset import MAX_FRAMES
from maskclr_pl.heads import ActionHead, EmbeddingHead, LinearHead
from maskclr_pl.inference import exporter as exporting
from maskclr_pl.inference.export_wrapper import ExportWrapper
from maskclr_pl.inference.exporter import (
    TOLERANCE,
    export,
    export_metadata,
    largest_difference,
    random_batch,
)
from maskclr_pl.losses import CrossEntropy, WeightedSum
from maskclr_pl.methods import KNN, Classifier, LinearProbe, OneShot, Recognizer
from maskclr_pl.optim import Optim
from maskclr_pl.skeletons.skeleton import SKELETONS, Skeleton
from maskclr_pl.transforms import Center, Convert, CropScale, FaceView, Stream, ValidCropResize
from maskclr_pl.types import InputError
from tests.helpers.commands import in_process, refused, symbolic_sizes

COCO, H36M, NTU = (SKELETONS[name] for name in ("coco17", "h36m17", "ntu25"))
CLASSES = 5


@pytest.fixture(autouse=True)
def symbols() -> Iterator[None]:
    with symbolic_sizes():
        yield


def facts(source: Skeleton, coordinates: str, frames: int, persons: int = 2) -> dict[str, Any]:
    """As much of a checkpoint's metadata as is asked for."""
    sampling = "whole" if coordinates == "metres" else "resample"
    return {
        "config": {
            "data": {"frames": frames, "persons": persons, "sampling": sampling},
            "augment": {"coordinates": coordinates},
        },
        "source_skeleton": source.to_dict(),
        "class_names": [f"class {i}" for i in range(CLASSES)],
    }


def recognizer(backbone: Backbone, head: nn.Module, steps: nn.Module, **options: Any) -> Recognizer:
    torch.manual_seed(0)
    std = 0.8  # large, so that the logits of other clips are others
    for parameter in (*backbone.parameters(), *head.parameters()):  # every weight matters
        nn.init.normal_(parameter, std=std)
    loss = WeightedSum({"ce": CrossEntropy()})
    shared = {"optim": Optim(), "skeleton": COCO, "augment": steps, "preprocess": steps}
    return Recognizer(backbone, head, loss, CLASSES, **{**shared, **options}).eval()


def flat() -> tuple[Classifier, dict[str, Any]]:
    """DSTformer on the bones of converted 2D poses."""
    steps = nn.Sequential(
        Convert(COCO, H36M), CropScale((2.0, 2.0)), Stream(H36M, "bone", confidence=True)
    )
    backbone = DSTformer(dim=8, rep_dim=12, depth=1, heads=2, max_frames=8)
    head = ActionHead(12, 17, CLASSES, hidden=6)
    return recognizer(backbone, head, steps), facts(COCO, "pixels", frames=8, persons=3)


def whole() -> tuple[Classifier, dict[str, Any]]:
    """A transformer on whole 3D recordings, as MAMP crops and resizes them."""
    steps = nn.Sequential(Center(1), ValidCropResize(8, [0.95]))
    backbone = Transformer(dim=8, depth=1, heads=2, patch_frames=4, max_frames=8)
    return recognizer(backbone, LinearHead(8, CLASSES), steps), facts(NTU, "metres", frames=8)


def turned() -> tuple[Classifier, dict[str, Any]]:
    """An STTFormer on bodies that face the camera, as AimCLR prepares them."""
    steps = nn.Sequential(Center(1, per_frame=True), ValidCropResize(12, [1.0]), FaceView([4, 8]))
    backbone = STTFormer(blocks=[(4, 6, 2)])
    return recognizer(backbone, LinearHead(6, CLASSES), steps), facts(NTU, "metres", frames=12)


# --- the function that is exported ----------------------------------------------------------------


def small(kind: str, steps: nn.Module) -> Classifier:
    backbone = Transformer(dim=8, depth=1, heads=2, max_frames=8, joints=17)
    shared = {"optim": Optim(), "skeleton": COCO, "augment": steps, "preprocess": steps}
    rng = torch.Generator().manual_seed(0)
    if kind == "linear_probe":
        return LinearProbe(backbone, CLASSES, **shared).eval()
    if kind == "knn":
        model: KNN | OneShot = KNN(backbone, CLASSES, k=3, **shared)
        width = 8
    else:
        head = EmbeddingHead(8, 17, embed_dim=6)
        model = OneShot(backbone, head, CLASSES, **shared)
        width = 6
    label = torch.arange(10) % CLASSES
    model.bank.fill(torch.randn(10, width, generator=rng), label)
    return model.eval()


@pytest.mark.parametrize("persons", ["packed", "padded"])
@pytest.mark.parametrize("kind", ["action", "linear", "linear_probe", "knn", "oneshot"])
@torch.no_grad()
def test_every_person_computed_equals_packed(kind, persons):
    """Whatever the method and its head; of four persons any may be absent, also all."""
    steps = CropScale((2.0, 2.0))
    if kind in ("action", "linear"):
        head = ActionHead(8, 17, CLASSES, 6) if kind == "action" else LinearHead(8, CLASSES)
        backbone = Transformer(dim=8, depth=1, heads=2, max_frames=8, joints=17)
        model: Classifier = recognizer(backbone, head, steps)
    else:
        model = small(kind, steps)
    model.persons = persons
    info = facts(COCO, "pixels", frames=8, persons=4)
    batch = random_batch(export_metadata(info), batch_size=6, seed=1)
    batch["clip"][0] = 0
    batch["present"][0] = False
    batch["sequence"] = batch["present"].flatten().nonzero().squeeze(1)
    assert len(set(batch["present"].sum(1).tolist())) > 2
    expected = model.predict_clips(batch["clip"], batch).logits
    found = ExportWrapper(model)(batch["clip"])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [flat, *(pytest.param(one, marks=pytest.mark.recipes) for one in (whole, turned))],
)
def test_onnx_equals_torch(tmp_path: Path, model: Callable[..., Any]) -> None:
    method, info = model()
    path = tmp_path / "model.onnx"
    assert export(method, info, "onnx", path) <= TOLERANCE * 100
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    described = export_metadata(info)
    lengths = set()
    for seed, clips in enumerate((1, 2, 3, 7), start=10):  # others than those of the command
        batch = random_batch(described, clips, seed)
        lengths.add(batch["clip"].shape[2])
        with torch.no_grad():
            expected = method.predict_clips(batch["clip"], batch).logits
        [found] = session.run(["logits"], {"clip": batch["clip"].numpy()})
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert clips == 1 or np.ptp(found, axis=0).max() > 0.01  # it depends on the clip
    assert len(lengths) == (1 if model is flat else 4)
    # the file describes itself
    facts_in = {one.key: one.value for one in onnx.load(str(path)).metadata_props}
    assert json.loads(facts_in["class_names"]) == info["class_names"]
    assert (
        Skeleton.from_dict(json.loads(facts_in["skeleton"])).joints
        == (COCO if model is flat else NTU).joints
    )
    assert json.loads(facts_in["frames"]) == (8 if model is flat else [4, MAX_FRAMES])
    assert facts_in["input"].startswith("clip (B, M, T, V, 3) float32")


# --- refusals -------------------------------------------------------------------------------------


class Peeking(ActionHead):
    """A head whose result depends on how many persons were computed: no export can be right."""

    def forward(self, tokens: Tensor, *args: Any, **options: Any) -> Any:
        return super().forward(tokens + tokens.shape[0], *args, **options)


class Counting(nn.Module):
    """A step that looks at the values, which a graph cannot."""

    def forward(self, clip: Tensor) -> Tensor:
        return clip * 2 if float(clip.sum()) > 0 else clip


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"head": Peeking(12, 17, CLASSES, hidden=6)}, "give different logits"),
        ({"steps": Counting()}, "this model cannot be exported"),
    ],
)
def test_a_broken_export_leaves_no_file(tmp_path, broken, told):
    parts = {
        "backbone": DSTformer(dim=8, rep_dim=12, depth=1, heads=2, max_frames=8),
        "head": ActionHead(12, 17, CLASSES, hidden=6),
        "steps": nn.Identity(),
    }
    method = recognizer(**{**parts, **broken})
    with pytest.raises(InputError, match=told):
        export(method, facts(COCO, "pixels", frames=8), "torch", tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_an_earlier_file_survives_a_broken_export(tmp_path, monkeypatch):
    method, info = flat()
    (tmp_path / "model.pt2").write_text("earlier")
    monkeypatch.setattr(
        exporting, "_write_torch", lambda program, facts, path: lambda clip: clip[:, 0]
    )
    with pytest.raises(InputError, match=r"give different logits.*nothing was kept"):
        export(method, info, "torch", tmp_path / "model.pt2")
    assert (tmp_path / "model.pt2").read_text() == "earlier"


def test_a_constant_is_found_out():
    """The known trap: a graph that took the example's values for constants."""
    method, info = flat()
    described = export_metadata(info)
    batch = random_batch(described, 1, 0)
    with torch.no_grad():
        constant = method.predict_clips(batch["clip"], batch).logits
    with pytest.raises(InputError, match="on 2 clips"):
        largest_difference(method, described, lambda clip: constant.expand(len(clip), -1))
    with pytest.raises(InputError, match="fails on 1 clips"):
        largest_difference(method, described, lambda clip: clip @ clip)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    method, info = flat()
    monkeypatch.setattr(exporting, "_ONNX_PACKAGES", ("onnx", "onnx_that_nobody_has"))
    with pytest.raises(InputError) as refusal:
        export(method, info, "onnx", tmp_path / "model.onnx")
    assert str(refusal.value).startswith(
        "format=onnx needs onnx_that_nobody_has; run pip install 'maskclr_pl[export]'"
    )


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.recipes
def test_command(tmp_path, toy_run, capsys):
    run = partial(in_process, cwd=tmp_path, capsys=capsys)
    line = partial(refused, cwd=tmp_path, capsys=capsys)
    fixed = [f"ckpt_path={toy_run / 'run'}", "format=torch", "output=model.pt2"]
    printed = run("export", *fixed)
    assert "logits differ by" in printed
    assert printed.splitlines()[-1].startswith("next ")
    extra = {"metadata.json": ""}
    loaded = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    method, info = load_run(toy_run / "run/checkpoints/best.ckpt")
    assert extra["metadata.json"] == json.dumps(export_metadata(info))
    assert isinstance(method, Classifier)
    batch = random_batch(export_metadata(info), batch_size=4, seed=9)
    with torch.no_grad():
        expected = method.predict_clips(batch["clip"], batch).logits
        torch.testing.assert_close(loaded(batch["clip"]), expected, rtol=1e-5, atol=1e-5)
    assert "exists already; pass overwrite=true" in line("export", *fixed)
    assert "expected onnx or torch" in line("export", *fixed, "format=tflite")
    assert "ends in .pt2" in line("export", *fixed, "output=model.onnx")
    assert "is a folder; pass output=" in line("export", *fixed, f"output={tmp_path}")
