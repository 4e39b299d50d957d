"""A training step of MaskCLR: plain eager float32 with padded persons, against ours.

`python -m tests.benchmarks.step [backbone] [frames] [batch]`; backbones: dstformer_lite (the
default, 81 frames), dstformer, transformer, sttformer. Each variant runs in a process of its own,
so that its peak memory can be told. 82 % of the clips have one person, as in NTU RGB+D.

The baseline computes what the released step computes: both pathways, two persons in every clip (an
absent one is zeros), attention maps made explicitly in every layer, float32, no compilation. The
other variants change one thing after the other.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import hydra
import torch
from torch import Tensor, nn

from maskclr_pl.backbones.layers import Attention, attention_received
from maskclr_pl.checkpoint import build_method
from maskclr_pl.config import config_dir
from maskclr_pl.masking import AttentionGuidedMasking
from maskclr_pl.methods import Recognizer
from maskclr_pl.skeletons import SKELETONS

FRAMES = {"dstformer_lite": 81, "dstformer": 243, "transformer": 120, "sttformer": 120}
VARIANTS = ("baseline", "fused attention", "+ packed persons", "+ compiled", "+ bf16")
SINGLE, BATCHES = 0.82, 5


def explicit_attention(
    layer: Attention, x: Tensor, with_received: bool = False
) -> tuple[Tensor, Tensor | None]:
    """What `Attention.forward` computes, with the map of every head in memory."""
    shape = (-1, x.shape[-2], 3, layer.heads, x.shape[-1] // layer.heads)
    query, key, value = layer.qkv(x).view(shape).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
    out = layer.proj((weights @ value).transpose(1, 2).reshape(x.shape))
    received = attention_received(query, key).view(x.shape[:-1]) if with_received else None
    return out, received


def build(name: str, frames: int, persons: str) -> Recognizer:
    overrides = [
        *(f"backbone={name}", f"clip.frames={frames}", "clip.joints=17", "clip.classes=60"),
        *("clip.parts=[[0]]", f"++method.persons={persons}"),
    ]
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", overrides)
    torch.manual_seed(0)
    method = build_method(cfg, SKELETONS["coco17"])
    assert isinstance(method, Recognizer)
    method.masking = AttentionGuidedMasking(scope="tube", ratio=0.3)
    method.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    return method.train()


def batches(size: int, frames: int, device: torch.device) -> list[dict[str, Tensor]]:
    """Batches that differ in the number of persons; 82 % of all clips have one."""
    rng = torch.Generator().manual_seed(0)
    single = torch.rand(BATCHES * size, generator=rng).argsort() < round(SINGLE * BATCHES * size)
    made = []
    for alone in single.split(size):
        present = torch.stack((torch.ones_like(alone), ~alone), dim=1)
        clip = torch.rand(size, 2, frames, 17, 3, generator=rng)
        clip[~present] = 0
        values = {
            "clip": clip,
            "present": present,
            "sequence": present.flatten().nonzero().squeeze(1),
            "label": torch.randint(60, (size,), generator=rng),
        }
        made.append({key: value.to(device) for key, value in values.items()})
    return made


def stepper(variant: str, name: str, frames: int, device: torch.device) -> Callable[..., None]:
    level = VARIANTS.index(variant)
    method = build(name, frames, "packed" if level >= 2 else "padded").to(device)
    if level == 0:
        for layer in method.modules():
            if isinstance(layer, Attention):
                layer.forward = explicit_attention.__get__(layer)  # type: ignore[method-assign]
    if level >= 3:
        method.compile_backbone()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-4, fused=level >= 1)

    def step(clips: dict[str, Tensor]) -> None:
        half = torch.autocast(device.type, torch.bfloat16) if level >= 4 else nullcontext()
        with half:
            loss = method.training_step(clips, 0)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()

    return step


def measure(variant: str, name: str, frames: int, size: int) -> dict[str, float]:
    """Clips per second and peak memory in MB."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step, clips = stepper(variant, name, frames, device), batches(size, frames, device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    step(clips[0])
    step(clips[1])
    wait()
    start = time.perf_counter()
    for one in clips:
        step(one)
    wait()
    seconds = time.perf_counter() - start
    peak = (
        torch.cuda.max_memory_allocated() / 1e6
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    )
    return {"rate": BATCHES * size / seconds, "peak": peak}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "dstformer_lite"
    frames = int(sys.argv[2]) if len(sys.argv) > 2 else FRAMES[name]
    size = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    if len(sys.argv) > 4:
        sys.stdout.write(json.dumps(measure(sys.argv[4], name, frames, size)))
        return
    sys.stdout.write(f"training step, {name}, {frames} frames, {size} clips, 17 joints\n")
    first = None
    for variant in VARIANTS:
        words = [sys.executable, "-m", "tests.benchmarks.step", name, str(frames), str(size)]
        shown = subprocess.run([*words, variant], check=True, capture_output=True, text=True)
        found = json.loads(shown.stdout)
        first = first or found
        sys.stdout.write(
            f"  {variant:18} {found['rate']:8.2f} clips/s {found['rate'] / first['rate']:6.1f}x"
            f" {found['peak']:8.0f} MB {found['peak'] / first['peak']:6.2f}x\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
