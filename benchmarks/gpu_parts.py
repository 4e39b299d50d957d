"""What `make gpu` checks and measures, part by part (see `benchmarks.gpu`).

A part returns rows: `what`, `state` (ok, failed, or left out for want of time) and its figures.
"""

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tests.helpers.commands import in_process
from tests.helpers.step_cases import EVERY, PERSONS, case_of, evaluate, ready
from tests.helpers.step_tools import batch_of, clips_of_a_step, composed
from torch import nn

from benchmarks import step
from maskclr_pl.analysis.memory import step_loss, training_memory, trains_backbone
from maskclr_pl.config.paths import config_dir
from maskclr_pl.methods import KNN
from maskclr_pl.runs.read import read_metrics

Row = dict[str, Any]
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Card -> FLOP per second of dense bfloat16 products, of the data sheets (SXM)."""


def rows_of(
    cases: dict[str, Callable[[], Row]], deadline: float, device: torch.device
) -> Iterator[Row]:
    """A row for each case; one that fails does not end the others."""
    for what, measure in cases.items():
        if time.monotonic() > deadline:
            yield {"what": what, "state": "left out", "why": "no time left"}
            continue
        try:
            found = measure()
            yield {"what": what, "state": found.pop("state", "ok"), **found}
        except Exception as error:  # whatever a device can raise
            why = " ".join(str(error).split())[:300]
            yield {"what": what, "state": "failed", "why": f"{type(error).__name__}: {why}"}
        if device.type == "cuda":
            torch.cuda.empty_cache()


def half_of(device: torch.device, on: bool = True) -> Any:
    """Mixed precision in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16) if on else nullcontext()


def smoke(device: torch.device, tiny: bool, deadline: float) -> list[Row]:
    """Every method on every backbone, 2D and 3D: two steps in bfloat16, then evaluation; finite."""
    cases = {" ".join(case): lambda case=case: _smoke(case, device) for case in EVERY}
    return list(rows_of(cases, deadline, device))


