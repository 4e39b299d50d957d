"""Checkpoints as others publish them: the names and shapes of their formats, random numbers."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


def _tensors(shapes: Shapes) -> dict[str, Tensor]:
    """Random values of the magnitude of trained weights; variances are positive."""
    return {
        name: torch.rand(shape) + 0.5 if name.endswith("running_var") else 0.1 * torch.randn(shape)
        for name, shape in shapes.items()
    }


def _linear(name: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _batch_norm(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {**_norm(name, dim), f"{name}.running_mean": (dim,), f"{name}.running_var": (dim,)}


def _convolution(name: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
    return {**_linear(f"{name}.0", outputs, *inputs), **_batch_norm(f"{name}.1", outputs)}


def motionbert(
    dim: int = 16,
    rep_dim: int = 12,
    depth: int = 2,
    ratio: int = 2,
    frames: int = 8,
    joints: int = 5,
    masked: bool = False,
) -> dict[str, Tensor]:
    """MotionBERT's network with its 3D head; `masked`: MaskCLR's, with its two more tensors."""
    shapes: dict[str, tuple[int, ...]] = {
        "temp_embed": (1, frames, 1, dim),
        "pos_embed": (1, joints, dim),
        **_linear("joints_embed", dim, 3),
        **_norm("norm", dim),
        **_linear("pre_logits.fc", rep_dim, dim),
        **_linear("head", 3, rep_dim),
    }
    for i in range(depth):
        shapes |= _linear(f"ts_attn.{i}", 2, 2 * dim)
        for stream in ("st", "ts"):
            for kind in "st":
                block = f"blocks_{stream}.{i}."
                shapes |= _norm(f"{block}norm1_{kind}", dim) | _norm(f"{block}norm2_{kind}", dim)
                shapes |= _linear(f"{block}attn_{kind}.qkv", 3 * dim, dim)
                shapes |= _linear(f"{block}attn_{kind}.proj", dim, dim)
                shapes |= _linear(f"{block}mlp_{kind}.fc1", ratio * dim, dim)
                shapes |= _linear(f"{block}mlp_{kind}.fc2", dim, ratio * dim)
    if masked:
        shapes |= {"mask_token": (1, 1, dim), **_linear("proj_head", dim, dim // 2)}
    return _tensors(shapes)


def action_head(dim: int = 12, joints: int = 5, classes: int = 3) -> dict[str, Tensor]:
    """The head of MotionBERT's action checkpoints, and of fine-tuned MAMP."""
    shapes = {
        **_linear("fc1", 7, dim * joints),
        **_batch_norm("bn", 7),
        **_linear("fc2", classes, 7),
    }
    return _tensors(shapes) | {"bn.num_batches_tracked": torch.tensor(9)}


def _vanilla(prefix: str, i: int, dim: int) -> dict[str, tuple[int, ...]]:
    block = f"{prefix}blocks.{i}."
    return {
        **_norm(f"{block}norm1", dim),
        **_linear(f"{block}attn.qkv", 3 * dim, dim),
        **_linear(f"{block}attn.proj", dim, dim),
        **_norm(f"{block}norm2", dim),
        **_linear(f"{block}mlp.fc1", 4 * dim, dim),
        **_linear(f"{block}mlp.fc2", dim, 4 * dim),
    }


def mamp(dim: int = 16, depth: int = 2, steps: int = 3, joints: int = 5) -> dict[str, Tensor]:
    """MAMP's encoder, with patches of four frames."""
    shapes: dict[str, tuple[int, ...]] = {
        **_linear("joints_embed.proj", dim, 3, 4, 1),
        "temp_embed": (1, steps, 1, dim),
        "pos_embed": (1, 1, joints, dim),
        **_norm("norm", dim),
    }
    for i in range(depth):
        shapes |= _vanilla("", i, dim)
    return _tensors(shapes)


def mamp_decoder(dim: int = 16, steps: int = 3, joints: int = 5) -> dict[str, Tensor]:
    """Decoder weights of a MAMP pre-training, mask token included."""
    shapes: dict[str, tuple[int, ...]] = {
        **_linear("decoder_embed", dim, dim),
        "mask_token": (1, 1, dim),
        "decoder_temp_embed": (1, steps, 1, dim),
        "decoder_pos_embed": (1, 1, joints, dim),
        **_vanilla("decoder_", 0, dim),
        **_norm("decoder_norm", dim),
        **_linear("decoder_pred", 12, dim),
    }
    return _tensors(shapes)


def sttformer(
    blocks: tuple[tuple[int, int, int], ...] = ((6, 6, 2), (6, 8, 3)),
    heads: int = 2,
    slots: int = 15,
    tuples: int = 4,
    classes: int = 3,
) -> dict[str, Tensor]:
    """STTFormer with its classifier and the position codes that it saves."""
    shapes = _convolution("input_map", blocks[0][0], 3, 1, 1)
    for i, (inputs, outputs, dim) in enumerate(blocks):
        block = f"blocks.{i}."
        shapes |= {
            f"{block}alphas": (1, heads, 1, 1),
            f"{block}att0s": (1, heads, slots, slots),
            f"{block}pes.pe": (1, inputs, tuples, slots),
            **_linear(f"{block}to_qkvs", 2 * heads * dim, inputs, 1, 1),
            **_convolution(f"{block}out_nets", outputs, inputs * heads, 1, 5),
            **_convolution(f"{block}ff_net", outputs, outputs, 1, 1),
            **_convolution(f"{block}out_nett", outputs, outputs, 3, 1),
        }
        if inputs != outputs:
            shapes |= _convolution(f"{block}ress", outputs, inputs, 1, 1)
            shapes |= _convolution(f"{block}rest", outputs, outputs, 1, 1)
    shapes |= _linear("fc", classes, blocks[-1][1])
    counts = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(9)
        for name in shapes
        if name.endswith("running_mean")
    }
    return _tensors(shapes) | counts


def numbers() -> dict[str, Any]:
    """Beside weights: what a NumPy mean or an options parser leaves in a checkpoint."""
    return {
        "epoch": 7,
        "lr": 1e-4,
        "best_acc": np.float64(0.913),
        "min_loss": np.mean(np.float32([1, 2])),
        "step": np.int64(3),
        "args": Namespace(lr=1e-3, name="a", betas=[0.9, 0.95], model_args={"depth": 2}),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
        "scaler": {},
    }
