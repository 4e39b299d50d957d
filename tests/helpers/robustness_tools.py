"""Clips, skeletons and random parts for the tests of the robustness suite."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from maskclr_pl.robustness.corruptions import (
    PARTS,
    BodyScale,
    ConfidenceDropout,
    Corruption,
    FrameDrop,
    FrameMasking,
    FrameRate,
    JointOcclusion,
    KeypointOcclusion,
    PartOcclusion,
    Poses,
    SideSwap,
    SpatialNoise,
    SpatiotemporalNoise,
    TimeCrop,
    clip_rng,
)
from maskclr_pl.skeletons.skeleton import Skeleton
from maskclr_pl.types import Batch

BODY = Skeleton(
    "body",
    (
        *("nose", "left_shoulder", "right_shoulder", "left_elbow", "root"),
        *("left_hip", "right_hip", "right_knee", "left_knee", "right_elbow"),
    ),
    (4, 4, 4, 1, -1, 4, 4, 6, 5, 2),
)
V = len(BODY)
FLAT, SPACE = Poses(BODY, 2), Poses(BODY, 3)

NOISE = [SpatialNoise, SpatiotemporalNoise]
OCCLUSIONS = [JointOcclusion, KeypointOcclusion, FrameMasking]
OCCLUSIONS += [partial(PartOcclusion, part=part) for part in PARTS]
TIMING = [FrameDrop, FrameRate, TimeCrop]
ALL = [*NOISE, *OCCLUSIONS, *TIMING, ConfidenceDropout, SideSwap, BodyScale]
IN_SPACE = [make for make in ALL if make is not ConfidenceDropout]
Make = Callable[..., Corruption]


def name_of(make: object) -> str:
    return make().name if callable(make) else str(make)


def batch(
    clips: int,
    recorded: int = 30,
    length: int = 8,
    seed: int = 0,
    first: int = 0,
    persons: int = 2,
    padding: int = 0,
) -> Batch:
    """The last of several persons is absent in odd clips; every third joint is missing."""
    rng = torch.Generator().manual_seed(seed)
    clip = torch.rand(clips, persons, length + padding, V, 3, generator=rng) - 0.5
    clip[..., 2] += 0.6
    clip[..., ::3, :] = 0
    clip[:, :, length:] = 0
    if persons > 1:
        clip[1::2, -1] = 0
    present = clip[..., 2].flatten(2).any(2)
    frame = torch.arange(length) * recorded // length
    frame = torch.cat((frame, torch.full((padding,), -1)))
    return {
        "clip": clip,
        "present": present,
        "sequence": present.flatten().nonzero().squeeze(1),
        "frame": frame.expand(clips, -1).contiguous(),
        "label": torch.arange(clips) % 3,
        "index": torch.arange(first, first + clips),
    }


def draws_of(
    corruption: Corruption,
    names: Sequence[str],
    data: Batch,
    draw: int = 0,
    poses: Poses = FLAT,
) -> Tensor:
    """The random parts of clips."""
    frames = int(data["frame"].max()) + 1
    rngs = [clip_rng(0, draw, corruption.name, name) for name in names]
    return torch.from_numpy(np.stack([corruption.draw(rng, frames, poses) for rng in rngs]))


def corrupted(
    corruption: Corruption, data: Batch, level: float, draw: int = 0, poses: Poses = FLAT
) -> Tensor:
    """The clips of a batch, whose names are clip0, clip1, ... by their index."""
    names = [f"clip{i}" for i in data["index"].tolist()]
    draws = draws_of(corruption, names, data, draw, poses)
    return corruption(data["clip"], draws, data["frame"], level, poses)
