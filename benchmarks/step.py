"""A training step of MaskCLR: plain eager float32 with padded persons, against ours.

`python -m benchmarks.step [backbone] [frames] [batch]`; backbones: dstformer_lite (the
default, 81 frames), dstformer, transformer, sttformer. `--growth` measures our step over frames
and batch sizes instead. Each variant runs in a process of its own, so that its peak memory can be
told. 82 % of the clips have one person, as in NTU RGB+D.

The baseline computes what the released step computes: both pathways, two persons in every clip (an
absent one is zeros), attention maps made explicitly in every layer, float32, no compilation. The
variants that begin with + change one thing more than the one before; the others one thing of
"+ packed persons". bfloat16 runs where the processor can multiply it.

The last columns say what is left to gain: the arithmetic of a clip (matrix products and attention,
forward and backward, as torch counts them), and the share that the step reaches of this machine's
rate for one large matrix product of the same precision.
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
from torch.utils.flop_counter import FlopCounterMode

from maskclr_pl.backbones.layers import Attention, attention_received
from maskclr_pl.config.build import build_method
from maskclr_pl.config.paths import config_dir
from maskclr_pl.masking import AttentionGuidedMasking
from maskclr_pl.methods import Recognizer
from maskclr_pl.skeletons.skeleton import SKELETONS

FRAMES = {"dstformer_lite": 81, "dstformer": 243, "transformer": 120, "sttformer": 120}
VARIANTS = ("baseline", "fused attention", "+ packed persons", "+ compiled", "+ bf16")
OPTIONS = ("checkpointing", "drop hidden")
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


def build(name: str, frames: int, persons: str, drop_hidden: bool) -> Recognizer:
    overrides = [
        *(f"backbone={name}", f"clip.frames={frames}", "clip.joints=17", "clip.classes=60"),
        *("clip.parts=[[0]]", f"method.persons={persons}"),
        f"method.drop_hidden={drop_hidden}",
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
    level = VARIANTS.index(variant) if variant in VARIANTS else 2
    persons = "packed" if level >= 2 else "padded"
    method = build(name, frames, persons, variant == "drop hidden").to(device)
    method.backbone.checkpointing = variant == "checkpointing"
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


def multiplies_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is more than a way to save memory here."""
    known = torch.cpu.get_capabilities()
    return device.type == "cuda" or bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        matrix @ matrix
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measured_flops(name: str, frames: int, device: torch.device) -> float:
    """FLOP of a clip with packed persons, of whom 82 % are alone."""
    one, clips = stepper("+ packed persons", name, frames, device), batches(11, frames, device)
    small = [{key: value[:2] for key, value in clips[0].items() if key != "sequence"}]
    small[0]["sequence"] = small[0]["present"].flatten().nonzero().squeeze(1)
    counter = FlopCounterMode(display=False)
    with counter:
        one(small[0])
    return counter.get_total_flops() / len(small[0]["sequence"]) * (2 - SINGLE)


def measure(
    variant: str, name: str, frames: int, size: int, device: torch.device
) -> dict[str, float]:
    """Clips per second, peak memory in MB, FLOP of a clip, share of the machine's rate."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    dtype = torch.bfloat16 if variant == "+ bf16" else torch.float32
    machine = product_rate(device, dtype)
    step, clips = stepper(variant, name, frames, device), batches(size, frames, device)
    counter = FlopCounterMode(display=False)
    with counter if variant != "+ compiled" and variant != "+ bf16" else nullcontext():
        step(clips[0])
    step(clips[1])
    wait(device)
    start = time.perf_counter()
    for one in clips:
        step(one)
    wait(device)
    rate = BATCHES * size / (time.perf_counter() - start)
    persons = [len(one["sequence"]) for one in clips]
    flops = counter.get_total_flops() / size * sum(persons) / len(persons) / persons[0]
    if variant in VARIANTS[:2]:  # padded: no batch has fewer
        flops = counter.get_total_flops() / size
    peak = (
        torch.cuda.max_memory_allocated() / 1e6
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    )
    machine = max(machine, product_rate(device, dtype))  # shared machines come and go
    return {"rate": rate, "peak": peak, "flops": flops, "machine": machine}


def run(variant: str, name: str, frames: int, size: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.step", name, str(frames), str(size), variant]
    shown = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(shown.stdout)
    return found


def table(name: str, frames: int, size: int) -> None:
    sys.stdout.write(f"training step, {name}, {frames} frames, {size} clips, 17 joints\n")
    first = packed = None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for variant in (*VARIANTS[:3], *OPTIONS, *VARIANTS[3:]):
        if variant == "drop hidden" and name != "transformer":
            continue
        if variant == "+ bf16" and not multiplies_bf16(device):
            sys.stdout.write("  + bf16             left out: this processor does not multiply it\n")
            continue
        found = run(variant, name, frames, size)
        first = first or found
        packed = found if variant == "+ packed persons" else packed
        # a compiled step does what it was compiled from
        flops = found["flops"] or (packed or found)["flops"]
        reached = flops * found["rate"] / found["machine"]
        sys.stdout.write(
            f"  {variant:18} {found['rate']:8.2f} clips/s {found['rate'] / first['rate']:6.2f}x"
            f" {found['peak']:8.0f} MB {found['peak'] / first['peak']:6.2f}x"
            f" {flops / 1e9:8.0f} GFLOP a clip {reached:6.0%} of the machine\n"
        )
        sys.stdout.flush()


def growth(name: str) -> None:
    sys.stdout.write(f"training step, {name}, packed persons, 17 joints\n")
    step = {"transformer": 4, "sttformer": 6}.get(name, 1)
    for frames in (FRAMES[name] // 3 // step * step, FRAMES[name]):
        for size in (2, 4):
            found = run("+ packed persons", name, frames, size)
            sys.stdout.write(
                f"  {frames:4} frames {size:3} clips {found['rate']:8.2f} clips/s"
                f" {found['peak']:8.0f} MB\n"
            )
            sys.stdout.flush()


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--growth"]
    name = words[0] if words else "dstformer_lite"
    frames = int(words[1]) if len(words) > 1 else FRAMES[name]
    size = int(words[2]) if len(words) > 2 else 2
    if len(words) > 3:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        sys.stdout.write(json.dumps(measure(words[3], name, frames, size, device)))
    elif "--growth" in sys.argv:
        growth(name)
    else:
        table(name, frames, size)


if __name__ == "__main__":
    main()