def _smoke(case: tuple[str, str, str], device: torch.device) -> Row:
    cfg, source, method, masking = case_of(*case)
    method.to(device).train()
    clips = batch_of(cfg, source, PERSONS)
    batch: Any = {key: value.to(device) for key, value in clips.items()}
    ready(method, clips, masking, device)
    losses = []
    if not isinstance(method, KNN):
        others = [module for name, module in method.named_children() if name != "backbone"]
        optimizer, _ = method.optim.build(method.backbone, others, 10, 5, fused=False)
        for number in range(2):
            with half_of(device):
                loss = method.training_step(batch, number)["loss"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(method.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
    with torch.no_grad(), half_of(device):
        evaluate(method.eval(), batch)
        features = method.embed(batch)
    finite = all(map(math.isfinite, losses)) and bool(features.isfinite().all())
    return {"state": "ok" if finite else "failed", "losses": losses}


def run(device: torch.device, tiny: bool, deadline: float) -> list[Row]:
    """Train, kill and continue, evaluate, predict: the commands, on the device."""
    place = "gpu" if device.type == "cuda" else "cpu"
    words = [
        *("experiment=demo", f"source.clips={64 if tiny else 960}", "clip.frames=8"),
        *(f"trainer.max_epochs={2 if tiny else 6}", "data.batch_size=16", "data.num_workers=0"),
        *(f"trainer.accelerator={place}", "trainer.devices=1", "trainer.deterministic=warn"),
        *("masking.start_epoch=0", "masking.ramp_epochs=0", "logger=csv"),
        f"trainer.precision={'32-true' if tiny else 'bf16-mixed'}",
    ]
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    folder = Path(tempfile.mkdtemp(prefix="maskclr_gpu_"))
    on = f"device={device.type}"

    def command(name: str, *args: str) -> str:
        quiet: Any = SimpleNamespace(readouterr=lambda: SimpleNamespace(out="", err=""))
        return in_process(name, *args, cwd=folder, capsys=quiet)

    def trained() -> Row:
        command("train", *words, "output_dir=whole")
        found = read_metrics(folder / "whole")
        keys = ("train/samples_per_second", "train/peak_memory_mb", "test/top1")
        return {key: found[key] for key in keys if key in found}

    def continued() -> Row:
        _killed(folder, [*words, "output_dir=killed"])
        command("train", "resume=killed")
        return _compared(*(folder / name / "checkpoints/last.ckpt" for name in ("whole", "killed")))

    def evaluated() -> Row:
        command("evaluate", "ckpt_path=whole", on, "draws=1", "figures=none")
        lines = (folder / "whole/robustness.csv").read_text(encoding="utf-8").splitlines()
        header, clean = lines[0].split(","), lines[1].split(",")
        top1 = float(clean[header.index("top1")])
        tested = read_metrics(folder / "whole")["test/top1"]
        # of 240 clips, one is worth 0.4: precision may differ by a clip or two
        state = "ok" if abs(top1 - tested) < 1.5 else "failed"
        return {"state": state, "rows": len(lines) - 1, "test/top1": tested, "clean top1": top1}

    def predicted() -> Row:
        pose = np.random.default_rng(0).uniform(0, 200, (1, 30, 17, 2)).astype(np.float32)
        np.savez(folder / "pose.npz", keypoint=pose, frame_size=np.array([400, 400]))
        command("predict", "ckpt_path=whole", "input=pose.npz", on, "output_dir=said")
        files = sorted(path.name for path in (folder / "said").iterdir())
        return {"files": ", ".join(files)}

    cases = {
        "train": trained,
        **{"kill and resume": continued, "evaluate": evaluated, "predict": predicted},
    }
    try:
        return list(rows_of(cases, deadline, device))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _killed(folder: Path, words: list[str]) -> None:
    """Start a training and kill it when its first epoch is saved."""
    last = folder / "killed/checkpoints/last.ckpt"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    env["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # sums in the same order
    with open(folder / "killed.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "maskclr_pl.train", *words],
            **{"cwd": folder, "env": env, "stdout": log, "stderr": log},
            start_new_session=True,
        )
    size = -1
    while process.poll() is None:
        now = last.stat().st_size if last.is_file() else -1
        if now > 0 and now == size:  # written whole
            os.killpg(process.pid, signal.SIGKILL)
            break
        size = now
        time.sleep(0.02)
    process.wait()
    if process.returncode != -signal.SIGKILL:
        shown = (folder / "killed.log").read_text(encoding="utf-8")[-300:]
        raise RuntimeError(f"the training was over before it could be killed: {shown}")


def _compared(whole: Path, killed: Path) -> Row:
    one, other = (
        torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
        for path in (whole, killed)
    )
    largest = max(
        (one[key].double() - other[key].double()).abs().max().item() for key in one if len(one)
    )
    return {"state": "ok" if largest == 0 else "failed", "largest difference of weights": largest}


def memory(device: torch.device, tiny: bool, deadline: float) -> list[Row]:
    """Peak memory of a step of each recipe, against the estimate that `train` gives."""
    recipes = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))
    small = [*("size=tiny", "data.batch_size=4", "data.balanced=null")] if tiny else []
    chosen = ["supervised_transformer", "aimclr_sttformer"] if tiny else recipes
    cases = {name: lambda name=name: _memory(name, small, device) for name in chosen}
    return list(rows_of(cases, deadline, device))


def _memory(recipe: str, small: list[str], device: torch.device) -> Row:
    torch.manual_seed(0)
    cfg, source, method, masking = composed(f"experiment={recipe}", *small)
    size = clips_of_a_step(cfg)
    clips: Any = batch_of(cfg, source, round(1.2 * size))  # NTU RGB+D: 1.2 persons a clip
    bfloat = "bf16" in str(cfg.trainer.precision)
    estimate = training_memory(method, clips, masking, torch.bfloat16 if bfloat else None)
    batch: Any = {key: value.to(device) for key, value in clips.items()}
    del clips
    method.to(device).train(trains_backbone(method))
    method.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    if masking is not None:
        method.masking = masking
    trained = any(parameter.requires_grad for parameter in method.parameters())
    others = [module for name, module in method.named_children() if name != "backbone"]
    optimizer = (
        method.optim.build(method.backbone, others, 2, 1, not bfloat)[0] if trained else None
    )
    seconds = 0.0
    for number in range(2):  # the second has the state of the optimizer
        if number and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step.wait(device)
        began = time.perf_counter()
        loss = step_loss(method, batch, half_of(device, bfloat))
        if loss is not None and optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        step.wait(device)
        seconds = time.perf_counter() - began
    row = {"clips": size, "clips/s": round(size / seconds, 1)}
    row["estimate GB"] = round(estimate.peak / 1e9, 3)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
        row |= {"peak GB": round(peak, 3), "peak / estimate": round(peak / row["estimate GB"], 3)}
    return row


def compiled(device: torch.device, tiny: bool, deadline: float) -> list[Row]:
    """Each backbone compiled: as the plain one, and how long the first step takes."""
    names = ["transformer"] if tiny else ["dstformer", "sttformer", "transformer"]
    # without code for the device, tracing takes seconds
    backend = "eager" if tiny else "inductor"
    cases = {name: lambda name=name: _compiled(name, device, backend) for name in names}
    return list(rows_of(cases, deadline, device))


def _compiled(name: str, device: torch.device, backend: str) -> Row:
    cfg, source, method, masking = case_of("recognizer", name, "3D")
    clips = batch_of(cfg, source, PERSONS)
    batch: Any = {key: value.to(device) for key, value in clips.items()}
    method.to(device).eval()
    ready(method, clips, masking, device)

    def logits() -> torch.Tensor:
        return method.predict_clips(batch["clip"], batch).logits  # type: ignore[attr-defined]

    with torch.no_grad():
        expected = logits()
    torch._dynamo.reset()
    method.compile_backbone(backend=backend)
    with torch.no_grad():
        difference = float((logits() - expected).abs().max() / expected.abs().max())
    began = time.perf_counter()
    method.train()
    for number in range(2):
        with half_of(device):
            loss = method.training_step(batch, number)["loss"]
        loss.backward()
    finite = math.isfinite(float(loss.detach()))
    seconds = round(time.perf_counter() - began, 1)
    state = "ok" if finite and difference < 1e-2 else "failed"
    return {"state": state, "relative difference": difference, "seconds to compile": seconds}


def bench(device: torch.device, tiny: bool, deadline: float) -> list[Row]:
    """The step of `make bench` at the recipes' batch sizes: what was released, and ours."""
    backbones = {"dstformer_tiny": 9} if tiny else {"transformer": 120, "dstformer": 243}
    # on a CPU the last is compiled for a minute
    variants = ("baseline", "+ packed persons", "+ bf16")[: 2 if tiny else 3]
    cases = {
        f"{name}, {frames} frames, {variant}": (
            lambda variant=variant, name=name, frames=frames: _bench(
                variant, name, frames, 2 if tiny else recipe_clips(name), device
            )
        )
        for name, frames in backbones.items()
        for variant in variants
    }
    return list(rows_of(cases, deadline, device))


def recipe_clips(backbone: str) -> int:
    """Clips of a batch of the MaskCLR recipe of a backbone."""
    return clips_of_a_step(composed(f"experiment=maskclr_{backbone}")[0])


def _bench(variant: str, name: str, frames: int, size: int, device: torch.device) -> Row:
    wanted = size
    while True:
        torch._dynamo.reset()
        try:
            found = step.measure(variant, name, frames, size, device)
            break
        except torch.OutOfMemoryError:
            if size < 4:
                raise
            size //= 2
        torch.cuda.empty_cache()
    row = {"clips": size, "clips/s": round(found["rate"], 1), "peak MB": round(found["peak"])}
    if size < wanted:
        row["why"] = f"{wanted} clips do not fit"
    # a compiled step is not counted: it computes what it was compiled from
    flops = found["flops"] or step.measured_flops(name, frames, device)
    row["TFLOP/s"] = round(flops * found["rate"] / 1e12, 2)
    row["of the largest product"] = round(flops * found["rate"] / found["machine"], 3)
    if device.type == "cuda":
        card = torch.cuda.get_device_name()
        known = [peak for label, peak in PEAK.items() if label in card]
        row["MFU (bf16 peak)"] = round(flops * found["rate"] / known[0], 3) if known else ""
    return row


PARTS: dict[str, Callable[[torch.device, bool, float], list[Row]]] = {
    **{"smoke": smoke, "run": run, "memory": memory, "compile": compiled, "bench": bench}
}
