"""Every method on every backbone, small, and what it needs to take a step without a trainer."""

from contextlib import nullcontext
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch

from maskclr_pl.methods import KNN, Classifier, LinearProbe, OneShot
from tests.helpers.step_tools import Composed, built, composed, fill_in

CLIPS, PERSONS = 4, 6
BACKBONES = {
    "dstformer": ("depth=1", "dim=16", "rep_dim=16", "heads=2"),
    "sttformer": ("blocks=[[8,16,4]]",),
    "transformer": ("depth=1", "dim=16", "heads=2"),
}
TRANSFORMS = {"2D": "motionbert", "3D": "ntu3d"}
VIEWS = {"2D": "aimclr_2d", "3D": "aimclr"}
METHODS = {
    "recognizer": ("loss=maskclr", "masking=attention"),
    "supervised": ("method=finetune",),
    "aimclr": ("method=aimclr", "method.queue_size=16"),
    "crossclr": ("method=crossclr", "method.queue_size=16"),
    "skeletonmae": ("method=skeletonmae",),
    "mamp": ("method=mamp",),
    "lift": ("method=lift",),
    "linear_probe": ("method=linear_probe",),
    "knn": ("method=knn",),
    "oneshot": ("method=oneshot",),
}
# lift needs a token for each frame; mamp without its own backbone is skeletonmae with other targets
LEFT_OUT = [("lift", "transformer"), ("mamp", "dstformer"), ("mamp", "sttformer")]
EVERY = [case for case in product(METHODS, BACKBONES, TRANSFORMS) if case[:2] not in LEFT_OUT]


@cache
def part(group: str, *words: str) -> Any:
    """A group of settings."""
    return composed(*words, "data=custom", "clip.frames=24", f"data.batch_size={CLIPS}")[0][group]


def case_of(method: str, backbone: str, kind: str) -> Composed:
    """A method on a small backbone; decoders are those that go with it."""
    cfg = settings(method).copy()
    cfg.augment = part(
        "augment", f"augment={(VIEWS if 'extreme' in cfg.augment else TRANSFORMS)[kind]}"
    )
    small = (f"backbone.{word}" for word in BACKBONES[backbone])
    cfg.backbone = part("backbone", f"backbone={backbone}", *small)
    if "decoder" in cfg.method:
        name = {"dstformer": "linear"}.get(backbone, backbone)
        base = "backbone=sttformer" if name == "linear" else f"backbone={backbone}"
        cfg.method.decoder = part("method", "method=skeletonmae", f"decoder={name}", base).decoder
    if "head" in cfg and "hidden" in cfg.head:
        cfg.head.hidden = 16
    source = fill_in(cfg)
    return cfg, source, *built(cfg, source)


@cache
def settings(method: str) -> Any:
    view = ["augment=aimclr_2d"] if method in ("aimclr", "crossclr") else []
    words = (*METHODS[method], *view, "data=custom", "clip.frames=24")
    return composed(*words, f"data.batch_size={CLIPS}")[0]


class Part(list[int]):
    """Of a data module."""

    def __init__(self) -> None:
        super().__init__(range(CLIPS))

    def eval_view(self) -> "Part":
        return self


def ready(method: Any, clips: Any, masking: Any, device: torch.device) -> None:
    """Give a method on a device what it asks of its trainer, and the settings of its second stage.

    Args:
        method: On the device.
        clips: On the CPU; all clips that its trainer has.
        masking: Of the masked pathway.
        device: See above.
    """
    part, method._device = Part(), device
    method._trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=device),
        datamodule=SimpleNamespace(
            train=part, val=part, exemplars=part, sequential_loader=lambda part: [clips]
        ),
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
        **{"global_step": 0, "current_epoch": 0, "max_epochs": 2, "log_every_n_steps": 50},
        **{"world_size": 1},
    )
    method.to = lambda place: method  # it is there
    method.log = method.log_dict = lambda *_, **__: None
    # the second stage does what the first does, and more
    method.mining = method.crossing = True
    if masking is not None:
        method.masking = masking
    if isinstance(method, LinearProbe):
        method.on_fit_start()
    if isinstance(method, KNN):
        method.setup("fit")


def evaluate(method: Any, batch: Any) -> None:
    """Validation, test and features, as far as the method has them; in eval mode."""
    if isinstance(method, OneShot):
        method.on_train_epoch_end()
    method.embed(batch)
    if isinstance(method, Classifier):
        prediction = method.predict_clips(batch["clip"], batch)
        method.predict_clips = lambda *_: prediction  # once is enough
        method.validation_step(batch, 0)
        method.on_validation_epoch_end()
        method.test_step(batch, 0)
        method.on_test_epoch_end()
