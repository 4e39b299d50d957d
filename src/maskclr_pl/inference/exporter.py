"""Export of a classifier to a single file, verified against the model before it is kept."""

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
from maskclr_pl.text import one_line
from maskclr_pl.types import Batch, InputError
from maskclr_pl.visibility import visible_in_clip

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4
"""Largest absolute or relative difference of a logit: float32 sums in another order."""
BATCH_SIZES = (1, 2, 5)
"""Batch sizes of the comparison; a size fixed by mistake fails for at least two of them."""
_MIN_FRAMES = 4  # a motion needs two, and torch.export specializes on 0 and 1
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

LogitFunction = Callable[[Float[Tensor, "B M T V 3"]], Float[Tensor, "B K"]]


def check_installed(file_format: str) -> None:
    """Raise an InputError if a package that the format needs is missing."""
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if file_format == "onnx" and missing:
        raise InputError(
            f"format=onnx needs {', '.join(missing)}; run pip install 'maskclr_pl[export]', or "
            "pass format=torch"
        )


def export_metadata(info: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an exported file: its input, output, classes and joints.

    Args:
        info: Metadata of the checkpoint.
    """
    data, coordinates = info["config"]["data"], info["config"]["augment"]["coordinates"]
    whole = data["sampling"] == "whole"
    units = "x, y, z in meters"
    if coordinates == "pixels":
        units = (
            "x and y in image units, 2 * pixel / max(height, width) - 1, and the confidence in "
            "[0, 1]"
        )
    length = f"T = {data['frames']} frames of the n of a recording, floor(i * n / T)"
    if whole:
        length = (
            f"T, {_MIN_FRAMES} to {MAX_FRAMES}, all frames of a recording, zero-padded at the end"
        )
    return {
        "maskclr_pl": __version__,
        "input": f"clip (B, M, T, V, 3) float32: B clips; M = {data['persons']} persons, zeros for "
        f"an absent one; {length}; V joints, zeros for a missing one; {units}",
        "output": "logits (B, K); softmax gives class probabilities",
        "preprocessing": "included in the graph, with the conversion of the joints",
        "class_names": list(info["class_names"]),
        "skeleton": info["source_skeleton"],
        "coordinates": coordinates,
        "persons": data["persons"],
        "frames": [_MIN_FRAMES, MAX_FRAMES] if whole else data["frames"],
    }


def random_batch(metadata: Mapping[str, Any], batch_size: int, seed: int) -> Batch:
    """Random clips as the data module delivers them, with missing persons and joints.

    Args:
        metadata: See `export_metadata`.
        batch_size: Number of clips.
        seed: Seed of the draws, and of the number of frames where that is free.
    """
    rng = np.random.default_rng(seed)
    frames = metadata["frames"]
    if isinstance(frames, list):
        frames = int(rng.integers(frames[0], frames[1] + 1))
    shape = batch_size, metadata["persons"], frames, len(metadata["skeleton"]["joints"])
    # a pose for each person: clips that differ in noise alone would have nearly equal logits
    pose, motion = rng.normal(0, 0.4, (*shape[:2], 1, shape[3], 3)), rng.normal(0, 0.1, (*shape, 3))
    clip = (pose + motion).astype(np.float32)
    if metadata["coordinates"] == "pixels":
        clip[..., 2] = rng.uniform(0.05, 1, shape)
    clip *= rng.random((*shape, 1)) > 0.1
    clip[:, 1:] *= rng.random((batch_size, shape[1] - 1, 1, 1, 1)) > 0.5
    if isinstance(metadata["frames"], list):
        ends = rng.integers(frames // 2, frames + 1, batch_size)
        clip *= (np.arange(frames) < ends[:, None])[:, None, :, None, None]
    tensor = torch.from_numpy(clip)
    present = visible_in_clip(tensor, metadata["coordinates"]).flatten(2).any(-1)  # (B, M)
    return {
        "clip": tensor,
        "present": present,
        "sequence": present.flatten().nonzero().squeeze(1),
        "frame": torch.arange(frames).expand(batch_size, -1),
        "label": torch.zeros(batch_size, dtype=torch.int64),
        "index": torch.arange(batch_size),
    }


def export(method: Classifier, info: Mapping[str, Any], file_format: str, path: Path) -> float:
    """Export a model, compare the file with the model, and keep it only if they agree.

    Args:
        method: Classifier in eval mode, on the CPU.
        info: Metadata of its checkpoint.
        file_format: `onnx`, or `torch` for torch.export's own format.
        path: File to write; an existing one is replaced.

    Returns:
        The largest difference of a logit.

    Raises:
        InputError: If a package is missing, the model cannot be exported, or the file gives
            different logits.
    """
    check_installed(file_format)
    metadata = export_metadata(info)
    with atomic_path(path) as partial:
        write = {"onnx": _write_onnx, "torch": _write_torch}[file_format]
        run = write(_exported_program(method, metadata), metadata, partial)
        return largest_difference(method, metadata, run)


@torch.no_grad()
def largest_difference(
    method: Classifier, metadata: Mapping[str, Any], run: LogitFunction
) -> float:
    """The largest difference of a logit on random clips, over several batch sizes.

    Raises:
        InputError: If one is above `TOLERANCE`.
    """
    largest = 0.0
    for seed, batch_size in enumerate(BATCH_SIZES):
        batch = random_batch(metadata, batch_size, seed)
        expected = method.predict_clips(batch["clip"], batch).logits
        try:
            logits = run(batch["clip"])
        except Exception as error:  # runtimes raise many types
            raise InputError(
                f"the exported file fails on {batch_size} clips ({one_line(error)}); nothing was "
                "kept"
            ) from error
        same_shape = logits.shape == expected.shape
        difference = float((logits - expected).abs().max()) if same_shape else float("inf")
        if not same_shape or not torch.allclose(logits, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise InputError(
                f"the exported file and the model give different logits (by {difference:.3g} on "
                f"{batch_size} clips, allowed {TOLERANCE:g}); nothing was kept"
            )
        largest = max(largest, difference)
    return largest


def _exported_program(
    method: Classifier, metadata: Mapping[str, Any]
) -> torch.export.ExportedProgram:
    """The graph, with a free batch size and, for whole recordings, a free number of frames."""
    free = {0: torch.export.Dim("batch", min=1, max=2**16)}
    if isinstance(metadata["frames"], list):
        low, high = metadata["frames"]
        free[2] = torch.export.Dim("frames", min=low, max=high)
    example = random_batch(metadata, batch_size=3, seed=0)["clip"]
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(
                ExportWrapper(method).eval(),
                (example,),
                dynamic_shapes={"clip": free},
                strict=False,
            )
    except Exception as error:  # custom parts can raise any type
        raise InputError(f"this model cannot be exported: {one_line(error, 300)}") from error


def _write_torch(
    program: torch.export.ExportedProgram, metadata: Mapping[str, Any], path: Path
) -> LogitFunction:
    with _quiet():
        torch.export.save(program, path, extra_files={"metadata.json": json.dumps(metadata)})
        module = torch.export.load(path).module()
    return module


def _write_onnx(
    program: torch.export.ExportedProgram, metadata: Mapping[str, Any], path: Path
) -> LogitFunction:
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
    except Exception as error:  # the exporter raises many types, for missing operators and more
        reason = one_line(error.__cause__ or error, 300)
        raise InputError(
            f"this model cannot be written as ONNX ({reason}); pass format=torch"
        ) from error
    assert written is not None
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in metadata.items()}
    written.model.metadata_props.update(texts)
    written.save(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(clip: Float[Tensor, "B M T V 3"]) -> Float[Tensor, "B K"]:
        return torch.from_numpy(session.run(["logits"], {"clip": clip.numpy()})[0])

    return run


def _translations() -> dict[Any, Callable[..., Any]]:
    """Operators that ONNX lacks, as used by our transforms."""
    from onnxscript import opset18

    op: Any = opset18  # its type stubs do not accept constants

    def hypot(x: Any, y: Any) -> Any:
        return op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))

    def cummax(x: Any, dim: int) -> Any:
        """Cumulative maximum of integers along the last axis; values stand in for the indices."""
        length = op.Squeeze(op.Shape(x, start=-1))
        step = op.Range(op.Constant(value_int=0), length, op.Constant(value_int=1))
        row, column = (op.Unsqueeze(step, op.Constant(value_ints=[axis])) for axis in (1, 0))
        expanded = op.Unsqueeze(x, op.Constant(value_ints=[-2]))
        before = op.Where(op.LessOrEqual(column, row), expanded, op.Constant(value_int=-(2**62)))
        values = op.ReduceMax(before, op.Constant(value_ints=[-1]), keepdims=0)
        return values, values

    aten = torch.ops.aten
    return {aten.hypot.default: hypot, aten.cummax.default: cummax}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings, and the exporters' notes on optional packages."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
