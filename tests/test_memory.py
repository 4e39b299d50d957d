"""Memory of a training step: what is estimated on fake tensors is what a real step takes."""

import copy

import hydra
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from maskclr_pl.backbones import Backbone
from maskclr_pl.checkpoint import build_method, clip_skeleton
from maskclr_pl.config import config_dir
from maskclr_pl.evaluation.memory import step_loss, training_memory
from maskclr_pl.skeletons import SKELETONS

SMALL = {
    "dstformer": ["backbone=dstformer", "backbone.dim=64", "backbone.rep_dim=64"],
    "sttformer": ["backbone=sttformer", "backbone.blocks=[[16,16,8],[16,32,8],[32,32,8]]"],
    "transformer": ["backbone=transformer", "backbone.dim=64", "backbone.depth=3"],
}


def composed(*overrides):
    """A configuration with the sizes that a store would fill in, its skeleton, method, masking."""
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", [*overrides, "clip.classes=60", "init_from=null"])
    source = SKELETONS["coco17" if cfg.augment.coordinates == "pixels" else "ntu25"]
    target = clip_skeleton(cfg.clip.skeleton, source)
    left, right = (target.joints.index(f"{side}_shoulder") for side in ("left", "right"))
    cfg.clip.update(
        joints=len(target),
        channels=3,
        parts=[list(part) for part in target.parts.values()],
        pairs=[list(pair) for pair in target.pairs],
        root=target.root,
        center=target.root,
        shoulders=[left, right],
    )
    method = build_method(cfg, source)
    for module in method.modules():
        if isinstance(module, Backbone):
            module.checkpointing = cfg.checkpointing
    strategy = None
    if "masking" in cfg:
        callback = hydra.utils.instantiate(cfg.masking, _convert_="all")
        strategy = getattr(callback, "strategy", None)
    return cfg, source, method, strategy


def batch_of(cfg, source, persons, device="cpu"):
    """Clips of random poses, of which so many persons exist."""
    size = cfg.data.batch_size
    if cfg.data.balanced:
        size = cfg.data.balanced.classes * cfg.data.balanced.samples
    frames = 300 if cfg.augment.sampling == "whole" else cfg.clip.frames
    present = torch.zeros(2 * size, dtype=torch.bool)
    rows = torch.arange(persons)
    present[rows] = True
    clip = torch.empty(3, size, 2, frames, len(source), device=device)
    if device == "cpu":
        clip = torch.rand_like(clip) + 0.1
    batch = {
        "clip": clip.movedim(0, -1),
        "present": present.view(size, 2),
        "sequence": rows,
        "frame": torch.zeros(size, frames, dtype=torch.int64),
        "label": torch.arange(size) % 3,
        "index": torch.arange(size),
    }
    return {key: value.to(device) for key, value in batch.items()}


def tensors_of(method, batch):
    return sum(t.untyped_storage().nbytes() for t in (*method.parameters(), *method.buffers()))


def measured(method, batch, masking):
    """Bytes that torch's own profiler saw allocated at the peak of a real step, in the same way."""
    method.log_dict = lambda *_, **__: None
    method.masking = masking
    method.train()
    others = [module for name, module in method.named_children() if name != "backbone"]
    optimizer, _ = method.optim.build(method.backbone, others, 1, 1)
    half = torch.autocast("cpu", torch.bfloat16, enabled=False)
    step_loss(method, batch, half).backward()
    optimizer.step()
    held = [*method.parameters(), *method.buffers(), *batch.values()]
    held += [parameter.grad for parameter in method.parameters() if parameter.grad is not None]
    held += [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    base = sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}.values()
    )
    held.clear()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        loss = step_loss(method, batch, half)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda event: event.start_ns())]
    return base + int(max(torch.tensor(sizes).cumsum(0)))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize(
    "method",
    [
        ("data=custom", "loss=maskclr", "masking=attention"),
    ],
    ids=["recognizer"],
)
def test_the_estimate_is_what_a_step_takes(method, backbone, checkpointing):
    frames = 48
    options = [*method, *SMALL[backbone], f"clip.frames={frames}", "data.batch_size=8"]
    cfg, source, made, masking = composed(*options, f"checkpointing={checkpointing}")
    batch = batch_of(cfg, source, 11)
    estimate = training_memory(made, batch, masking)
    real = measured(copy.deepcopy(made), batch, masking)
    assert 0.95 < estimate.peak / real < 1.05
