"""A trained classifier as a file that runs without this package, compared before it is kept."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maskclr_pl import __version__
from maskclr_pl.data.dataset import MAX_FRAMES
from maskclr_pl.files import atomic_path
from maskclr_pl.inference.export_wrapper import ExportWrapper
from maskclr_pl.methods import Classifier
from maskclr_pl.types import Batch, InputError
from maskclr_pl.visibility import visible_in_clip

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4
"""Largest difference of a logit, absolute or in relation to it: float32 sums in another order."""
BATCHES = (1, 2, 5)
"""Numbers of clips that a file is compared at; what was fixed by mistake fails at two of them."""
_SHORTEST = 4  # frames; a motion needs two, and torch.export takes 0 and 1 for special
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Run = Callable[[Float[Tensor, "B M T V 3"]], Float[Tensor, "B K"]]


def check_installed(form: str) -> None:
    """Raise an InputError if a package is missing that a format needs."""
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if form == "onnx" and missing:
        raise InputError(
            f"format=onnx needs {', '.join(missing)}; type pip install 'maskclr_pl[export]', or "
            "format=torch"
        )


def export_metadata(info: Mapping[str, Any]) -> dict[str, Any]:
    """What an exported file says of itself: its input, its classes, its joints.

    Args:
        info: Metadata of the checkpoint.
    """
    data, coordinates = info["config"]["data"], info["config"]["augment"]["coordinates"]
    whole = data["sampling"] == "whole"
    units = (
        "x and y in image units, 2 * pixel / max(height, width) - 1, and the confidence in [0, 1]"
        if coordinates == "pixels"
        else "x, y, z in metres"
    )
    length = (
        f"T, {_SHORTEST} to {MAX_FRAMES}, all frames of a recording; shorter ones end in zeros"
        if whole
        else f"T = {data['frames']} frames of the n of a recording, floor(i * n / T)"
    )
    return {
        "maskclr_pl": __version__,
        "input": f"clip (B, M, T, V, 3) float32: B clips; M = {data['persons']} persons, zeros for "
        f"one who is absent; {length}; V joints, zeros for one that was not found; {units}",
        "output": "logits (B, K); their softmax are probabilities of the classes",
        "preprocessing": "part of the graph, conversion of the joints included",
        "class_names": list(info["class_names"]),
        "skeleton": info["source_skeleton"],
        "coordinates": coordinates,
        "persons": data["persons"],
        "frames": [_SHORTEST, MAX_FRAMES] if whole else data["frames"],
    }


def random_batch(facts: Mapping[str, Any], clips: int, seed: int) -> Batch:
    """Made-up clips as the data module delivers them: of persons and joints some are missing.

    Args:
        facts: See `export_metadata`.
        clips: How many.
        seed: Of the draws; it also decides the number of frames where that is free.
    """
    rng = np.random.default_rng(seed)
    frames = facts["frames"]
    if isinstance(frames, list):
        frames = int(rng.integers(frames[0], frames[1] + 1))
    shape = clips, facts["persons"], frames, len(facts["skeleton"]["joints"])
    # a pose for each person, so that clips differ in more than noise, which a model averages out
    pose, moved = rng.normal(0, 0.4, (*shape[:2], 1, shape[3], 3)), rng.normal(0, 0.1, (*shape, 3))
    clip = (pose + moved).astype(np.float32)
    if facts["coordinates"] == "pixels":
        clip[..., 2] = rng.uniform(0.05, 1, shape)
    clip *= rng.random((*shape, 1)) > 0.1
    clip[:, 1:] *= rng.random((clips, facts["persons"] - 1, 1, 1, 1)) > 0.5
    if isinstance(facts["frames"], list):
        ends = rng.integers(frames // 2, frames + 1, clips)
        clip *= (np.arange(frames) < ends[:, None])[:, None, :, None, None]
    tensor = torch.from_numpy(clip)
    present = visible_in_clip(tensor, facts["coordinates"]).flatten(2).any(-1)
    return {
        "clip": tensor,
        "present": present,
        "sequence": present.flatten().nonzero().squeeze(1),
        "frame": torch.arange(frames).expand(clips, -1),
        "label": torch.zeros(clips, dtype=torch.int64),
        "index": torch.arange(clips),
    }


def export(method: Classifier, info: Mapping[str, Any], form: str, path: Path) -> float:
    """Write a file, compare what it says with the model, and keep it only if they agree.

    Args:
        method: In eval mode, on the CPU.
        info: Metadata of its checkpoint.
        form: `onnx`, or `torch` for torch.export's own format.
        path: The file; one that exists is replaced.

    Returns:
        The largest difference of a logit.

    Raises:
        InputError: If a package is missing, the model cannot be exported, or the file gives
            other logits.
    """
    check_installed(form)
    facts = export_metadata(info)
    with atomic_path(path) as partial:
        run = {"onnx": _onnx, "torch": _torch}[form](_program(method, facts), facts, partial)
        difference = largest_difference(method, facts, run)
    return difference


@torch.no_grad()
def largest_difference(method: Classifier, facts: Mapping[str, Any], run: Run) -> float:
    """The largest difference of a logit on made-up clips, at several batch sizes.

    Raises:
        InputError: If one is above `TOLERANCE`.
    """
    largest = 0.0
    for seed, clips in enumerate(BATCHES):
        batch = random_batch(facts, clips, seed)
        expected = method.predict_clips(batch["clip"], batch).logits
        try:
            found = run(batch["clip"])
        except Exception as error:  # whatever the runtime raises, the file is of no use
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"the exported file fails on {clips} clips ({reason}); nothing was kept"
            ) from error
        same = found.shape == expected.shape
        difference = float((found - expected).abs().max()) if same else float("inf")
        if not same or not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise InputError(
                f"the exported file gives other logits than the model (by {difference:.3g} on "
                f"{clips} clips, allowed {TOLERANCE:g}); nothing was kept"
            )
        largest = max(largest, difference)
    return largest


def _program(method: Classifier, facts: Mapping[str, Any]) -> torch.export.ExportedProgram:
    """The graph, with a free number of clips and, where whole recordings go in, of frames."""
    free = {0: torch.export.Dim("batch", min=1, max=2**16)}
    if isinstance(facts["frames"], list):
        free[2] = torch.export.Dim("frames", min=facts["frames"][0], max=facts["frames"][1])
    example = random_batch(facts, clips=3, seed=0)["clip"]
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(
                ExportWrapper(method).eval(),
                (example,),
                dynamic_shapes={"clip": free},
                strict=False,
            )
    except Exception as error:  # of parts of the user's own, anything
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"this model cannot be exported: {reason}") from error


def _torch(program: torch.export.ExportedProgram, facts: Mapping[str, Any], path: Path) -> Run:
    with _quiet():
        torch.export.save(program, path, extra_files={"metadata.json": json.dumps(facts)})
        module = torch.export.load(path).module()
    return module


def _onnx(program: torch.export.ExportedProgram, facts: Mapping[str, Any], path: Path) -> Run:
    import onnxruntime

    try:
        with _quiet():
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=["clip"],
                output_names=["logits"],
                custom_translation_table=_translations(),
            )
    except Exception as error:  # an operator that ONNX lacks, and what the exporter makes of it
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise InputError(
            f"this model cannot be written as ONNX ({reason}); type format=torch"
        ) from error
    assert written is not None
    values = {key: v if isinstance(v, str) else json.dumps(v) for key, v in facts.items()}
    written.model.metadata_props.update(values)
    written.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(clip: Float[Tensor, "B M T V 3"]) -> Float[Tensor, "B K"]:
        return torch.from_numpy(session.run(["logits"], {"clip": clip.numpy()})[0])

    return run


def _translations() -> dict[Any, Callable[..., Any]]:
    """Operators that ONNX lacks, as our transforms use them."""
    from onnxscript import opset18

    op: Any = opset18  # its types know no constants

    def hypot(x: Any, y: Any) -> Any:
        return op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))

    def cummax(x: Any, dim: int) -> Any:
        """Of integers along the last axis; the indices, which nobody reads, are the values."""
        length = op.Squeeze(op.Shape(x, start=-1))
        step = op.Range(op.Constant(value_int=0), length, op.Constant(value_int=1))
        row, column = (op.Unsqueeze(step, op.Constant(value_ints=[axis])) for axis in (1, 0))
        spread = op.Unsqueeze(x, op.Constant(value_ints=[-2]))
        before = op.Where(op.LessOrEqual(column, row), spread, op.Constant(value_int=-(2**62)))
        values = op.ReduceMax(before, op.Constant(value_ints=[-1]), keepdims=0)
        return values, values

    aten = torch.ops.aten
    return {aten.hypot.default: hypot, aten.cummax.default: cummax}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings, and without notes of the exporters on what is not installed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
