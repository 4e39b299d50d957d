"""Augmentation of a training batch: ours, batched, against one clip after another.

`python -m benchmarks.augment` on one thread. The baseline does what the released per-item
path does, in the way it does it: deep copies, a loop over frames with a 2 x 2 product each, and
the bounding box over a list of the visible points.
"""

import copy
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from maskclr_pl.skeletons.skeleton import SKELETONS
from maskclr_pl.transforms import Convert, CropScale, RandomMove

CLIPS, PERSONS, FRAMES, JOINTS = 32, 2, 243, 17


def per_item_move(motion: np.ndarray) -> np.ndarray:
    """Random global motion of one clip (M, T, V, 3)."""
    motion = copy.deepcopy(motion)
    angle, scale, shift_x, shift_y = (
        np.linspace(*np.random.uniform(low, high, 2), motion.shape[1])  # noqa: NPY002
        for low, high in ((-10, 10), (0.9, 1.1), (-0.1, 0.1), (-0.1, 0.1))
    )
    for t in range(motion.shape[1]):
        a = np.deg2rad(angle[t])
        rotation = scale[t] * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        xy = rotation @ motion[:, t, :, :2].reshape(-1, 2).T
        xy += np.array([[shift_x[t]], [shift_y[t]]])
        motion[:, t, :, :2] = xy.T.reshape(motion.shape[0], -1, 2)
    return motion


def per_item_crop(motion: np.ndarray) -> np.ndarray:
    """Crop one clip to the box around its visible points."""
    result = copy.deepcopy(motion)
    visible = motion[motion[..., 2] != 0][:, :2]
    low_x, high_x = min(visible[:, 0]), max(visible[:, 0])
    low_y, high_y = min(visible[:, 1]), max(visible[:, 1])
    ratio = np.random.uniform(1, 3)  # noqa: NPY002
    side = max(high_x - low_x, high_y - low_y) * ratio
    corner = np.array([(low_x + high_x - side) / 2, (low_y + high_y - side) / 2])
    result[..., :2] = ((motion[..., :2] - corner) / side - 0.5) * 2
    return np.clip(result, -1, 1)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The fastest of some runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    clips = rng.normal(0, 0.2, (CLIPS, PERSONS, FRAMES, JOINTS, 3)).astype(np.float32)
    clips[..., 2] = rng.uniform(0, 1, clips.shape[:-1])
    # the layout that the data module delivers: channels as planes
    batch = torch.from_numpy(np.ascontiguousarray(np.moveaxis(clips, -1, 0))).movedim(0, -1)
    ours = nn.Sequential(
        Convert(SKELETONS["coco17"], SKELETONS["h36m17"]), RandomMove(), CropScale((1, 3))
    )
    batched = seconds(lambda: ours(batch), 20)
    single = seconds(lambda: [per_item_crop(per_item_move(clip)) for clip in clips[:8]], 3) * 4
    sys.stdout.write(
        f"augment {CLIPS} clips x {PERSONS} persons x {FRAMES} frames x {JOINTS} joints, 1 thread\n"
        f"  one by one    {CLIPS / single:8.0f} clips/s (move, crop)\n"
        f"  batched       {CLIPS / batched:8.0f} clips/s (convert joints, move, crop)\n"
        f"  ratio         {single / batched:8.1f}\n"
    )


if __name__ == "__main__":
    main()
